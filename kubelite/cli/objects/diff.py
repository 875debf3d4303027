"""`kubelite diff`: report what applying a manifest would change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import CliError, Exit
from kubelite.cli.groups import Command
from kubelite.cli.objects.manifest_files import YAML_BODY, kustomize_option, read_manifests, say_invalid
from kubelite.cli.options import (
    client,
    files_option,
    namespace_option,
    recursive_option,
    socket_option,
)
from kubelite.cli.output.foreign import indented

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    cls=Command,
    examples="""
    # Show what a changed manifest file would change
    kubelite diff -f web.yaml

    # Show what all manifests below a directory would change
    kubelite diff -R -f manifests/
    """,
)
@files_option
@kustomize_option
@recursive_option
@namespace_option
@socket_option
@click.pass_context
def diff(
    ctx: click.Context, files: tuple[str, ...], kustomize: str, recursive: bool, namespace: str | None
) -> None:
    """Show what applying a manifest would change.

    The exit code is 0 if nothing would change, 1 if something would, and 2 on an error.
    """
    server, differs = client(ctx), False
    try:
        for file, text in read_manifests(files, recursive, "diff", kustomize):
            query = {"file": file, "namespace": namespace or ""}
            answer = server.json("POST", "/kubelite/v1/diff", query=query, body=text, headers=YAML_BODY)
            for entry in answer["objects"]:
                differs = _print_diff(entry) or differs
    except CliError as error:
        say_invalid(error)
        raise Exit(2) from error
    if differs:
        raise Exit(1)


def _print_diff(entry: Json) -> bool:
    """Print the entry, and return whether it is a difference."""
    if entry["change"] == "unchanged":
        return False
    print(f"{entry['object'].replace('/default/', '/')}: {entry['change']}")
    for word in entry.get("words", []):
        print(f"  - {indented(word, '    ')}")
    for field in entry.get("fields", []):
        print(f"      {indented(field, ' ' * 8)}")
    return bool(entry["change"] != "ignored")
