"""`kubelite attach`: follow the output of a running container and send it input."""

from __future__ import annotations

from typing import Any

import click

from kubelite.cli.containers.attachment import attach_to
from kubelite.cli.containers.logs import default_container
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, path_of, pod_name
from kubelite.cli.options import client, complete_pods, container_option, namespace_option, socket_option


@click.command(
    "attach",
    cls=Command,
    examples="""
    # Show the output of a container from now on
    kubelite attach web

    # Connect this terminal to a container with `stdin: true` and `tty: true`
    kubelite attach -it shell -c main
    """,
)
@namespace_option
@container_option
@click.option("-i", "--stdin", is_flag=True, help="Pass standard input to the container.")
@click.option(
    "-t", "--tty", is_flag=True, help="Connect this terminal to that of the container, if it has one."
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the output of the container.")
@socket_option
@click.argument("pod", shell_complete=complete_pods)
@click.pass_context
def attach(ctx: click.Context, /, pod: str, **options: Any) -> int:
    """Attach to a running container.

    Shows the output of the container from now on. -i requires `stdin: true` and -t requires `tty: true` in the
    manifest.
    """
    server, namespace, name = client(ctx), options["namespace"] or "default", pod_name(pod)
    path = path_of(PODS, namespace, name)
    document = server.get(path)
    container = options["container"] or default_container(document, quiet=options["quiet"])
    return attach_to(server, path, document, container, stdin=options["stdin"], quiet=options["quiet"])
