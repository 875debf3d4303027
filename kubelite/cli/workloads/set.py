"""`kubelite set`: change fields of an object's manifest: images, environment and resources of its containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Group
from kubelite.cli.options import client, complete_types
from kubelite.cli.workloads.changing import Each, Target, change, suffix, target_options, targets
from kubelite.cli.workloads.pod_template import POD_SPECS, at
from kubelite.cli.workloads.set_env import env
from kubelite.cli.workloads.set_resources import resources

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_BY_HAND = "edit the manifest: `kubelite edit TYPE/NAME`"


@click.group(
    "set",
    cls=Group,
    instead=dict.fromkeys(("selector", "serviceaccount", "subject"), _BY_HAND),
    examples="""
    # Change the image of a pod's container
    kubelite set image pod/web app=nginx:1.27

    # Set an environment variable in all containers of a deployment
    kubelite set env deployment/web LOG_LEVEL=debug

    # Limit the memory of a container
    kubelite set resources deployment/web -c app --limits=memory=256Mi
    """,
)
def set_() -> None:
    """Change fields of an object in its manifest."""


set_.add_command(env)
set_.add_command(resources)


@set_.command(
    "image",
    examples="""
    # Change the image of a pod's container
    kubelite set image pod/web app=nginx:1.27

    # Change the image of all containers
    kubelite set image pod/web '*=busybox'
    """,
)
@click.argument(
    "what", nargs=-1, metavar="TYPE/NAME... | TYPE NAME... CONTAINER=IMAGE...", shell_complete=complete_types
)
@target_options
@click.pass_context
def image(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """Change the images of containers.

    The manifest in the manifest directory is changed, and its comments stay. `*` names all containers.
    """
    words, images = _parsed(what)
    server, each = client(ctx), Each()
    for target in targets(server, words, options, "change"):
        with each:
            changes = image_changes(target, images)
            if not changes:
                continue
            change(server, target, changes, dry_run=options["dry_run"])
            print(f"{target} image updated{suffix(options['dry_run'])}", flush=True)
    each.finish()


def _parsed(what: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Split the arguments into objects, and container → image. Raises CliError."""
    words = [word for word in what if "=" not in word]
    images = dict(word.split("=", 1) for word in what if "=" in word)
    if not images or not all(images.values()) or "" in images:
        raise CliError("error: at least one image update is required: CONTAINER=IMAGE", code=2)
    return words, images


def image_changes(target: Target, images: Mapping[str, str]) -> list[tuple[list[str | int], str]]:
    """Return the changes that give containers their images; none if they have them. Raises CliError for an unknown
    container."""
    where = POD_SPECS.get(target.type.kind)
    if where is None:
        raise CliError(f"error: {target} has no pod template")
    spec: Json = at(target.doc, where) or {}
    found: list[tuple[list[str | int], str]] = []
    known = set()
    for key in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(key) or ()):
            known.add(container["name"])
            wanted = images.get(container["name"], images.get("*"))
            if wanted is not None and container.get("image") != wanted:
                found.append(([*where, key, index, "image"], wanted))
    for name in images:
        if name != "*" and name not in known:
            raise CliError(f'error: unable to find container named "{name}"')
    return found
