"""`kubelite tag`: give an image one more name."""

from __future__ import annotations

import click

from kubelite.cli.options import client, socket_option

_IMAGES = "/kubelite/v1/images"


@click.command()
@click.argument("image")
@click.argument("name")
@socket_option
@click.pass_context
def tag(ctx: click.Context, image: str, name: str) -> None:
    """Give IMAGE (a name or an id) the further name NAME."""
    client(ctx).post(f"{_IMAGES}/tag", {"reference": image, "target": name})
