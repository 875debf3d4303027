"""`kubelite push`: push an image to a registry."""

from __future__ import annotations

from typing import Any

import click

from kubelite.cli.groups import Command
from kubelite.cli.images.image_events import encode, show
from kubelite.cli.options import client, complete_images, socket_option
from kubelite.cli.transport.client import JSON_BODY

_IMAGES = "/kubelite/v1/images"


@click.command(
    cls=Command,
    examples="""
    # Push an image to the registry in its name
    kubelite push quay.io/org/app:1.2

    # Push an image under another name
    kubelite push app:1 quay.io/org/app:1.2
    """,
)
@click.argument("image", shell_complete=complete_images)
@click.argument("destination", required=False, default="")
@click.option(
    "--compression-format",
    "form",
    type=click.Choice(["gzip", "zstd", "none"]),
    default="gzip",
    show_default=True,
    help="Compression of layers that are not compressed on this node.",
)
@click.option(
    "--compression-level",
    "level",
    type=int,
    default=0,
    metavar="N",
    help="Compression level. [default: that of the format]",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not print progress.")
@click.option(
    "-o", "--output", type=click.Choice(["json"]), metavar="json", help="Print progress as JSON lines."
)
@socket_option
@click.pass_context
def push(ctx: click.Context, /, **given: Any) -> None:
    """Push an image to a registry.

    The registry is the one in the name of IMAGE, or in DESTINATION.
    """
    server, quiet, output = client(ctx), given["quiet"], given["output"]
    how = {"compressionFormat": given["form"], "compressionLevel": given["level"]}
    body = encode({"reference": given["image"], "target": given["destination"], **how})
    response = server.open("POST", f"{_IMAGES}/push", body=body, headers=JSON_BODY)
    (sent,) = show(server.lines(response), quiet=quiet, output=output, doing=f"pushing {given['image']}")
    if output is None:
        print(f"{sent['reference']}: digest: {sent['digest']} size: {sent['size']}")
