"""`kubelite create service` and `kubelite expose`: write the manifest of a Service, with kubectl's flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kubelite.cli.create import service_documents as documents
from kubelite.cli.create.documents import pairs_of
from kubelite.cli.create.writing import dry_run_option, mark, output_option, write
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command, Group
from kubelite.cli.names import PODS, WORKLOADS, path_of, resource_type, wanted
from kubelite.cli.options import client, namespace_option, socket_option

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json

F = TypeVar("F", bound=Callable[..., Any])
_name = click.argument("name")
_tcp = click.option(
    "--tcp", multiple=True, metavar="PORT[:TARGET]", help="Port, and the pods' port or its name; repeatable."
)


def _common(command: F) -> F:
    for option in (socket_option, output_option, dry_run_option, namespace_option):
        command = option(command)
    return click.pass_context(command)  # type: ignore[return-value]


@click.group(
    "service",
    cls=Group,
    examples="""
    # Create a Service for pods with the label app=web
    kubelite create service clusterip web --tcp=80:8080

    # Create one that this machine serves at port 30080
    kubelite create service nodeport web --tcp=80:8080 --node-port=30080
    """,
)
def service() -> None:
    """Create a Service. It selects pods with the label app=NAME."""


@service.command(
    "clusterip",
    examples="""
    # Create a Service for pods with the label app=web
    kubelite create service clusterip web --tcp=80:8080

    # Create a headless one
    kubelite create service clusterip web --clusterip=None
    """,
)
@_name
@_tcp
@click.option("--clusterip", default="", metavar="IP|None", help="Address; None: a headless Service.")
@_common
def clusterip(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a Service with an address inside the node."""
    _create(ctx, "clusterip", name, options, cluster_ip=options["clusterip"])


@service.command(
    "nodeport",
    examples="""
    # Create a Service that this machine serves at a free port
    kubelite create service nodeport web --tcp=80:8080
    """,
)
@_name
@_tcp
@click.option(
    "--node-port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="Port of the node."
)
@_common
def nodeport(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a Service with a port of this machine."""
    _create(ctx, "nodeport", name, options, node_port=options["node_port"])


@service.command(
    "loadbalancer",
    examples="""
    # Open port 80 of this machine for pods with the label app=web
    kubelite create service loadbalancer web --tcp=80:8080
    """,
)
@_name
@_tcp
@_common
def loadbalancer(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a Service whose ports are open on the address of this machine."""
    _create(ctx, "loadbalancer", name, options)


@service.command(
    "externalname",
    examples="""
    # Give a name outside a name on this node
    kubelite create service externalname db --external-name=db.example.org
    """,
)
@_name
@_tcp
@click.option("--external-name", required=True, metavar="DNS-NAME", help="The name that it stands for.")
@_common
def externalname(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a Service that is another name for a name in DNS."""
    ports = documents.tcp_ports(options["tcp"], 0)
    _write(
        client(ctx),
        documents.external_name(name, options["namespace"], options["external_name"], ports),
        options,
    )


def _create(
    ctx: click.Context, kind: str, name: str, options: Json, *, cluster_ip: str = "", node_port: int = 0
) -> None:
    ports = documents.tcp_ports(options["tcp"], node_port)
    if not ports and cluster_ip != "None":
        raise CliError("error: at least one tcp port specifier must be provided", code=2)
    if ports and cluster_ip == "None":
        raise CliError("error: can not map ports with clusterip=None", code=2)
    _write(client(ctx), documents.service(name, options["namespace"], kind, ports, cluster_ip), options)


def _write(server: Client, document: Json, options: Json) -> None:
    mark(document, "create")
    write(server, document, dry_run=options["dry_run"], output=options["output"])


@click.command(
    cls=Command,
    examples="""
    # Create a Service for a deployment, which serves port 80 and sends to port 8080 of its pods
    kubelite expose deployment web --port=80 --target-port=8080

    # Create a Service that this machine serves, too
    kubelite expose deployment/web --port=80 --type=NodePort
    """,
)
@click.argument("what", nargs=-1, required=True, metavar="TYPE NAME | TYPE/NAME")
@click.option("--port", default="", metavar="PORT,...", help="Ports. Default: those of the containers.")
@click.option("--target-port", default="", metavar="PORT|NAME", help="The pods' port. Default: the port.")
@click.option(
    "--protocol", type=click.Choice(["TCP", "UDP", "SCTP"]), help="Protocol of the ports. [default: TCP]"
)
@click.option("--name", default="", metavar="NAME", help="Name of the Service. [default: NAME]")
@click.option(
    "--type", type=click.Choice(["ClusterIP", "NodePort", "LoadBalancer"]), help="Type of the Service."
)
@click.option("--cluster-ip", default="", metavar="IP|None", help="Address; None: a headless Service.")
@click.option(
    "--external-ip", default="", metavar="IP", help="A further address at which this machine serves it."
)
@click.option("--session-affinity", default="", metavar="ClientIP|None", help="Send a client to one pod.")
@click.option(
    "--selector", default="", metavar="KEY=VALUE,...", help="Labels of the pods. Default: the object's."
)
@click.option("-l", "--labels", default="", metavar="KEY=VALUE,...", help="Labels of the Service.")
@_common
def expose(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """Create a Service for the pods of an object.

    The object is a workload, a pod or another Service, which names the pods' labels and ports.
    """
    found = wanted(what)
    if len(found) != 1 or len(found[0].names) != 1:
        raise CliError("error: name one object: TYPE NAME or TYPE/NAME", code=2)
    kind, (name,) = found[0].type, found[0].names
    if kind not in (PODS, *WORKLOADS) and kind is not resource_type("services"):
        raise CliError(f"error: cannot expose a {kind.qualified}", code=2)
    server, namespace = client(ctx), options["namespace"]
    doc = server.get(path_of(kind, namespace or "default", name))
    pairs = {key: pairs_of(options[key], key.removesuffix("s")) for key in ("selector", "labels")}
    document = documents.exposed(doc, namespace, options | pairs)
    _write(server, document, options)
