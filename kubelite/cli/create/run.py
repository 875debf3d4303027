"""`kubelite run`: create a pod with one container from an image, as `kubectl run` does, and attach to it."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.create import documents
from kubelite.cli.create.writing import create, dry_run_option, mark, output_option, write, yaml_of
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, duration, path_of
from kubelite.cli.objects.manifest_files import YAML_BODY
from kubelite.cli.options import client, complete_images, namespace_option, socket_option
from kubelite.cli.signals import exit_on_signals
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    "run",
    cls=Command,
    examples="""
    # Start a pod named nginx
    kubelite run nginx --port=80

    # Open a shell in a new pod, and delete the pod afterwards
    kubelite run --rm -it busybox -- sh

    # Run a command once, with environment variables
    kubelite run busybox --name=job --restart=Never --env=A=1 --env=B=2 -- sh -c 'echo $A $B'

    # Print the manifest instead
    kubelite run nginx --port=80 --dry-run=client -o yaml >nginx.yaml

    # The form of kubectl, with the pod's name first
    kubelite run web --image=nginx
    """,
)
@click.argument("first", metavar="IMAGE", shell_complete=complete_images)
@click.argument("command_words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG...]]")
@click.option(
    "--image",
    default="",
    metavar="IMAGE",
    shell_complete=complete_images,
    help="Image; the first argument is then the pod's name.",
)
@click.option("--name", default="", metavar="NAME", help="Name of the pod. [default: that of the image]")
@namespace_option
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Set an environment variable.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="Port that the container serves.")
@click.option(
    "-l", "--labels", default="", metavar="KEY=VALUE,...", help="Labels of the pod. [default: run=NAME]"
)
@click.option("--annotations", multiple=True, metavar="KEY=VALUE", help="Add an annotation to the pod.")
@click.option(
    "--restart",
    type=click.Choice(["Always", "OnFailure", "Never"]),
    default=None,
    metavar="Always|OnFailure|Never",
    help="Restart policy. [default: Always; with --rm, Never]",
)
@click.option(
    "--image-pull-policy",
    type=click.Choice(["", "Always", "IfNotPresent", "Never"]),
    default="",
    metavar="Always|IfNotPresent|Never",
    help="When the image is pulled. [default: Always for the tag latest, otherwise IfNotPresent]",
)
@click.option(
    "--command", is_flag=True, help="COMMAND replaces the image's entrypoint, not only its arguments."
)
@click.option("--privileged", is_flag=True, help="Run the container in privileged mode.")
@click.option("-i", "--stdin", is_flag=True, help="Keep standard input open, and attach to the container.")
@click.option("-t", "--tty", is_flag=True, help="Give the container a terminal; needs -i.")
@click.option("--attach/--no-attach", default=None, help="Attach to the container. [default: with -i]")
@click.option(
    "--leave-stdin-open", is_flag=True, help="Keep the container's standard input open after the attachment."
)
@click.option("--rm", "remove", is_flag=True, help="Delete the pod when the attachment ends.")
@click.option(
    "--pod-running-timeout",
    default="5m",
    show_default=True,
    metavar="DURATION",
    help="Maximum time until the container of an attachment has started, its pull included.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the output of the container.")
@dry_run_option
@output_option
@socket_option
@click.pass_context
def run(ctx: click.Context, /, first: str, command_words: tuple[str, ...], **options: Any) -> int:
    """Create a pod from an image.

    The pod's manifest is written to the manifest directory; `kubelite delete pod NAME` or removing the file ends the
    pod.
    COMMAND is given to the image's entrypoint as its arguments. With --rm or -i the exit code is that of the
    container.
    """
    name, image = _names(first, options)
    attach = options["stdin"] if options["attach"] is None else options["attach"]
    _check(options, attach=attach)
    options["restart"] = options["restart"] or ("Never" if options["remove"] else "Always")
    document = documents.pod(name, image, command_words, options)
    if options["dry_run"] == "none":
        mark(document, "run")
    server = client(ctx)
    if not attach:
        write(server, document, dry_run=options["dry_run"], output=options["output"])
        return 0
    with contextlib.ExitStack() as undo:
        if options["remove"]:
            undo.enter_context(exit_on_signals())
        create(server, yaml_of(document).encode(), options["namespace"] or "", dry_run="none")
        if options["remove"]:
            undo.callback(_remove, server, document, quiet=options["quiet"])
        return _attached(server, options["namespace"] or "default", name, options)


def _names(first: str, options: Json) -> tuple[str, str]:
    """Return the names of pod and image. Raises CliError."""
    if options["image"]:
        if options["name"]:
            raise CliError(
                "error: name the pod once: `run NAME --image=IMAGE`, or `run IMAGE --name=NAME`", code=2
            )
        return first, options["image"]
    name = options["name"] or documents.name_of_image(first)
    if not name:
        raise CliError(f'error: "{first}" has no name for a pod: add --name', code=2)
    return name, first


def _check(options: Json, *, attach: bool) -> None:
    if options["tty"] and not options["stdin"]:
        raise CliError("error: -i/--stdin is required for containers with -t/--tty=true", code=2)
    if options["remove"] and not attach:
        raise CliError("error: --rm should only be used for attached containers: add -i, or --attach", code=2)
    if attach and options["dry_run"] != "none":
        raise CliError("error: --dry-run can't be used with -i, -t or --attach", code=2)
    duration(options["pod_running_timeout"])


def _attached(server: Client, namespace: str, name: str, options: Json) -> int:
    from kubelite.cli.containers.attachment import attach_when_started

    until = time.monotonic() + duration(options["pod_running_timeout"])
    _until_new(server, namespace, name, until)
    path = path_of(PODS, namespace, name)
    return attach_when_started(server, path, name, options, until=until)


def _until_new(server: Client, namespace: str, name: str, until: float) -> None:
    """Wait until an earlier pod of this name is gone and the new one exists. Raises CliError."""
    from kubelite.cli.objects.wait import states

    with contextlib.closing(states(server, PODS, namespace, name, until)) as every:
        for pod in every:
            if pod is not None and not pod["metadata"].get("deletionTimestamp"):
                return
    raise CliError(
        f"error: timed out waiting for pod {name}: an earlier pod of this name is still terminating"
    )


def _remove(server: Client, document: Json, *, quiet: bool) -> None:
    """Remove the pod's manifest. Print an error instead of raising it: the container's exit code counts."""
    name, namespace = document["metadata"]["name"], document["metadata"].get("namespace") or "default"
    try:
        server.json("POST", "/kubelite/v1/remove", body=yaml_of(document).encode(), headers=YAML_BODY)
    except CliError as error:
        print(f"pod {name} is not removed: {error}", file=sys.stderr)
        return
    if not quiet:
        print(f'pod "{name}" deleted from {namespace} namespace', file=sys.stderr)
