"""`kubelite image inspect` and `image history`: show an image's config and layers."""

from __future__ import annotations

import time

import click

from kubelite.cli.errors import Exit, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.images.images import size
from kubelite.cli.images.rmi import tell_error
from kubelite.cli.options import client, complete_images, socket_option
from kubelite.cli.output.formats import document_options, print_documents
from kubelite.cli.output.tables import TablePrinter, print_json

_IMAGES = "/kubelite/v1/images"
_json_option = click.option(
    "-o", "--output", type=click.Choice(["json"]), metavar="json", help="Output format."
)


@click.command(
    cls=Command,
    examples="""
    # Print all information about an image
    kubelite image inspect app:1

    # Print the command of an image
    kubelite image inspect app:1 --format '{{.Config.Cmd}}'
    """,
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_images)
@document_options
@socket_option
@click.pass_context
def inspect(ctx: click.Context, images: tuple[str, ...], output: str, form: str) -> None:
    """Print all information about images.

    The output is like that of `docker image inspect`.
    """
    server, found, fine = client(ctx), [], True
    for image in images:
        try:
            found.append(server.get(f"{_IMAGES}/inspect/{image}"))
        except ServerError as error:
            tell_error(error)
            fine = False
    print_documents(found, output, form, many=True)
    if not fine:
        raise Exit(1)


@click.command(
    cls=Command,
    examples="""
    # Show the steps that made an image
    kubelite image history app:1
    """,
)
@click.argument("image", shell_complete=complete_images)
@click.option("--no-trunc", is_flag=True, help="Do not shorten commands.")
@_json_option
@socket_option
@click.pass_context
def history(ctx: click.Context, image: str, no_trunc: bool, output: str | None) -> None:
    """Show the build steps of an image.

    The newest step comes first. Sizes are those of the stored layers.
    """
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
