"""`kubelite push`: send an image to a registry."""

from __future__ import annotations

from typing import Any

import click

from kubelite.cli.images.image_events import encode, show
from kubelite.cli.options import client, socket_option
from kubelite.cli.transport.client import JSON_BODY

_IMAGES = "/kubelite/v1/images"


@click.command()
@click.argument("image")
@click.argument("destination", required=False, default="")
@click.option(
    "--compression-format",
    "form",
    type=click.Choice(["gzip", "zstd", "none"]),
    default="gzip",
    show_default=True,
    help="Of layers that are plain here; others go as they are.",
)
@click.option(
    "--compression-level", "level", type=int, default=0, metavar="N", help="[default: the format's]"
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json", help="Progress as JSON lines.")
@socket_option
@click.pass_context
def push(ctx: click.Context, /, **given: Any) -> None:
    """Send IMAGE to a registry: the one in its name, or in DESTINATION's."""
    server, quiet, output = client(ctx), given["quiet"], given["output"]
    how = {"compressionFormat": given["form"], "compressionLevel": given["level"]}
    body = encode({"reference": given["image"], "target": given["destination"], **how})
    response = server.open("POST", f"{_IMAGES}/push", body=body, headers=JSON_BODY)
    (sent,) = show(server.lines(response), quiet=quiet, output=output)
    if output is None:
        print(f"{sent['reference']}: digest: {sent['digest']} size: {sent['size']}")
