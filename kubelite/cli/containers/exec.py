"""`kubelite exec`: run a command in a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.containers.chosen_pod import pod_of, running_timeout_option
from kubelite.cli.containers.logs import default_container
from kubelite.cli.containers.session import (
    exit_code,
    is_terminal,
    run_session,
    terminal_size,
)
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, path_of
from kubelite.cli.options import (
    client,
    complete_pods_and_workloads,
    container_option,
    namespace_option,
    socket_option,
)

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    "exec",
    cls=Command,
    examples="""
    # List a directory in the first container of a pod
    kubelite exec web -- ls /

    # Open a shell in a certain container
    kubelite exec -it web -c app -- sh

    # Run a command in a pod of a deployment
    kubelite exec deployment/web -- date

    # Pipe data to a command
    tar c . | kubelite exec -i web -- tar x -C /data
    """,
)
@namespace_option
@container_option
@click.option("-i", "--stdin", is_flag=True, help="Pass standard input to the command.")
@click.option("-t", "--tty", is_flag=True, help="Connect this terminal to the command.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the output of the command.")
@running_timeout_option("1m")
@click.option("--user-agent", default="", hidden=True)  # that of `kubelite cp`, which runs this command
@socket_option
@click.argument("pod", metavar="POD | TYPE/NAME", shell_complete=complete_pods_and_workloads)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARG...]")
@click.pass_context
def execute(ctx: click.Context, /, pod: str, command: tuple[str, ...], **options: Any) -> int:
    """Run a command in a container.

    The exit code is that of the command. Of a workload, TYPE/NAME, one pod is chosen as kubectl chooses it.
    """
    container, namespace = options["container"], options["namespace"] or "default"
    server = client(ctx)
    document = pod_of(server, namespace, pod, options["pod_running_timeout"])
    path = path_of(PODS, namespace, document["metadata"]["name"])
    phase = document.get("status", {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        raise CliError(f"error: cannot exec into a container in a completed pod; current phase is {phase}")
    container = container or default_container(document, quiet=options["quiet"])
    tty = options["tty"] and is_terminal(options["stdin"])
    query: Json = {"command": list(command), "container": container, "stdout": "true"}
    query |= {"stdin": "true"} if options["stdin"] else {}
    if tty:
        width, height = terminal_size()
        query |= {"tty": "true", "width": width, "height": height}
    else:
        query["stderr"] = "true"
    status = run_session(
        server.path,
        f"{path}/exec",
        query,
        stdin=options["stdin"],
        tty=tty,
        user_agent=options["user_agent"],
    )
    return exit_code(status, quiet=options["quiet"])
