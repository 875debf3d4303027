"""`kubelite policy trace`: say which NetworkPolicies allow a connection, or drop it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import CliError, Exit
from kubelite.cli.groups import Group
from kubelite.cli.names import PODS, SERVICES, WORKLOADS, path_of, resource_type
from kubelite.cli.options import client, complete_pods, namespace_option, socket_option
from kubelite.cli.output.foreign import harmless
from kubelite.cli.output.tables import print_json

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json
    from kubelite.network_policies.explanation import Cluster, Place

COMMAND = "kubelite policy trace"
DROPPED = 3  # exit code: policies drop the connection. 1 and 2 are those of errors


@click.group(
    cls=Group,
    examples="""
    # Say whether the pod web may connect to port 5432 of the pod db, and why
    kubelite policy trace web db:5432
    """,
)
def policy() -> None:
    """Explain what NetworkPolicies allow."""


@policy.command(
    "trace",
    examples="""
    # Say whether the pod web may connect to port 5432 of the pod db, and why
    kubelite policy trace web db:5432

    # From a pod of another namespace, to a port by its name
    kubelite policy trace shop/web db:postgres

    # From an address outside, and to one
    kubelite policy trace 192.0.2.7 web:80
    kubelite policy trace web 192.0.2.7:443

    # To the node's DNS server
    kubelite policy trace web dns:53 --protocol udp
    """,
)
@click.argument("source", metavar="POD|ADDRESS", shell_complete=complete_pods)
@click.argument("destination", metavar="(POD|ADDRESS|dns):PORT", shell_complete=complete_pods)
@click.option(
    "--protocol",
    type=click.Choice(["tcp", "udp", "sctp"], case_sensitive=False),
    default="tcp",
    metavar="tcp|udp|sctp",
    help="Protocol of the connection. [default: tcp]",
)
@namespace_option
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json", help="Output format.")
@socket_option
@click.pass_context
def trace(
    ctx: click.Context,
    source: str,
    destination: str,
    *,
    protocol: str,
    namespace: str | None,
    output: str | None,
) -> None:
    """Say which policies allow a connection, or drop it.

    A pod of another namespace is NAMESPACE/POD. The port is a number, or a name that the destination's containers give
    it. A connection to a Service goes to one of its pods, so name that pod. The exit code is 0 if the connection is
    allowed, 3 if policies drop it, and 1 if it cannot be judged, for example without such a pod.
    """
    from kubelite.network_policies.explanation import trace as traced

    server, where = client(ctx), namespace or "default"
    to, colon, port = destination.rpartition(":")
    if not colon or not port:
        raise CliError(
            f'error: "{destination}" has no port: add it, as in {destination.rstrip(":")}:80', code=2
        )
    cluster, dns = cluster_of(server), _dns(server)
    begin = _place(server, cluster, source, where, dns)
    end = _place(server, cluster, to.strip("[]"), where, dns)
    number = _port(end, port, protocol.upper())
    found = traced(cluster, begin, end, number, protocol.upper(), dns=dns)
    if output == "json":
        print_json(asdict(found))
    else:
        said = "allowed" if found.allowed else "dropped"
        head = f"{begin.name} → {end.name}, port {number}/{protocol.upper()}: {said}"
        print("\n".join(map(harmless, (head, *(f"  - {reason}" for reason in found.reasons)))))
    if not found.allowed:
        raise Exit(DROPPED)


def cluster_of(server: Client) -> Cluster:
    """Read what decides: policies, pods and namespaces."""
    from kubelite.network_policies.explanation import Cluster

    def listed(kind: str) -> list[Json]:
        found: list[Json] = server.get(path_of(resource_type(kind), None))["items"]
        return found

    return Cluster(listed("networkpolicies"), server.get(path_of(PODS, None))["items"], listed("namespaces"))


def _dns(server: Client) -> str:
    """Return the address of the node's DNS server: the first one of the pods' network."""
    import ipaddress

    node = server.get(path_of(resource_type("nodes"), None))["items"][0]
    network = ipaddress.ip_network((node.get("spec") or {}).get("podCIDR") or "0.0.0.0/0")
    return str(network.network_address + 1)


def _place(server: Client, cluster: Cluster, text: str, namespace: str, dns: str) -> Place:
    """Find a pod by POD, pod/POD or NAMESPACE/POD, or by its address. Raises CliError, which names the pods of a
    Service or a workload."""
    from kubelite.network_policies.explanation import Place, is_address
    from kubelite.services.backends import address_of

    if text == "dns":
        return Place("the DNS server", dns)
    if is_address(text):
        pod = cluster.pod_at(text)
        return _of_pod(pod, text) if pod is not None else Place(text, text)
    first, slash, name = text.partition("/")
    if not slash or first in PODS.words:
        first, name = namespace, name or text
    pod = cluster.pod(first, name)
    if pod is None:
        _refuse_workload(server, text, namespace)
        raise CliError(f'Error from server (NotFound): pods "{name}" not found in namespace {first}')
    if not address_of(pod):
        raise CliError(
            f"error: pod {first}/{name} has no address yet: `kubelite why {name} -n {first}` says why"
        )
    return _of_pod(pod)


def _refuse_workload(server: Client, text: str, namespace: str) -> None:
    """Raise a CliError that names the pods of a workload, TYPE/NAME, or of a Service, [NAMESPACE/]NAME."""
    from kubelite.cli.containers.chosen_pod import only_pod_name

    first, slash, name = text.partition("/")
    if slash and first in {word for kind in (*WORKLOADS, SERVICES) for word in kind.words}:
        only_pod_name(server, namespace, text, COMMAND)
    where, name = (first, name) if slash else (namespace, text)
    services = server.get(path_of(SERVICES, where))["items"]
    if name in {doc["metadata"]["name"] for doc in services}:
        only_pod_name(server, where, f"service/{name}", COMMAND)


def _of_pod(pod: Json, address: str = "") -> Place:
    """`address`: that of the pod's which is meant; "" for its IPv4 address."""
    from kubelite.network_policies.explanation import Place
    from kubelite.services.backends import address_of

    metadata = pod["metadata"]
    return Place(f"pod {metadata['namespace']}/{metadata['name']}", address or address_of(pod), pod)


def _port(place: Place, text: str, protocol: str) -> int:
    from kubelite.network_policies.explanation import named_port

    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    number = named_port(place.pod, text, protocol) if place.pod is not None else None
    if number is None:
        raise CliError(f'error: {place.name} has no {protocol} port "{text}"')
    return number
