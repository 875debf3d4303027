"""`kubelite pull`: get an image from its registry."""

from __future__ import annotations

import click

from kubelite.cli.images.image_events import encode, finish, show
from kubelite.cli.options import client, socket_option
from kubelite.cli.transport.client import JSON_BODY

_json_option = click.option(
    "-o", "--output", type=click.Choice(["json"]), metavar="json", help="Progress and result as JSON lines."
)


@click.command()
@click.argument("reference")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@_json_option
@socket_option
@click.pass_context
def pull(ctx: click.Context, reference: str, quiet: bool, output: str | None) -> None:
    """Get an image from its registry: nginx, quay.io/org/app:1.2, name@sha256:…"""
    server = client(ctx)
    response = server.open(
        "POST", "/kubelite/v1/images/pull", body=encode({"reference": reference}), headers=JSON_BODY
    )
    found = show(server.lines(response), quiet=quiet, output=output)
    if output is None:
        finish(found, "Pulled")
