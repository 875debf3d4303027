"""`kubelite label` and `kubelite annotate`: change labels and annotations in manifests, with kubectl's words.

Source: kubectl pkg/cmd/label/label.go and annotate/annotate.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_types
from kubelite.cli.output.foreign import harmless
from kubelite.cli.workloads.changing import Each, Target, patch, suffix, target_options, targets

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client

_WHAT = click.argument(
    "what", nargs=-1, metavar="TYPE/NAME... | TYPE NAME... KEY=VALUE|KEY-...", shell_complete=complete_types
)
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing values.")
_LIST = click.option("--list", "listing", is_flag=True, help="Show the labels or annotations of the objects.")


@click.command(
    cls=Command,
    examples="""
    # Set labels of a deployment
    kubelite label deployment/web tier=front team=shop

    # Change a label
    kubelite label --overwrite deployment/web team=store

    # Remove a label
    kubelite label deployment/web team-
    """,
)
@_WHAT
@_OVERWRITE
@_LIST
@target_options
@click.pass_context
def label(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """Set or remove labels of objects.

    KEY=VALUE sets a label, KEY- removes it. The manifest in the manifest directory is changed, and its comments stay.
    The labels of the node are changed by `kubelite node label`.
    """
    _run(client(ctx), "labels", what, options)


@click.command(
    cls=Command,
    examples="""
    # Set an annotation of a deployment
    kubelite annotate deployment/web description='the shop'

    # Remove an annotation
    kubelite annotate deployment/web description-
    """,
)
@_WHAT
@_OVERWRITE
@_LIST
@target_options
@click.pass_context
def annotate(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """Set or remove annotations of objects.

    KEY=VALUE sets an annotation, KEY- removes it. The manifest in the manifest directory is changed, and its comments
    stay.
    """
    _run(client(ctx), "annotations", what, options)


def _run(server: Client, field: str, what: Sequence[str], options: Mapping[str, Any]) -> None:
    words, changes = parsed(what, field)
    if not changes and not options["listing"]:
        raise CliError(f"error: at least one {field[:-1]} update is required: KEY=VALUE or KEY-", code=2)
    if any(word.partition("/")[0].lower() in ("node", "nodes", "no") for word in words[:1]):
        raise CliError(f"error: the {field} of the node are in no manifest; {_of_node(field)}")
    each = Each()
    found = list(targets(server, words, dict(options), field[:-1]))
    for target in found:
        with each:
            old = target.doc["metadata"].get(field) or {}
            if changes:
                refuse_overwriting(old, changes, overwrite=options["overwrite"])
                for key in _absent(old, changes) if field == "labels" else ():
                    print(f'label "{key}" not found.')
                wanted = {"metadata": {field: changes}}
                done = patch(server, target, wanted, kind="merge", dry_run=options["dry_run"])
                word = _done(field, changes, changed=done)
                print(f"{target} {word}{suffix(options['dry_run'])}", flush=True)
            if options["listing"]:
                _list(target, field, several=len(found) > 1)
    each.finish()


def _of_node(field: str) -> str:
    return "`kubelite node label KEY=VALUE` changes them" if field == "labels" else "they cannot be changed"


def parsed(what: Sequence[str], field: str) -> tuple[list[str], dict[str, str | None]]:
    """Split the arguments into objects, and key → value, None for one that is removed. Raises CliError."""
    first = next((at for at, word in enumerate(what) if _is_change(word)), len(what))
    changes: dict[str, str | None] = {}
    for word in what[first:]:
        key, equals, value = word.partition("=")
        if not _is_change(word) or not key:
            raise CliError(f'error: "{word}" is neither KEY=VALUE nor KEY-', code=2)
        key = key if equals else key.removesuffix("-")
        if key in changes:
            raise CliError(
                f"error: can not both modify and remove {field[:-1]} {key} in the same command", code=2
            )
        changes[key] = value if equals else None
    return list(what[:first]), changes


def _is_change(word: str) -> bool:
    return "=" in word or word.endswith("-")


def refuse_overwriting(old: Mapping[str, str], changes: Mapping[str, str | None], *, overwrite: bool) -> None:
    """Raise CliError if a change would replace another value."""
    for key, value in changes.items():
        if not overwrite and value is not None and old.get(key, value) != value:
            raise CliError(f"error: '{key}' already has a value ({old[key]}), and --overwrite is false")


def _absent(old: Mapping[str, str], changes: Mapping[str, str | None]) -> list[str]:
    return [key for key, value in changes.items() if value is None and key not in old]


def _done(field: str, changes: Mapping[str, str | None], *, changed: bool) -> str:
    """Return kubectl's word for what was done."""
    if field == "annotations":
        return "annotated"
    if not changed:
        return "not labeled"
    return "unlabeled" if all(value is None for value in changes.values()) else "labeled"


def _list(target: Target, field: str, *, several: bool) -> None:
    if several:
        print(f"Listing {field} for {target}:")
    for key, value in sorted((target.doc["metadata"].get(field) or {}).items()):
        print(f"{' ' if several else ''}{key}={harmless(value)}")
