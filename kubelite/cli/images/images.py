"""`kubelite images`: list the images on this node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from kubelite.cli.groups import Command
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.tables import TablePrinter, print_json

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_json_option = click.option(
    "-o", "--output", type=click.Choice(["json"]), metavar="json", help="Progress and result as JSON lines."
)


@click.command(
    cls=Command,
    examples="""
    # List the images on this node
    kubelite images

    # Print the IDs only
    kubelite images -q
    """,
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["json", "wide", "name"]),
    metavar="wide|json|name",
    help="Output format.",
)
@click.option(
    "-a",
    "--all",
    "_every",
    is_flag=True,
    help="No effect, since no image is hidden. For docker's users.",
)
@click.option("--digests", is_flag=True, help="Show the digests of the image manifests.")
@click.option("-q", "--quiet", is_flag=True, help="Only print the IDs.")
@click.option("--no-headers", is_flag=True, help="Do not print the header row.")
@socket_option
@click.pass_context
def images(
    ctx: click.Context, output: str | None, quiet: bool, no_headers: bool, digests: bool, _every: bool
) -> None:
    """List the images on this node.

    The size is that of the image as stored: its layers as they were pulled, mostly compressed, or as they were built.
    kubelite df counts the unpacked layers as well, and layers that images share only once.
    """
    from kubelite.kube.durations import age_of

    found = client(ctx).get("/kubelite/v1/images")["images"]
    if output == "json":
        print_json(found)
        return
    if quiet or output == "name":
        for image in found:
            print(image["id"] if quiet else image.get("reference") or image["id"])
        return
    now, rows = time.time(), []
    for image in found:
        repository, tag = _repository_and_tag(image.get("shortName", image.get("reference")) or "")
        identity = image["id"] if output == "wide" else image["id"].partition(":")[2][:12]
        created = (
            "<unknown>"
            if str(image.get("created")).startswith("1970-")
            else age_of(image.get("created"), now)
        )
        age = created if created == "<unknown>" else f"{created} ago"
        row = [repository, tag, identity, age, size(image.get("size", 0))]
        if digests:
            row.insert(2, _digest(image) or "<none>")
        rows.append(row)
    columns = ["Repository", "Tag", "Image ID", "Created", "Size"]
    if digests:
        columns.insert(2, "Digest")
    TablePrinter(headers=not no_headers).print(columns, rows)


def _digest(image: Json) -> str:
    """Return the digest in the image's registry, or that of the local manifest."""
    known = image.get("repoDigests") or []
    return known[0].partition("@")[2] if known else str(image.get("digest") or "")


def _repository_and_tag(reference: str) -> tuple[str, str]:
    """Split nginx:1 into (nginx, 1). A name with a digest and no tag has its digest as tag."""
    if not reference:
        return "<none>", "<none>"
    name, at, digest = reference.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, ""
    return repository, tag or (digest if at else "<none>")


def size(count: float) -> str:
    """Format bytes as docker does: powers of 1000, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}TB"
