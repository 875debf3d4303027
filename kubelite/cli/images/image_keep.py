"""Looking at images, keeping them in order and giving them on: push, save, tag, rmi, df, image inspect, …"""

from __future__ import annotations

import os
import select
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import click

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.images.images import encode, show, size
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.tables import TablePrinter, print_json
from kubelite.cli.transport.client import JSON_BODY, Client

Json = dict[str, Any]
_IMAGES = "/kubelite/v1/images"
_json_option = click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")


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


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", "path", default="-", metavar="FILE|DIR", help="Where to [default: stdout]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["docker-archive", "oci-archive", "oci-dir"]),
    default="docker-archive",
    show_default=True,
)
@socket_option
@click.pass_context
def save(ctx: click.Context, images: tuple[str, ...], path: str, form: str) -> None:
    """Write images to an archive that docker, podman, skopeo and `kubelite load` read, or to an OCI layout."""
    server = client(ctx)
    if path == "-":
        if form == "oci-dir":
            raise CliError("error: an OCI layout is a directory: name it with --output")
        if sys.stdout.isatty():
            raise CliError("error: will not write an archive to a terminal: use --output, or redirect")
        _save_to_stdout(server, images, form)
        return
    _save(server, images, os.path.abspath(path), form)


def _save(server: Client, images: tuple[str, ...], path: str, form: str) -> None:
    body = encode({"references": list(images), "path": path, "format": form})
    response = server.open("POST", f"{_IMAGES}/save", body=body, headers=JSON_BODY)
    show(server.lines(response), quiet=True)


def _save_to_stdout(server: Client, images: tuple[str, ...], form: str) -> None:
    """The daemon's worker writes into a fifo of ours: the archive takes no way through the daemon."""
    with tempfile.TemporaryDirectory(prefix="kubelite-save-") as directory:
        fifo = os.path.join(directory, "archive")
        os.mkfifo(fifo, 0o600)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # the writer need not wait for us, nor we for it
        ended = threading.Event()
        failure: list[BaseException] = []

        def copy() -> None:
            try:
                for chunk in _follow(reader, ended):
                    _write_all(1, chunk)
            except OSError as error:
                failure.append(error)
            finally:
                os.close(reader)  # a worker that still writes ends of it

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
    """What comes out of the fifo until its writer has been and gone, or `ended` says that none will come."""
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


@click.command()
@click.argument("image")
@click.argument("name")
@socket_option
@click.pass_context
def tag(ctx: click.Context, image: str, name: str) -> None:
    """Give IMAGE (a name or an id) the further name NAME."""
    client(ctx).post(f"{_IMAGES}/tag", {"reference": image, "target": name})


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Names of an image that containers use, and all names of one that is given by its id.",
)
@socket_option
@click.pass_context
def rmi(ctx: click.Context, images: tuple[str, ...], force: bool) -> None:
    """Remove images that no container uses; a name of an image that has others is only untagged."""
    server, query = client(ctx), {"force": "true"} if force else None
    fine = True
    for reference in images:  # one that cannot be removed holds the others up as little as with docker
        try:
            _print_removed(server.json("DELETE", f"{_IMAGES}/{reference}", query=query))
        except ServerError as error:
            _tell(error)
            fine = fine and force and error.reason == "ImageNotFound"
    if not fine:
        raise Exit(1)


def _tell(error: CliError) -> None:
    sys.stdout.flush()
    print(error, file=sys.stderr)


def _print_removed(answer: Json) -> None:
    for word, key in (("Untagged", "untagged"), ("Deleted", "deleted")):
        for name in answer[key]:
            print(f"{word}: {name}")


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@socket_option
@click.pass_context
def inspect(ctx: click.Context, images: tuple[str, ...]) -> None:
    """Show all that is known of images, as docker does, as JSON."""
    server, found, fine = client(ctx), [], True
    for image in images:
        try:
            found.append(server.get(f"{_IMAGES}/inspect/{image}"))
        except ServerError as error:
            _tell(error)
            fine = False
    print_json(found)
    if not fine:
        raise Exit(1)


@click.command()
@click.argument("image")
@click.option("--no-trunc", is_flag=True, help="Show the commands whole.")
@_json_option
@socket_option
@click.pass_context
def history(ctx: click.Context, image: str, no_trunc: bool, output: str | None) -> None:
    """Show how an image was made, the newest step first. Sizes are those of the layers as they are stored."""
    from kubelite.api.durations import since

    steps = client(ctx).get(f"{_IMAGES}/history/{image}")["history"]
    if output == "json":
        print_json(steps)
        return
    now = time.time()
    rows = []
    for step in steps:
        words = " ".join(step["createdBy"].split())
        if not no_trunc and len(words) > 60:
            words = words[:59] + "…"
        age = since(step["created"], now)
        rows.append(
            [
                age if age == "<unknown>" else f"{age} ago",
                words or "<unknown>",
                size(step["size"]),
                step["comment"],
            ]
        )
    TablePrinter().print(("Created", "Created By", "Size", "Comment"), rows)


@click.command()
@click.option("-a", "--all", "every", is_flag=True, help="Named ones too, if no pod uses them.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--older", metavar="DURATION", help="With --all: only those not used for so long, like 24h.")
@socket_option
@click.pass_context
def prune(ctx: click.Context, every: bool, force: bool, older: str | None) -> None:
    """Remove nameless images that no container uses, or with --all every image that no pod uses."""
    if older is not None and not every:
        raise click.UsageError("--older needs --all")
    seconds = _seconds(older) if older else 0.0
    if not force:
        what = "all images that no pod uses" if every else "all nameless images that no container uses"
        print(f"WARNING! This will remove {what}.", file=sys.stderr)
        if not sys.stdin.isatty():
            raise CliError("error: not a terminal: say --force")
        if not click.confirm("Are you sure you want to continue?", err=True):
            return
    answer = client(ctx).post(f"{_IMAGES}/prune", {"all": every, "olderSeconds": seconds})
    _print_removed(answer)
    print(f"Total reclaimed space: {size(answer['freed'])}")


def _seconds(text: str) -> float:
    from kubelite.kube.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.UsageError(f"--older: {error}") from error


@click.command()
@click.argument("image", required=False)
@click.argument("directory", required=False)
@socket_option
@click.pass_context
def mount(ctx: click.Context, image: str | None, directory: str | None) -> None:
    """Mount IMAGE read-only, at DIRECTORY (empty) or at a new one whose path is printed; alone: show what is mounted.

    While it is mounted, the image is in use: neither rmi nor the collection of unused images takes it."""
    from runtime.images.store.mounts import mount_image, mounts

    if image is None:
        TablePrinter().print(("Image ID", "Directory"), [[i[7:19], where] for where, i in mounts()])
        return
    about = client(ctx).get(f"{_IMAGES}/inspect/{image}")
    if not about["Unpacked"]:
        raise CliError(f"error: {image} is not whole: see `kubelite doctor --repair`")
    target = os.path.abspath(directory) if directory else tempfile.mkdtemp(prefix="kubelite-image-")
    try:
        mount_image(about["Id"], about["LayerDirectories"], target)
    except OSError as error:
        if not directory:
            os.rmdir(target)
        raise CliError(f"error: cannot mount {image} at {target}: {error}") from error
    print(target)


@click.command()
@click.argument("what", nargs=-1, metavar="IMAGE|DIRECTORY...")
@click.option("-a", "--all", "every", is_flag=True, help="Whatever image is mounted.")
@socket_option
@click.pass_context
def unmount(ctx: click.Context, what: tuple[str, ...], every: bool) -> None:
    """Undo `image mount`, by the image or by the directory."""
    from runtime.images.store import mounts as image_mounts

    found = list(image_mounts.mounts())
    if every == bool(what):
        raise click.UsageError("name images or directories, or say --all")
    todo = [where for where, _ in found] if every else []
    for text in what:
        wanted = [where for where, _ in found if where == os.path.abspath(text)]
        if not wanted:
            identity = client(ctx).get(f"{_IMAGES}/inspect/{text}")["Id"]
            wanted = [where for where, image in found if image == identity]
        if not wanted:
            raise CliError(f"error: {text} is not mounted")
        todo += wanted
    for where in todo:
        try:
            image_mounts.unmount(where)
        except OSError as error:
            raise CliError(f"error: cannot unmount {where}: {error}") from error
        if os.path.basename(where).startswith("kubelite-image-"):
            os.rmdir(where)
        print(where)


@click.command()
@_json_option
@socket_option
@click.pass_context
def df(ctx: click.Context, output: str | None) -> None:
    """Show what takes the disk's space, as `docker system df` does."""
    found = client(ctx).get("/kubelite/v1/df")["usage"]
    if output == "json":
        print_json(found)
        return
    rows = []
    for kind in found:
        share = 100 * kind["reclaimable"] // kind["size"] if kind["size"] else 0
        rows.append(
            [
                kind["type"],
                kind["total"],
                kind["active"],
                size(kind["size"]),
                f"{size(kind['reclaimable'])} ({share}%)",
            ]
        )
    TablePrinter().print(("Type", "Total", "Active", "Size", "Reclaimable"), rows)
