"""`kubelite edit`: open a manifest in an editor, and write it back to the directory if it is valid."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.names import resource_type
from kubelite.cli.objects.manifest_files import YAML_BODY, say_invalid
from kubelite.cli.options import client, complete_types, namespace_option, socket_option
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    "edit",
    cls=Command,
    examples="""
    # Edit the manifest of a pod
    kubelite edit pod/web

    # Edit the manifest of a deployment
    kubelite edit deployment/web

    # Edit a file in the manifest directory
    kubelite edit web.yaml

    # Choose the editor
    KUBE_EDITOR=nano kubelite edit pod/web
    """,
)
@click.argument("what", nargs=-1, metavar="FILE | TYPE NAME | TYPE/NAME", shell_complete=complete_types)
@namespace_option
@socket_option
@click.pass_context
def edit(ctx: click.Context, what: tuple[str, ...], namespace: str | None) -> None:
    """Edit the manifest of an object in an editor.

    The editor is $KUBE_EDITOR, $EDITOR or vi, and gets the whole file. If the edited manifest has an error, nothing
    is changed; the edited text is saved and its path is printed.
    """
    server = client(ctx)
    place = Path(_file_of(server, "/".join(what), namespace or "default"))
    before = place.read_bytes()
    draft = _edited(place, before)
    after = draft.read_bytes()
    if after == before:
        _forget(draft)
        print("Edit cancelled, no changes made.")
        return
    query = {"file": str(place), "namespace": "", "dryRun": "true"}
    try:
        server.json("POST", "/kubelite/v1/apply", query=query, body=after, headers=YAML_BODY)
    except ServerError as error:
        say_invalid(error)
        print(f"A copy of your changes is in {draft}", flush=True)
        raise Exit(1) from error
    if place.read_bytes() != before:
        raise CliError(f"error: {place} was changed meanwhile; a copy of your changes is in {draft}")
    _replace(place, after)
    _forget(draft)
    print(f"{place} edited")


def _file_of(server: Client, wanted: str, namespace: str) -> str:
    """Return the manifest file to edit. Raises CliError."""
    if not wanted:
        raise CliError("error: specify an object or a file: kubelite edit pod/web", code=2)
    files: list[Json] = server.get("/kubelite/v1/manifests")["files"]
    if wanted.endswith((".yaml", ".yml", ".json")):
        found = [f["file"] for f in files if f["file"] == wanted or f["file"].endswith(f"/{wanted}")]
        missing = f"{wanted} is not a manifest of this node: `kubelite get manifests` lists them"
    else:
        kind, _, name = wanted.rpartition("/")
        singular = resource_type(kind).singular if kind else "pod"
        objects = {f"{singular}/{namespace}/{name}", f"{singular}/{name}"}
        found = [f["file"] for f in files if objects & set(f["objects"])]
        missing = f'no manifest has {singular} "{name}" in namespace {namespace}'
    if not found:
        raise CliError(f"error: {missing}")
    return str(found[0])


def _edited(place: Path, text: bytes) -> Path:
    """Open a copy of the text in the editor, and return the copy's path. The copy is in a private directory, because it
    may contain Secrets. Raises CliError."""
    editor = os.environ.get("KUBE_EDITOR") or os.environ.get("EDITOR") or "vi"
    directory = Path(tempfile.mkdtemp(prefix="kubelite-edit-"))
    draft = directory / place.name
    draft.write_bytes(text)
    try:
        code = subprocess.call([*shlex.split(editor), str(draft)])
    except OSError as error:
        _forget(draft)
        raise CliError(f"error: cannot start the editor {editor}: {error.strerror}") from error
    if code != 0:
        _forget(draft)
        raise CliError(f"error: the editor {editor} exited with code {code}: no changes made")
    return draft


def _forget(draft: Path) -> None:
    with contextlib.suppress(OSError):
        draft.unlink()
        draft.parent.rmdir()


def _replace(place: Path, text: bytes) -> None:
    """Replace the file by a rename, so that a reader sees the complete old or new text. The daemon ignores dotfiles."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, place.stat().st_mode & 0o777), "wb"
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
