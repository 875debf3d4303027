"""`kubelite apply`: write manifests into the watched directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import Exit, ServerError
from kubelite.cli.objects.manifest_files import YAML_BODY, read_manifests, say_invalid
from kubelite.cli.options import (
    client,
    files_option,
    namespace_option,
    recursive_option,
    socket_option,
)

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command()
@files_option
@recursive_option
@namespace_option
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    is_flag=False,
    flag_value="server",
    metavar="[=client|server|none]",
    help="Only say what would be done: the daemon looks, whichever is named.",
)
@socket_option
@click.pass_context
def apply(
    ctx: click.Context, files: tuple[str, ...], recursive: bool, namespace: str | None, dry_run: str
) -> None:
    """Validate manifests and put them into the manifests directory.

    An object that already stands in a file there is replaced in that file; a new one goes into a file of the same
    name as the one given. A manifest with an error changes nothing.
    """
    dry = dry_run != "none"
    server, suffix = client(ctx), " (dry run)" if dry else ""
    query = {"namespace": namespace or ""} | ({"dryRun": "true"} if dry else {})
    failed = False
    for file, text in read_manifests(files, recursive, "apply"):
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
    if failed:
        raise Exit(1)


def _title(entry: Json) -> str:
    return f"{entry['kind'].lower()}/{entry['name']}"
