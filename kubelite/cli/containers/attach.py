"""`kubelite attach`: follow the output of a running container and send it input."""

from __future__ import annotations

from typing import Any

import click

from kubelite.cli.containers.attachment import attach_to
from kubelite.cli.containers.chosen_pod import pod_of, running_timeout_option
from kubelite.cli.containers.logs import default_container
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, path_of
from kubelite.cli.options import (
    client,
    complete_pods_and_workloads,
    container_option,
    namespace_option,
    socket_option,
)


@click.command(
    "attach",
    cls=Command,
    examples="""
    # Show the output of a container from now on
    kubelite attach web

    # Show the output of a pod of a deployment
    kubelite attach deployment/web

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
@running_timeout_option("1m")
@socket_option
@click.argument("pod", metavar="POD | TYPE/NAME", shell_complete=complete_pods_and_workloads)
@click.pass_context
def attach(ctx: click.Context, /, pod: str, **options: Any) -> int:
    """Attach to a running container.

    Shows the output of the container from now on. -i requires `stdin: true` and -t requires `tty: true` in the
    manifest. Of a workload, TYPE/NAME, one pod is chosen as kubectl chooses it.
    """
    server, namespace = client(ctx), options["namespace"] or "default"
    document = pod_of(server, namespace, pod, options["pod_running_timeout"])
    path = path_of(PODS, namespace, document["metadata"]["name"])
    container = options["container"] or default_container(document, quiet=options["quiet"])
    return attach_to(server, path, document, container, stdin=options["stdin"], quiet=options["quiet"])
