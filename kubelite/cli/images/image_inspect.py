"""`kubelite image inspect` and `image history`: an image's config and layers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import Exit, ServerError
from kubelite.cli.images.images import size
from kubelite.cli.images.rmi import tell_error
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.tables import TablePrinter, print_json

if TYPE_CHECKING:
    pass

_IMAGES = "/kubelite/v1/images"
_json_option = click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@socket_option
@click.pass_context
def inspect(ctx: click.Context, images: tuple[str, ...]) -> None:
    """Show all that is known of images, as docker does, as JSON."""
    server, found, fine = client(ctx), [], True
    for image in images:
        try:
            found.append(server.get(f"{_IMAGES}/inspect/{image}"))
        except ServerError as error:
            tell_error(error)
            fine = False
    print_json(found)
    if not fine:
        raise Exit(1)


@click.command()
@click.argument("image")
@click.option("--no-trunc", is_flag=True, help="Show the commands whole.")
@_json_option
@socket_option
@click.pass_context
def history(ctx: click.Context, image: str, no_trunc: bool, output: str | None) -> None:
    """Show how an image was made, the newest step first. Sizes are those of the layers as they are stored."""
    from kubelite.kube.durations import age_of

    steps = client(ctx).get(f"{_IMAGES}/history/{image}")["history"]
    if output == "json":
        print_json(steps)
        return
    now = time.time()
    rows = []
    for step in steps:
        words = " ".join(step["createdBy"].split())
        if not no_trunc and len(words) > 60:
            words = words[:59] + "…"
        age = age_of(step["created"], now)
        rows.append(
            [
                age if age == "<unknown>" else f"{age} ago",
                words or "<unknown>",
                size(step["size"]),
                step["comment"],
            ]
        )
    TablePrinter().print(("Created", "Created By", "Size", "Comment"), rows)
