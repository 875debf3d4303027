"""`kubelite create deployment|job|cronjob|poddisruptionbudget`: write a manifest, with kubectl's flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kubelite.cli.create import workload_documents as documents
from kubelite.cli.create.writing import dry_run_option, mark, output_option, write
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_images, namespace_option, socket_option

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json

F = TypeVar("F", bound=Callable[..., Any])
_name = click.argument("name")
_words = click.argument("command_words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG...]]")


def _image_option(*, multiple: bool = False, required: bool = True) -> Callable[[F], F]:
    words = "Image; several images make several containers." if multiple else "Image of the container."
    return click.option(
        "--image",
        multiple=multiple,
        required=required,
        metavar="IMAGE",
        shell_complete=complete_images,
        help=words,
    )


@click.command(
    "deployment",
    cls=Command,
    examples="""
    # Create a deployment of three pods
    kubelite create deployment web --image=nginx --port=80 --replicas=3

    # Print the manifest instead
    kubelite create deployment web --image=nginx --dry-run=client -o yaml >web.yaml
    """,
)
@_name
@_words
@_image_option(multiple=True)
@click.option(
    "-r", "--replicas", type=click.IntRange(min=0), default=1, show_default=True, metavar="N", help="Pods."
)
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="Port that the container serves.")
@namespace_option
@dry_run_option
@output_option
@socket_option
@click.pass_context
def deployment(ctx: click.Context, /, name: str, command_words: tuple[str, ...], **options: Any) -> None:
    """Create a deployment.

    Its pods have the label app=NAME. COMMAND replaces the image's entrypoint.
    """
    if command_words and len(options["image"]) > 1:
        raise CliError("error: cannot specify multiple --image options and command", code=2)
    document = documents.deployment(name, options["namespace"], options["image"], command_words, options)
    _write(client(ctx), document, options)


@click.command(
    "job",
    cls=Command,
    examples="""
    # Run a command once
    kubelite create job backup --image=busybox -- sh -c 'date; sleep 5'

    # Run a cron job now
    kubelite create job backup-now --from=cronjob/backup
    """,
)
@_name
@_words
@_image_option(required=False)
@click.option("--from", "origin", default="", metavar="cronjob/NAME", help="Take the template of a cron job.")
@namespace_option
@dry_run_option
@output_option
@socket_option
@click.pass_context
def job(ctx: click.Context, /, name: str, command_words: tuple[str, ...], **options: Any) -> None:
    """Create a job.

    COMMAND replaces the image's entrypoint. A job with --from has its own manifest: it stays when the cron job is
    deleted, and does not count in its history.
    """
    if bool(options["image"]) == bool(options["origin"]):
        raise CliError("error: either --image or --from must be specified", code=2)
    if options["origin"] and command_words:
        raise CliError("error: cannot specify --from and command", code=2)
    server = client(ctx)
    if options["origin"]:
        document = documents.job_of(name, options["namespace"], _cron_job(server, options))
    else:
        document = documents.job(name, options["namespace"], options["image"], command_words)
    _write(server, document, options)


def _write(server: Client, document: Json, options: dict[str, Any]) -> None:
    if options["dry_run"] == "none":
        mark(document, "create")
    write(server, document, dry_run=options["dry_run"], output=options["output"])


def _cron_job(server: Client, options: dict[str, Any]) -> Json:
    from kubelite.cli.names import path_of, resource_type

    word, slash, name = options["origin"].partition("/")
    if not slash or (kind := resource_type(word)).kind != "CronJob":
        raise CliError(
            f'error: from must be an existing cronjob: cronjob/NAME, not "{options["origin"]}"', code=2
        )
    found: Json = server.get(path_of(kind, options["namespace"] or "default", name))
    return found


@click.command(
    "cronjob",
    cls=Command,
    examples="""
    # Run a command each night at three
    kubelite create cronjob backup --image=busybox --schedule='0 3 * * *' -- sh -c date
    """,
)
@_name
@_words
@_image_option()
@click.option("--schedule", required=True, metavar="CRON", help="Schedule in the format of cron.")
@click.option(
    "--restart",
    type=click.Choice(["OnFailure", "Never"]),
    default="OnFailure",
    show_default=True,
    metavar="OnFailure|Never",
    help="Restart policy of the pods.",
)
@namespace_option
@dry_run_option
@output_option
@socket_option
@click.pass_context
def cronjob(ctx: click.Context, /, name: str, command_words: tuple[str, ...], **options: Any) -> None:
    """Create a cron job.

    COMMAND replaces the image's entrypoint.
    """
    document = documents.cron_job(name, options["namespace"], options["image"], command_words, options)
    _write(client(ctx), document, options)


@click.command(
    "poddisruptionbudget",
    cls=Command,
    examples="""
    # Require one pod with the label app=rails at any time
    kubelite create poddisruptionbudget rails --selector=app=rails --min-available=1

    # Let half of the pods be evicted at a time
    kubelite create pdb nginx --selector=app=nginx --max-unavailable=50%
    """,
)
@_name
@click.option("--selector", required=True, metavar="SELECTOR", help="Label selector of the pods.")
@click.option("--min-available", default="", metavar="N|N%", help="Pods that must stay available.")
@click.option("--max-unavailable", default="", metavar="N|N%", help="Pods that may be unavailable.")
@namespace_option
@dry_run_option
@output_option
@socket_option
@click.pass_context
def poddisruptionbudget(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a pod disruption budget.

    `kubelite drain` and the eviction API evict its pods only as far as it allows.
    """
    _write(client(ctx), documents.budget(name, options["namespace"], options), options)
