"""`kubelite images`: list the images on this node."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_images, socket_option
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

    # List the tags of a repository, and the images without a name
    kubelite images quay.io/org/app
    kubelite images --filter dangling=true
    """,
)
@click.argument("name", required=False, default="", metavar="[NAME[:TAG]]", shell_complete=complete_images)
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only images with reference=PATTERN, dangling=true|false, before=IMAGE or since=IMAGE.",
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
def images(ctx: click.Context, /, name: str, filters: tuple[str, ...], **options: Any) -> None:
    """List the images on this node.

    With NAME, only the images of this repository, or with this tag; NAME may have the wildcards * and ?. Several
    filters must all apply.

    The size is that of the image as stored: its layers as they were pulled, mostly compressed, or as they were built.
    kubelite df counts the unpacked layers as well, and layers that images share only once.
    """
    found = selected(client(ctx).get("/kubelite/v1/images")["images"], name, filters)
    _print(found, **options)


def _print(
    found: list[Json], *, output: str | None, quiet: bool, no_headers: bool, digests: bool, _every: bool
) -> None:
    if output == "json":
        print_json(found)
        return
    if quiet or output == "name":
        for image in found:
            print(image["id"] if quiet else image.get("reference") or image["id"])
        return
    now, rows = time.time(), []
    for image in found:
        repository, tag = repository_and_tag(image.get("shortName", image.get("reference")) or "")
        identity = image["id"] if output == "wide" else image["id"].partition(":")[2][:12]
        row = [repository, tag, identity, created_ago(image.get("created"), now), size(image.get("size", 0))]
        if digests:
            row.insert(2, _digest(image) or "<none>")
        rows.append(row)
    columns = ["Repository", "Tag", "Image ID", "Created", "Size"]
    if digests:
        columns.insert(2, "Digest")
    TablePrinter(headers=not no_headers).print(columns, rows)


def selected(images: list[Json], name: str, filters: Sequence[str]) -> list[Json]:
    """Return the images that a NAME and docker's filters select. Raises CliError for an unknown filter or image."""
    found = [image for image in images if not name or _matches(image, name)]
    for given in filters:
        key, _, value = given.partition("=")
        if key == "reference" and value:
            found = [image for image in found if _matches(image, value)]
        elif key == "dangling" and value in ("true", "false"):
            found = [image for image in found if bool(image.get("reference")) == (value == "false")]
        elif key in ("before", "since") and value:
            edge = next(
                (str(i.get("created")) for i in images if _matches(i, value) or _has_id(i, value)), None
            )
            if edge is None:
                raise CliError(f"error: no such image: {value}")
            older = key == "before"
            found = [
                i for i in found if (str(i.get("created")) < edge if older else str(i.get("created")) > edge)
            ]
        else:
            known = "reference=PATTERN, dangling=true|false, before=IMAGE, since=IMAGE"
            raise CliError(f'error: invalid filter "{given}"; the filters are {known}', code=2)
    return found


def _has_id(image: Json, text: str) -> bool:
    return len(text) >= 4 and str(image["id"]).removeprefix("sha256:").startswith(
        text.removeprefix("sha256:")
    )


def _matches(image: Json, pattern: str) -> bool:
    """Whether one of the image's names matches the pattern: the whole name if the pattern has a tag, else the
    repository."""
    from fnmatch import fnmatchcase

    names = {str(image.get(key) or "") for key in ("reference", "shortName")} - {""}
    short = {name.removeprefix("docker.io/library/").removeprefix("docker.io/") for name in names}
    tagged = ":" in pattern.rpartition("/")[2]
    return any(
        fnmatchcase(name if tagged else repository_and_tag(name)[0], pattern) for name in names | short
    )


def _digest(image: Json) -> str:
    """Return the image's digest in its registry, or the digest of the local manifest."""
    known = image.get("repoDigests") or []
    return known[0].partition("@")[2] if known else str(image.get("digest") or "")


def repository_and_tag(reference: str) -> tuple[str, str]:
    """Split nginx:1 into (nginx, 1). A name with a digest and no tag has its digest as tag."""
    if not reference:
        return "<none>", "<none>"
    name, at, digest = reference.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, ""
    return repository, tag or (digest if at else "<none>")


def created_ago(text: str | None, now: float) -> str:
    """Format the time of an image's creation (RFC 3339); `<unknown>` for none, or for 1970, which stands for none."""
    from kubelite.kube.durations import age_of

    age = "<unknown>" if str(text).startswith("1970-") else age_of(text, now)
    return age if age == "<unknown>" else f"{age} ago"


def size(count: float) -> str:
    """Format bytes as docker does: powers of 1000, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}TB"
