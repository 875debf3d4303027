"""`kubelite inspect`: everything that is known of a container, a pod or an image, as JSON."""

from __future__ import annotations

import click

from kubelite.cli.options import client, complete_pods, namespace_option, socket_option
from kubelite.cli.output.tables import print_json


@click.command()
@click.argument("ref", metavar="CONTAINER-ID|POD|IMAGE", shell_complete=complete_pods)
@namespace_option
@socket_option
@click.pass_context
def inspect(ctx: click.Context, ref: str, namespace: str | None) -> None:
    """Show all that is known of a container, a pod or an image, as JSON."""
    name = ref.partition("/")[2] if ref.startswith(("pod/", "po/", "pods/")) else ref
    print_json(client(ctx).get(f"/kubelite/v1/inspect/{f'{namespace}/{name}' if namespace else name}"))
