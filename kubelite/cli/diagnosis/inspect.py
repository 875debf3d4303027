"""`kubelite inspect`: print all information about a container, a pod or an image as JSON."""

from __future__ import annotations

import click

from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_pods, namespace_option, socket_option
from kubelite.cli.output.tables import print_json


@click.command(
    cls=Command,
    examples="""
    # Print all information about a pod
    kubelite inspect web

    # Print all information about an image
    kubelite inspect docker.io/library/nginx:latest
    """,
)
@click.argument("ref", metavar="CONTAINER-ID|POD|IMAGE", shell_complete=complete_pods)
@namespace_option
@socket_option
@click.pass_context
def inspect(ctx: click.Context, ref: str, namespace: str | None) -> None:
    """Print all information about a container, pod or image as JSON."""
    name = ref.partition("/")[2] if ref.startswith(("pod/", "po/", "pods/")) else ref
    print_json(client(ctx).get(f"/kubelite/v1/inspect/{f'{namespace}/{name}' if namespace else name}"))
