"""`kubelite rmi`: remove images."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_images, socket_option

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_IMAGES = "/kubelite/v1/images"


@click.command(
    cls=Command,
    examples="""
    # Remove an image
    kubelite rmi app:1

    # Remove all names of an image
    kubelite rmi --force 3a5b7c9d1e2f
    """,
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_images)
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Untag images in use; with an ID, remove every tag.",
)
@socket_option
@click.pass_context
def rmi(ctx: click.Context, images: tuple[str, ...], force: bool) -> None:
    """Remove images.

    Images that containers use are not removed. If an image has several names, only the given name is removed.
    """
    server, query = client(ctx), {"force": "true"} if force else None
    fine = True
    for reference in images:  # a failure does not stop the others, as in docker
        try:
            print_removed(server.json("DELETE", f"{_IMAGES}/{reference}", query=query))
        except ServerError as error:
            tell_error(error)
            fine = fine and force and error.reason == "ImageNotFound"
    if not fine:
        raise Exit(1)


def tell_error(error: CliError) -> None:
    sys.stdout.flush()
    print(error, file=sys.stderr)


def print_removed(answer: Json) -> None:
    for word, key in (("Untagged", "untagged"), ("Deleted", "deleted")):
        for name in answer[key]:
            print(f"{word}: {name}")
