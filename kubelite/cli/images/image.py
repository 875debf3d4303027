"""`kubelite image …`: every command about images under one roof, and pack."""

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

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.group(cls=Group)
def image() -> None:
    """Work with images."""


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
