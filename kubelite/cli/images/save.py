"""`kubelite save`: write images to an archive or an OCI layout."""

from __future__ import annotations

import os
import select
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.images.image_events import encode, show
from kubelite.cli.options import client, complete_images, socket_option
from kubelite.cli.transport.client import JSON_BODY, Client

_IMAGES = "/kubelite/v1/images"


@click.command(
    cls=Command,
    examples="""
    # Save an image to an archive
    kubelite save -o app.tar app:1

    # Copy an image to another machine
    kubelite save app:1 | ssh other docker load

    # Save images to an OCI layout directory
    kubelite save --format oci-dir -o layout app:1 tool:1
    """,
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_images)
@click.option(
    "-o",
    "--output",
    "path",
    default="-",
    metavar="FILE|DIR",
    type=click.Path(),
    help="Path of the archive or directory. [default: standard output]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["docker-archive", "oci-archive", "oci-dir"]),
    default="docker-archive",
    show_default=True,
    help="Format of the output.",
)
@socket_option
@click.pass_context
def save(ctx: click.Context, images: tuple[str, ...], path: str, form: str) -> None:
    """Save images to an archive or an OCI layout.

    docker, podman, skopeo and `kubelite load` read the archive.
    """
    server = client(ctx)
    if path == "-":
        if form == "oci-dir":
            raise CliError("error: an OCI layout is a directory: specify it with --output")
        if sys.stdout.isatty():
            raise CliError("error: will not write an archive to a terminal: use --output, or redirect")
        _save_to_stdout(server, images, form)
        return
    _save(server, images, os.path.abspath(path), form)


def _save(server: Client, images: tuple[str, ...], path: str, form: str) -> None:
    body = encode({"references": list(images), "path": path, "format": form})
    response = server.open("POST", f"{_IMAGES}/save", body=body, headers=JSON_BODY)
    show(server.lines(response), doing=f"saving {', '.join(images)}", logged=False)


def _save_to_stdout(server: Client, images: tuple[str, ...], form: str) -> None:
    """Copy the archive from a fifo, to which the daemon's worker writes. It does not pass through the daemon."""
    with tempfile.TemporaryDirectory(prefix="kubelite-save-") as directory:
        fifo = os.path.join(directory, "archive")
        os.mkfifo(fifo, 0o600)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # neither side waits for the other to open it
        ended = threading.Event()
        failure: list[BaseException] = []

        def copy() -> None:
            try:
                for chunk in _follow(reader, ended):
                    _write_all(1, chunk)
            except OSError as error:
                failure.append(error)
            finally:
                os.close(reader)  # a worker that still writes gets EPIPE

        thread = threading.Thread(target=copy)
        thread.start()
        try:
            _save(server, images, fifo, form)
        except CliError:
            if not failure:
                raise
        finally:
            ended.set()
            thread.join()
        error = failure[0] if failure else None
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise CliError(f"error: cannot write the archive to stdout: {error.strerror}") from error
        if error is not None:
            raise error


def _follow(reader: int, ended: threading.Event) -> Iterator[bytes]:
    """Yield the fifo's data until `ended` is set and the fifo is empty."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while True:
        last = ended.is_set()
        ready = poll.poll(20)
        try:
            chunk = os.read(reader, 1 << 20) if ready else b""
        except BlockingIOError:
            chunk = b""
        if chunk:
            yield chunk
        elif last:
            return
        elif ready:
            time.sleep(0.005)  # POLLHUP without a writer


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
