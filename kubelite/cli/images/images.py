"""What images there are and how they come: images, pull, load."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.tables import TablePrinter, print_json
from kubelite.cli.transport.client import JSON_BODY

Json = dict[str, Any]

_json_option = click.option(
    "-o", "--output", type=click.Choice(["json"]), metavar="json", help="Progress and result as JSON lines."
)


@click.command()
@click.option("-o", "--output", type=click.Choice(["json", "wide", "name"]), metavar="wide|json|name")
@click.option("-a", "--all", "_every", is_flag=True, help="As docker's; here no image is hidden without it.")
@click.option("--digests", is_flag=True, help="Show the manifests' digests.")
@click.option("-q", "--quiet", is_flag=True, help="Only the ids.")
@click.option("--no-headers", is_flag=True)
@socket_option
@click.pass_context
def images(
    ctx: click.Context, output: str | None, quiet: bool, no_headers: bool, digests: bool, _every: bool
) -> None:
    """List the images on this node."""
    from kubelite.api.durations import since

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
        repository, tag = _familiar(image.get("reference") or "")
        identity = image["id"] if output == "wide" else image["id"].partition(":")[2][:12]
        created = (
            "<unknown>" if str(image.get("created")).startswith("1970-") else since(image.get("created"), now)
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
    """What its registry knows it by, else that of the manifest here."""
    known = image.get("repoDigests") or []
    return known[0].partition("@")[2] if known else str(image.get("digest") or "")


def _familiar(reference: str) -> tuple[str, str]:
    """docker.io/library/nginx:1 → (nginx, 1), as docker shows it."""
    if not reference:
        return "<none>", "<none>"
    name, at, digest = reference.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, ""
    repository = repository.removeprefix("docker.io/library/").removeprefix("docker.io/")
    return repository, tag or (digest if at else "<none>")


def size(count: float) -> str:
    """Bytes as docker writes them: powers of 1000, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}TB"


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
        _finish(found, "Pulled")


@click.command()
@click.argument("file", metavar="FILE|DIR|-", required=False)
@click.option("-i", "--input", "given", metavar="FILE", help="The same, as docker has it.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@_json_option
@socket_option
@click.pass_context
def load(ctx: click.Context, file: str | None, given: str | None, quiet: bool, output: str | None) -> None:
    """Load images from an archive (docker save, skopeo, OCI; compressed too), an OCI layout directory, or stdin."""
    if bool(file) == bool(given):
        raise CliError(
            "error: load needs one archive: a file, an OCI layout's directory, or - for stdin", code=2
        )
    server, file = client(ctx), str(file or given)
    if file == "-":
        headers = {"Content-Type": "application/x-tar"}
        response = server.open("POST", "/kubelite/v1/images/load", body=sys.stdin.buffer, headers=headers)
    else:
        if not os.path.exists(file):
            raise CliError(f"error: there is no file {file}")
        body = encode({"path": os.path.abspath(file)})
        response = server.open("POST", "/kubelite/v1/images/load", body=body, headers=JSON_BODY)
    found = show(server.lines(response), quiet=quiet, output=output)
    if output is None:
        _finish(found, "Loaded")


def encode(document: Json) -> bytes:
    import json

    return json.dumps(document).encode()


def _finish(images_: list[Json], verb: str) -> None:
    for image in images_:
        print(f"{verb} {image.get('reference') or image['id']}")


def show(events: Iterator[Json], *, quiet: bool, output: str | None = None) -> list[Json]:
    """Show progress as it comes (with output "json" each event as a line); the images at the end. Raises ServerError
    when the work failed."""
    if output == "json":
        return _result(_told(events), lambda event: None)
    if quiet:
        return _result(events, lambda event: None)
    if sys.stderr.isatty():
        from kubelite.cli.output.progress import bars

        with bars() as show:
            return _result(events, show)
    return _result(events, _plain)


def _result(events: Iterator[Json], show: Any) -> list[Json]:
    for event in events:
        if event.get("event") == "done":
            found: list[Json] = event.get("images") or []
            return found
        if event.get("event") == "error":
            raise ServerError(event["status"])
        show(event)
    raise CliError("error: kubelite ended the connection before the image was whole")


def _told(events: Iterator[Json]) -> Iterator[Json]:
    import json

    for event in events:
        print(json.dumps(event, separators=(",", ":")), flush=True)
        yield event


def _plain(event: Json) -> None:
    """Progress for a log file: one line for each layer that is there."""
    kind = event.get("event")
    if kind == "resolved":
        print(f"{event['reference']}: {len(event['layers'])} layers, {size(event['size'])}", file=sys.stderr)
    elif kind == "layer" and event.get("state") in ("done", "present", "mounted"):
        print(f"{event['digest'].partition(':')[2][:12]}: {event['state']}", file=sys.stderr)
    elif kind in ("retry", "warning"):
        print(f"{kind}: {event['message']}", file=sys.stderr)
