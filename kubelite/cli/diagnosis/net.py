"""`kubelite net`: a picture of the node's network: Services with their endpoints, pods, and NetworkPolicies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, path_of, resource_type
from kubelite.cli.options import client, complete_namespaces, socket_option
from kubelite.cli.output.foreign import harmless

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    cls=Command,
    examples="""
    # Show all Services, the pods that they lead to, and all pods
    kubelite net

    # Show those of a namespace
    kubelite net -n shop

    # Draw a picture
    kubelite net -o svg >net.svg
    """,
)
@click.option(
    "-n",
    "--namespace",
    metavar="NS",
    shell_complete=complete_namespaces,
    help="Show only this namespace. [default: all]",
)
@click.option(
    "-o", "--output", type=click.Choice(("text", "svg")), default="text", help="Format of the output."
)
@socket_option
@click.pass_context
def net(ctx: click.Context, namespace: str | None, output: str) -> None:
    """Show the network of the node: Services, pods, and NetworkPolicies.

    Below each port of a Service are its endpoints. New connections go to those that are ready, and not to those that
    are not ready or terminating. If no pod is ready, terminating pods get new connections.
    """
    from kubelite.services.drawing import as_svg, as_text
    from kubelite.services.picture import picture

    server = client(ctx)
    kinds = (
        resource_type("services"),
        resource_type("endpointslices"),
        PODS,
        resource_type("networkpolicies"),
    )
    services, slices, pods, policies = (server.get(path_of(kind, namespace))["items"] for kind in kinds)
    (node,) = server.get(path_of(resource_type("nodes"), None))["items"]
    found = picture(node, services, slices, pods, _restricted(policies, pods))
    click.echo(as_svg(found) if output == "svg" else harmless(as_text(found)))


def _restricted(policies: list[Json], pods: list[Json]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the policies of each pod that they restrict. Those of a pod are in its namespace."""
    if not policies:
        return {}
    from kubelite.network_policies.explanation import Cluster, restricted_pods

    return restricted_pods(Cluster(policies, pods, ()))
