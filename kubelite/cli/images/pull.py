"""`kubelite pull`: pull an image from its registry."""

from __future__ import annotations

import click

from kubelite.cli.groups import Command
from kubelite.cli.images.image_events import encode, finish, show
from kubelite.cli.options import client, complete_images, socket_option
from kubelite.cli.transport.client import JSON_BODY

_json_option = click.option(
    "-o", "--output", type=click.Choice(["json"]), metavar="json", help="Progress and result as JSON lines."
)


@click.command(
    cls=Command,
    examples="""
    # Pull an image from Docker Hub
    kubelite pull nginx

    # Pull an image from another registry
    kubelite pull quay.io/org/app:1.2
    """,
)
@click.argument("reference", shell_complete=complete_images)
@click.option("-q", "--quiet", is_flag=True, help="Do not print progress.")
@_json_option
@socket_option
@click.pass_context
def pull(ctx: click.Context, reference: str, quiet: bool, output: str | None) -> None:
    """Pull an image from a registry.

    REFERENCE is a name with a tag or digest. Names without a registry are those of Docker Hub.
    """
    server = client(ctx)
    response = server.open(
        "POST", "/kubelite/v1/images/pull", body=encode({"reference": reference}), headers=JSON_BODY
    )
    found = show(
        server.lines(response), quiet=quiet, output=output, doing=f"asking the registry for {reference}"
    )
    if output is None:
        finish(found, "Pulled")
