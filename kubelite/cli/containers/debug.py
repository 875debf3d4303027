"""`kubelite debug`: add an ephemeral container to a running pod, and attach to it."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.containers.attachment import attach_when_started
from kubelite.cli.containers.chosen_pod import only_pod_name
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, path_of
from kubelite.cli.options import client, complete_images, complete_pods, namespace_option, socket_option

if TYPE_CHECKING:
    from kubelite.kube.json import Json

PATCH = {"Content-Type": "application/strategic-merge-patch+json"}


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
@click.option(
    "--image", required=True, metavar="IMAGE", shell_complete=complete_images, help="Image of the container."
)
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
    server, namespace = client(ctx), options["namespace"] or "default"
    name = only_pod_name(server, namespace, pod, "kubelite debug")
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
    return attach_when_started(server, path, made, options)


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
