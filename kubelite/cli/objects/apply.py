"""`kubelite apply`: write manifests to the manifest directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import Exit, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.names import qualified
from kubelite.cli.objects.manifest_files import (
    YAML_BODY,
    kustomize_option,
    read_manifests,
    say_invalid,
    say_unsupported,
)
from kubelite.cli.options import (
    client,
    files_option,
    namespace_option,
    recursive_option,
    socket_option,
)

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    cls=Command,
    examples="""
    # Apply a manifest file
    kubelite apply -f web.yaml

    # Apply all manifests below a directory
    kubelite apply -R -f manifests/

    # Apply a manifest from standard input
    cat web.yaml | kubelite apply -f -

    # Build a kustomization and apply the result
    kubelite apply -k overlays/production

    # Show what would be done
    kubelite apply -f web.yaml --dry-run
    """,
)
@files_option
@kustomize_option
@recursive_option
@namespace_option
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    is_flag=False,
    flag_value="server",
    metavar="[=client|server|none]",
    help="Only show what would be done; client and server are the same.",
)
@socket_option
@click.pass_context
def apply(
    ctx: click.Context,
    files: tuple[str, ...],
    *,
    kustomize: str,
    recursive: bool,
    namespace: str | None,
    dry_run: str,
) -> None:
    """Validate manifests and write them to the manifest directory.

    An object that a file in the directory already has is replaced in that file. A new object is written to a file
    with the name of the given file. If a manifest has an error, nothing of it is changed. A document of a kind that
    kubelite does not run is left out and named, and the exit code is 1.
    """
    dry = dry_run != "none"
    server, suffix = client(ctx), " (dry run)" if dry else ""
    query = {"namespace": namespace or ""} | ({"dryRun": "true"} if dry else {})
    failed = False
    for file, text in read_manifests(files, recursive, "apply", kustomize):
        try:
            answer = server.json(
                "POST", "/kubelite/v1/apply", query={**query, "file": file}, body=text, headers=YAML_BODY
            )
        except ServerError as error:
            say_invalid(error)
            failed = True
            continue
        for entry in answer["objects"]:
            print(f"{_title(entry)} {entry['result']}{suffix}")
        failed |= say_unsupported(answer)
    if failed:
        raise Exit(1)


def _title(entry: Json) -> str:
    return f"{qualified(entry['kind'])}/{entry['name']}"
