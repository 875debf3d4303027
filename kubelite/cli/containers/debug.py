"""`kubelite debug`: add an ephemeral container to a running pod, and attach to it."""

from __future__ import annotations

import json
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.containers.attachment import attach_to
from kubelite.cli.containers.pod_parts import state_of
from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, path_of, pod_name
from kubelite.cli.options import client, complete_pods, namespace_option, socket_option
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

PATCH = {"Content-Type": "application/strategic-merge-patch+json"}
LOOK_SECONDS = 0.1
SETTLED = 10.0  # seconds for the pod's status to catch up with the shim


@click.command(
    "debug",
    cls=Command,
    examples="""
    # Add a container to a pod, and open its shell
    kubelite debug -it web --image=busybox

    # See the processes of another container
    kubelite debug -it web --image=busybox --target=app -- sh
    """,
)
@namespace_option
@click.option("--image", required=True, metavar="IMAGE", help="Image of the container.")
@click.option(
    "-c", "--container", default="", metavar="NAME", help="Name of the container. [default: debugger-xxxxx]"
)
@click.option("--target", default="", metavar="NAME", help="Container whose processes are visible.")
@click.option("-i", "--stdin", is_flag=True, help="Keep standard input open, and attach to the container.")
@click.option("-t", "--tty", is_flag=True, help="Connect this terminal to the container.")
@click.option("--attach/--no-attach", default=None, help="Attach to the container. [default: with -i]")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Set an environment variable.")
@click.option("--image-pull-policy", default="", metavar="POLICY", help="Always, IfNotPresent or Never.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the output of the container.")
@socket_option
@click.argument("pod", shell_complete=complete_pods)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG...]]")
@click.pass_context
def debug(ctx: click.Context, /, pod: str, command: tuple[str, ...], **options: Any) -> int:
    """Add a debugging container to a running pod.

    The container remains until the pod ends.
    """
    server, namespace, name = client(ctx), options["namespace"] or "default", pod_name(pod)
    path = path_of(PODS, namespace, name)
    made = options["container"] or f"debugger-{secrets.token_hex(3)[:5]}"
    if options["target"] and not options["quiet"]:
        click.echo(f'Targeting container "{options["target"]}".', err=True)
    if not options["container"] and not options["quiet"]:
        click.echo(f"Defaulting debug container name to {made}.", err=True)
    patch = {"spec": {"ephemeralContainers": [_container(made, command, options)]}}
    server.json("PATCH", f"{path}/ephemeralcontainers", body=json.dumps(patch).encode(), headers=PATCH)
    wanted = options["stdin"] if options["attach"] is None else options["attach"]
    if not wanted:
        return 0
    document = _until_started(server, path, made)
    if "running" in state_of(document, made):
        if not options["quiet"] and options["tty"]:
            click.echo("If you don't see a command prompt, try pressing enter.", err=True)
        try:
            return attach_to(
                server,
                path,
                document,
                made,
                stdin=options["stdin"],
                quiet=options["quiet"],
                silent=lambda: _show_log(server, path, made),  # it may have ended before we attached
            )
        except ServerError:
            if (ended := _once_ended(server, path, made)) is None:
                raise
            document = ended
    return _was_faster(server, path, document, made, quiet=options["quiet"])


def _container(name: str, command: tuple[str, ...], options: Json) -> Json:
    env = [dict(zip(("name", "value"), pair.partition("=")[::2], strict=True)) for pair in options["env"]]
    wanted = {
        "name": name,
        "image": options["image"],
        "command": list(command),
        "env": env,
        "imagePullPolicy": options["image_pull_policy"],
        "stdin": options["stdin"],
        "tty": options["tty"],
        "targetContainerName": options["target"],
    }
    return {key: value for key, value in wanted.items() if value}


def _once_ended(server: Client, path: str, name: str) -> Json | None:
    """Wait until the pod's status says that the container has terminated, and return the pod; None if it does not in
    time. A container that refuses an attachment ends shortly before its status says so."""
    until = time.monotonic() + SETTLED
    while time.monotonic() < until:
        document: Json = server.get(path)
        if "terminated" in state_of(document, name):
            return document
        time.sleep(LOOK_SECONDS)
    return None


def _was_faster(server: Client, path: str, document: Json, name: str, *, quiet: bool) -> int:
    """The container ended before we attached: print its log, as `kubectl debug` does, and return its exit code."""
    _show_log(server, path, name)
    code = int(state_of(document, name)["terminated"].get("exitCode", 1))
    if code and not quiet:
        click.echo(f"command terminated with exit code {code}", err=True)
    return code


def _advice(server: Client, path: str, name: str) -> list[str]:
    """Return the node's advice about this container."""
    where = path.removeprefix("/api/v1/namespaces/").replace("/pods/", "/")
    try:
        found = server.get(f"/kubelite/v1/why/{where}").get("advice") or ()
    except ServerError:  # no decision yet
        return []
    return [one.removeprefix(f"{name}: ") for one in found if one.startswith(f"{name}: ")]


def _until_started(server: Client, path: str, name: str) -> Json:
    """Wait until the container runs or has ended, and return the pod. Raises CliError for permanent problems."""
    said = ""
    while True:
        document: Json = server.get(path)
        state = state_of(document, name)
        if "running" in state or "terminated" in state:
            return document
        if (document.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            raise CliError(f"error: the pod has ended; container {name} did not start")
        waiting = state.get("waiting") or {}
        words = ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
        if waiting.get("reason") in ("InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull"):
            raise CliError(f"error: container {name} cannot be started: {words}")
        if words and words != said and waiting.get("message"):
            click.echo(f"container {name} is waiting: {words}", err=True)
            for sentence in () if said else _advice(server, path, name):
                click.echo(f"  {sentence}", err=True)
            said = words
        time.sleep(LOOK_SECONDS)


def _show_log(server: Client, path: str, name: str) -> None:
    for chunk in server.chunks(server.open("GET", f"{path}/log", query={"container": name})):
        sys.stdout.buffer.write(chunk)
    sys.stdout.flush()
