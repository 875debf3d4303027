"""Images: images, pull, load, and `image ls|pull|load|pack|rm`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from kubelite.cli.client import JSON_BODY, Client
from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.options import client, socket_option
from kubelite.cli.output import TablePrinter, print_json

Json = dict[str, Any]

_json_option = click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")


@click.command()
@click.option("-o", "--output", type=click.Choice(["json", "wide", "name"]), metavar="wide|json|name")
@click.option("-q", "--quiet", is_flag=True, help="Only the ids.")
@click.option("--no-headers", is_flag=True)
@socket_option
@click.pass_context
def images(ctx: click.Context, output: str | None, quiet: bool, no_headers: bool) -> None:
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
        rows.append([repository, tag, identity, age, size(image.get("size", 0))])
    TablePrinter(headers=not no_headers).print(("Repository", "Tag", "Image ID", "Created", "Size"), rows)


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
        "POST", "/kubelite/v1/images/pull", body=_encode({"reference": reference}), headers=JSON_BODY
    )
    found = _show(server.lines(response), quiet=quiet)
    if output == "json":
        print_json(found[0])
    else:
        _finish(found, "Pulled")


@click.command()
@click.argument("file", metavar="FILE|DIR|-")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@_json_option
@socket_option
@click.pass_context
def load(ctx: click.Context, file: str, quiet: bool, output: str | None) -> None:
    """Load images from an archive (docker save, skopeo, OCI; compressed too), an OCI layout directory, or stdin."""
    server = client(ctx)
    if file == "-":
        headers = {"Content-Type": "application/x-tar"}
        response = server.open("POST", "/kubelite/v1/images/load", body=sys.stdin.buffer, headers=headers)
    else:
        if not os.path.exists(file):
            raise CliError(f"error: there is no file {file}")
        body = _encode({"path": os.path.abspath(file)})
        response = server.open("POST", "/kubelite/v1/images/load", body=body, headers=JSON_BODY)
    found = _show(server.lines(response), quiet=quiet)
    if output == "json":
        print_json(found)
    else:
        _finish(found, "Loaded")


def _encode(document: Json) -> bytes:
    import json

    return json.dumps(document).encode()


def _finish(images_: list[Json], verb: str) -> None:
    for image in images_:
        print(f"{verb} {image.get('reference') or image['id']}")


def _show(events: Iterator[Json], *, quiet: bool) -> list[Json]:
    """Show progress as it comes; the images at the end. Raises ServerError when the work failed."""
    if quiet:
        return _result(events, lambda event: None)
    if sys.stderr.isatty():
        from kubelite.cli.progress import bars

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


def _plain(event: Json) -> None:
    """Progress for a log file: one line for each layer that is there."""
    kind = event.get("event")
    if kind == "resolved":
        print(f"{event['reference']}: {len(event['layers'])} layers, {size(event['size'])}", file=sys.stderr)
    elif kind == "layer" and event.get("state") in ("done", "present"):
        print(f"{event['digest'].partition(':')[2][:12]}: {event['state']}", file=sys.stderr)
    elif kind in ("retry", "warning"):
        print(f"{kind}: {event['message']}", file=sys.stderr)


@click.group()
def image() -> None:
    """Work with images."""


image.add_command(images, "ls")
image.add_command(pull, "pull")
image.add_command(load, "load")


@image.command()
@click.argument("programs", nargs=-1, required=True, metavar="PROGRAM...")
@click.option("-t", "--tag", required=True, metavar="REFERENCE", help="The image's name.")
@click.option("--file", "files", multiple=True, metavar="HOST[:IMAGE]", help="A file or tree to put in.")
@click.option("--entrypoint", metavar="COMMAND", help="Split like a shell does.")
@click.option("--cmd", metavar="COMMAND", help="Split like a shell does.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE")
@click.option("-w", "--workdir", default="")
@click.option("-u", "--user", default="")
@socket_option
@click.pass_context
def pack(
    ctx: click.Context, /, programs: tuple[str, ...], tag: str, files: tuple[str, ...], **options: Any
) -> None:
    """Make an image out of programs of this machine, with the libraries they need: no registry, no Dockerfile.

    \b
    kubelite image pack -t busybox:local /usr/bin/busybox
    kubelite image pack -t tool:1 /usr/bin/curl --file /etc/ssl --entrypoint curl
    """
    import shlex

    request: Json = {
        "programs": [os.path.abspath(p) if os.path.sep in p else p for p in programs],
        "reference": tag,
        "files": [_absolute(entry) for entry in files],
        "env": list(options["env"]),
        "workdir": options["workdir"],
        "user": options["user"],
    }
    for key in ("entrypoint", "cmd"):
        if options[key] is not None:
            request[key] = shlex.split(options[key])
    made = client(ctx).post("/kubelite/v1/images/pack", request)
    print(f"Packed {made['reference']} ({size(made.get('size', 0))})")


def _absolute(entry: str) -> str:
    host, colon, inside = entry.partition(":")
    return os.path.abspath(host) + colon + (inside or "")


@image.command("rm")
@click.argument("references", nargs=-1, required=True, metavar="IMAGE...")
@socket_option
@click.pass_context
def remove(ctx: click.Context, references: tuple[str, ...]) -> None:
    """Remove images that no container uses."""
    server: Client = client(ctx)
    for reference in references:
        answer = server.json("DELETE", f"/kubelite/v1/images/{reference}")
        for word, key in (("Untagged", "untagged"), ("Deleted", "deleted")):
            for name in answer[key]:
                print(f"{word}: {name}")
