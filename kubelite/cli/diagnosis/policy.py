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
    from collections.abc import Mapping, Sequence

    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json
    from kubelite.network_policies.explanation import Cluster, Place, Trace

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
    it. A connection to a Service goes to one of its pods, so name that pod. Pods with IPv4 and IPv6 addresses are
    judged over both; the answer names the families if they differ. The exit code is 0 if the connection is allowed, 3
    if policies drop it over a family, and 1 if it cannot be judged, for example without such a pod.
    """
    from kubelite.network_policies.explanation import together, traces

    server, where = client(ctx), namespace or "default"
    to, colon, port = destination.rpartition(":")
    if not colon or not port:
        raise CliError(
            f'error: "{destination}" has no port: add it, as in {destination.rstrip(":")}:80', code=2
        )
    cluster, dns = cluster_of(server), _dns(server)
    begin = _places(server, cluster, source, where, dns)
    end = _places(server, cluster, to.strip("[]"), where, dns)
    number = _port(end[0], port, protocol.upper())
    families = traces(cluster, begin, end, number, protocol.upper(), dns=dns)
    if not families:
        raise CliError(
            f"error: {begin[0].name} and {end[0].name} have no addresses of the same family, IPv4 or IPv6"
        )
    found = together(families)
    if output == "json":
        print_json(asdict(found))
    else:
        head = f"{begin[0].name} → {end[0].name}, port {number}/{protocol.upper()}: {_said(families)}"
        print("\n".join(map(harmless, (head, *(f"  - {reason}" for reason in found.reasons)))))
    if not found.allowed:
        raise Exit(DROPPED)


def _said(families: Mapping[str, Trace]) -> str:
    """Return `allowed` or `dropped`, with the families if these differ."""
    words = {family: "allowed" if one.allowed else "dropped" for family, one in families.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{said} over {family}" for family, said in words.items())


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


def _places(server: Client, cluster: Cluster, text: str, namespace: str, dns: str) -> Sequence[Place]:
    """Find a pod by POD, pod/POD or NAMESPACE/POD, or by its address. Return it once for each address that is meant.
    Raises CliError, which names the pods of a Service or a workload."""
    from kubelite.network_policies.explanation import Place, is_address
    from kubelite.services.backends import addresses_of

    if text == "dns":
        return (Place("the DNS server", dns),)
    if is_address(text):
        pod = cluster.pod_at(text)
        return (Place(_name(pod), text, pod) if pod is not None else Place(text, text),)
    first, slash, name = text.partition("/")
    if not slash or first in PODS.words:
        first, name = namespace, name or text
    pod = cluster.pod(first, name)
    if pod is None:
        _refuse_workload(server, text, namespace)
        raise CliError(f'Error from server (NotFound): pods "{name}" not found in namespace {first}')
    if not addresses_of(pod):
        raise CliError(
            f"error: pod {first}/{name} has no address yet: `kubelite why {name} -n {first}` says why"
        )
    return tuple(Place(_name(pod), address, pod) for address in addresses_of(pod))


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


def _name(pod: Json) -> str:
    return f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _port(place: Place, text: str, protocol: str) -> int:
    from kubelite.network_policies.explanation import named_port

    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    number = named_port(place.pod, text, protocol) if place.pod is not None else None
    if number is None:
        raise CliError(f'error: {place.name} has no {protocol} port "{text}"')
    return number
