"""`kubelite tag`: add a name to an image."""

from __future__ import annotations

import click

from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_images, socket_option

_IMAGES = "/kubelite/v1/images"


@click.command(
    cls=Command,
    examples="""
    # Give an image a second name
    kubelite tag app:1 quay.io/org/app:1.2
    """,
)
@click.argument("image", shell_complete=complete_images)
@click.argument("name")
@socket_option
@click.pass_context
def tag(ctx: click.Context, image: str, name: str) -> None:
    """Add a name to an image.

    IMAGE is a name or an ID.
    """
    client(ctx).post(f"{_IMAGES}/tag", {"reference": image, "target": name})
