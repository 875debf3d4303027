"""`kubelite attach`: follow a running container's output, and feed its stdin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.containers.attachment import attach_to
from kubelite.cli.containers.logs import default_container
from kubelite.cli.names import PODS, path_of, pod_name
from kubelite.cli.options import client, complete_pods, container_option, namespace_option, socket_option

if TYPE_CHECKING:
    pass


@click.command("attach")
@namespace_option
@container_option
@click.option("-i", "--stdin", is_flag=True, help="Pass our stdin to the container.")
@click.option("-t", "--tty", is_flag=True, help="Our terminal is the container's (if it has one).")
@click.option("-q", "--quiet", is_flag=True, help="Only what the container says.")
@socket_option
@click.argument("pod", shell_complete=complete_pods)
@click.pass_context
def attach(ctx: click.Context, /, pod: str, **options: Any) -> int:
    """Follow what a running container says, from now on; with -i, say something to it.

    Its manifest must ask for `stdin: true` for -i, and for `tty: true` for a terminal.
    """
    server, namespace, name = client(ctx), options["namespace"] or "default", pod_name(pod)
    path = path_of(PODS, namespace, name)
    document = server.get(path)
    container = options["container"] or default_container(document, quiet=options["quiet"])
    return attach_to(server, path, document, container, stdin=options["stdin"], quiet=options["quiet"])
