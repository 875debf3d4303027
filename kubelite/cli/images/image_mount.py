"""`kubelite image mount` and `image unmount`: give access to an image's files."""

from __future__ import annotations

import os
import tempfile

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_images, socket_option
from kubelite.cli.output.tables import TablePrinter

_IMAGES = "/kubelite/v1/images"
_PREFIX = "kubelite-image-"


@click.command(
    cls=Command,
    examples="""
    # Mount an image at a new directory, whose path is printed
    kubelite image mount app:1

    # Mount an image at an empty directory
    kubelite image mount app:1 /mnt

    # List the mounted images
    kubelite image mount
    """,
)
@click.argument("image", required=False, shell_complete=complete_images)
@click.argument("directory", required=False, type=click.Path())
@socket_option
@click.pass_context
def mount(ctx: click.Context, image: str | None, directory: str | None) -> None:
    """Mount an image read-only, or list mounted images.

    A mounted image is in use: it is neither removed nor collected.
    """
    from runtime.images.store.mounts import mount_image, mounts

    if image is None:
        TablePrinter().print(("Image ID", "Directory"), [[i[7:19], where] for where, i in mounts()])
        return
    about = client(ctx).get(f"{_IMAGES}/inspect/{image}")
    if not about["Unpacked"]:
        raise CliError(f"error: {image} is incomplete: see `kubelite doctor --repair`")
    target = os.path.abspath(directory) if directory else _new_directory()
    try:
        mount_image(about["Id"], about["LayerDirectories"], target)
    except OSError as error:
        if not directory:
            _remove_directory(target)
        raise CliError(f"error: cannot mount {image} at {target}: {error}") from error
    print(target)


@click.command(
    cls=Command,
    examples="""
    # Unmount an image
    kubelite image unmount app:1

    # Unmount all images
    kubelite image unmount --all
    """,
)
@click.argument("what", nargs=-1, metavar="IMAGE|DIRECTORY...", shell_complete=complete_images)
@click.option("-a", "--all", "every", is_flag=True, help="Unmount all images.")
@socket_option
@click.pass_context
def unmount(ctx: click.Context, what: tuple[str, ...], every: bool) -> None:
    """Unmount images.

    Name the image or the directory.
    """
    from runtime.images.store import mounts as image_mounts

    found = list(image_mounts.mounts())
    if every == bool(what):
        raise click.UsageError("specify images or directories, or --all")
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
        _remove_directory(where)
        print(where)


def _new_directory() -> str:
    """Create a mount point that only its owner can reach. It is in a private directory, because the mode of the mounted
    root is the image's."""
    target = os.path.join(tempfile.mkdtemp(prefix=_PREFIX), "rootfs")
    os.mkdir(target)
    return target


def _remove_directory(where: str) -> None:
    """Remove a mount point that _new_directory created, or the temporary directory that older versions mounted at."""
    above = os.path.dirname(where)
    if os.path.basename(above).startswith(_PREFIX):
        os.rmdir(where)
        os.rmdir(above)
    elif os.path.basename(where).startswith(_PREFIX):
        os.rmdir(where)
