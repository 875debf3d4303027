"""`kubelite load`: read images from an archive or an OCI layout."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.images.image_events import encode, finish, show
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.waiting import waiting
from kubelite.cli.transport.client import JSON_BODY

_json_option = click.option(
    "-o", "--output", type=click.Choice(["json"]), metavar="json", help="Progress and result as JSON lines."
)


@click.command(
    cls=Command,
    examples="""
    # Load the images of an archive
    kubelite load images.tar.gz

    # Load an image that docker saves
    docker save app:1 | kubelite load -
    """,
)
@click.argument("file", metavar="FILE|DIR|-", required=False, type=click.Path())
@click.option(
    "-i", "--input", "given", metavar="FILE", type=click.Path(), help="Archive to load, as with docker."
)
@click.option("-q", "--quiet", is_flag=True, help="Do not print progress.")
@_json_option
@socket_option
@click.pass_context
def load(ctx: click.Context, file: str | None, given: str | None, quiet: bool, output: str | None) -> None:
    """Load images from an archive or an OCI layout.

    Archives are those of docker save, podman save and skopeo, or OCI archives; they may be compressed. An OCI
    layout is a directory. - reads an archive from standard input.
    """
    if bool(file) == bool(given):
        raise CliError(
            "error: load needs one archive: a file, an OCI layout's directory, or - for stdin", code=2
        )
    server, file = client(ctx), str(file or given)
    if file == "-":
        headers = {"Content-Type": "application/x-tar"}
        shown = contextlib.nullcontext() if quiet else waiting("reading the archive from standard input")
        with shown:
            response = server.open("POST", "/kubelite/v1/images/load", body=sys.stdin.buffer, headers=headers)
    else:
        if not os.path.exists(file):
            raise CliError(f"error: file {file} does not exist")
        body = encode({"path": os.path.abspath(file)})
        response = server.open("POST", "/kubelite/v1/images/load", body=body, headers=JSON_BODY)
    found = show(server.lines(response), quiet=quiet, output=output, doing=f"reading {file}")
    if output is None:
        finish(found, "Loaded")
