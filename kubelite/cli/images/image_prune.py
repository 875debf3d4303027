"""`kubelite image prune`: remove images that no container uses."""

from __future__ import annotations

import sys

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.images.images import size
from kubelite.cli.images.rmi import print_removed
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.waiting import waiting

_IMAGES = "/kubelite/v1/images"


@click.command(
    cls=Command,
    examples="""
    # Remove images without a name
    kubelite image prune

    # Remove the build cache as well
    kubelite image prune --all --build-cache

    # Remove all images that no pod has used for a day, without a question
    kubelite image prune --all --older 24h --force
    """,
)
@click.option("-a", "--all", "every", is_flag=True, help="Remove all images that no pod uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--build-cache",
    "cache",
    is_flag=True,
    help="Also remove build results that no image has; with --all, all results and the cache mounts.",
)
@click.option("--older", metavar="DURATION", help="With --all: only images not used for this long, like 24h.")
@socket_option
@click.pass_context
def prune(ctx: click.Context, every: bool, force: bool, cache: bool, older: str | None) -> None:
    """Remove unused images.

    Without --all, only images that have no name and that no container uses are removed. The build cache stays, unless
    --build-cache is given; kubelite df shows its size.
    """
    if older is not None and not every:
        raise click.UsageError("--older needs --all")
    seconds = _seconds(older) if older else 0.0
    if not force:
        what = "all images that no pod uses" if every else "all nameless images that no container uses"
        if cache:
            what += (
                ", and the build cache" if every else ", and the part of the build cache that no image has"
            )
        print(f"WARNING! This will remove {what}.", file=sys.stderr)
        if not sys.stdin.isatty():
            raise CliError("error: not a terminal: use --force")
        if not click.confirm("Are you sure you want to continue?", err=True):
            return
    with waiting("removing unused images"):
        answer = client(ctx).post(
            f"{_IMAGES}/prune", {"all": every, "olderSeconds": seconds, "buildCache": cache}
        )
    print_removed(answer)
    print(f"Total reclaimed space: {size(answer['freed'])}")


def _seconds(text: str) -> float:
    from kubelite.kube.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.UsageError(f"--older: {error}") from error
