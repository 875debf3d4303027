"""Find and read the manifest files given on the command line, and list their objects."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.names import Type, resource_type
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

SUFFIXES = (".yaml", ".yml", ".json")
YAML_BODY = {"Content-Type": "application/yaml"}


def objects_of_files(
    server: Client, files: tuple[str, ...], recursive: bool, namespace: str, doing: str
) -> Iterator[tuple[Type, str, str]]:
    """Return type, namespace and name of each object in the manifests. Raises CliError if a manifest is invalid."""
    for file, text in read_manifests(files, recursive, doing):
        query = {"file": file, "namespace": namespace, "dryRun": "true"}
        answer = server.json("POST", "/kubelite/v1/apply", query=query, body=text, headers=YAML_BODY)
        for entry in answer["objects"]:
            yield resource_type(entry["kind"]), entry["namespace"], entry["name"]


def read_manifests(files: tuple[str, ...], recursive: bool, verb: str) -> Iterator[tuple[str, bytes]]:
    """Return (name as given, text) of every selected file."""
    if not files:
        raise click.UsageError(f"specify the manifests to {verb}: -f FILE, -f DIR, or -f - for stdin")
    for given in files:
        if given == "-":
            yield "-", sys.stdin.buffer.read()
            continue
        for path in _expand(given, recursive):
            try:
                with open(path, "rb") as file:
                    text = file.read()
            except OSError as error:
                raise CliError(f"error: cannot read {path}: {error.strerror}") from error
            yield path, text


def _expand(path: str, recursive: bool) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    found: list[str] = []
    for directory, subdirectories, names in os.walk(path):
        subdirectories[:] = sorted(d for d in subdirectories if recursive and not d.startswith("."))
        found += [
            os.path.join(directory, name)
            for name in sorted(names)
            if name.endswith(SUFFIXES) and not name.startswith((".", "#"))
        ]
    if not found:
        raise CliError(f"error: no manifests ({', '.join(SUFFIXES)}) in {path}")
    return found


def say_unsupported(answer: Json) -> bool:
    """Print a line for each document that was left out, and return whether there is one."""
    for sentence in answer.get("unsupported", ()):
        print(f"error: {sentence}", file=sys.stderr)
    return bool(answer.get("unsupported"))


def say_invalid(error: CliError) -> None:
    """Print an invalid manifest's errors. Each is a line that already names file, line and field."""
    if isinstance(error, ServerError) and error.reason == "Invalid":
        for line in str(error.status["message"]).split("\n"):
            print(f"error: {line}", file=sys.stderr)
    else:
        print(error, file=sys.stderr)
