"""`kubelite image …`: all image commands in one group, and pack."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.build.build import build
from kubelite.cli.groups import Group
from kubelite.cli.images.image_inspect import history, inspect
from kubelite.cli.images.image_mount import mount, unmount
from kubelite.cli.images.image_prune import prune
from kubelite.cli.images.images import images, size
from kubelite.cli.images.load import load
from kubelite.cli.images.pull import pull
from kubelite.cli.images.push import push
from kubelite.cli.images.rmi import rmi
from kubelite.cli.images.save import save
from kubelite.cli.images.tag import tag
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.waiting import waiting

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.group(
    cls=Group,
    examples="""
    # List the images on this node
    kubelite image ls

    # Make an image from a program of this machine
    kubelite image pack -t busybox:local /usr/bin/busybox
    """,
)
def image() -> None:
    """Manage images."""


for _name, _command in {
    "build": build,
    "ls": images,
    "pull": pull,
    "load": load,
    "push": push,
    "save": save,
    "tag": tag,
    "rm": rmi,
    "inspect": inspect,
    "history": history,
    "prune": prune,
    "mount": mount,
    "unmount": unmount,
}.items():
    image.add_command(_command, _name)


@image.command(
    examples="""
    # Make an image from a program of this machine
    kubelite image pack -t busybox:local /usr/bin/busybox

    # Add files, and set the program that the image runs
    kubelite image pack -t tool:1 /usr/bin/curl --file /etc/ssl --entrypoint curl
    """,
)
@click.argument("programs", nargs=-1, required=True, metavar="PROGRAM...")
@click.option("-t", "--tag", required=True, metavar="REFERENCE", help="Name of the image.")
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="HOST[:IMAGE]",
    type=click.Path(),
    help="File or directory to add.",
)
@click.option("--entrypoint", metavar="COMMAND", help="Entrypoint of the image, split as in a shell.")
@click.option("--cmd", metavar="COMMAND", help="Default command of the image, split as in a shell.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set an environment variable.")
@click.option("-w", "--workdir", default="", metavar="DIR", help="Working directory of the image.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="User of the image.")
@socket_option
@click.pass_context
def pack(
    ctx: click.Context, /, programs: tuple[str, ...], tag: str, files: tuple[str, ...], **options: Any
) -> None:
    """Make an image from programs of this machine.

    The image gets the programs and the libraries that they need. No registry and no Containerfile is needed.
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
    with waiting("packing the image"):
        made = client(ctx).post("/kubelite/v1/images/pack", request)
    print(f"Packed {made['reference']} ({size(made.get('size', 0))})")


def _absolute(entry: str) -> str:
    host, colon, inside = entry.partition(":")
    return os.path.abspath(host) + colon + (inside or "")
