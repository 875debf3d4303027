"""Manifest files given on the command line: found, read, and the objects in them."""

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
    pass

SUFFIXES = (".yaml", ".yml", ".json")
YAML_BODY = {"Content-Type": "application/yaml"}


def objects_of_files(
    server: Client, files: tuple[str, ...], recursive: bool, namespace: str, doing: str
) -> Iterator[tuple[Type, str, str]]:
    """Type, namespace and name of each object that manifests name. Raises CliError for what is wrong in them."""
    for file, text in read_manifests(files, recursive, doing):
        query = {"file": file, "namespace": namespace, "dryRun": "true"}
        answer = server.json("POST", "/kubelite/v1/apply", query=query, body=text, headers=YAML_BODY)
        for entry in answer["objects"]:
            yield resource_type(entry["kind"]), entry["namespace"], entry["name"]


def read_manifests(files: tuple[str, ...], recursive: bool, verb: str) -> Iterator[tuple[str, bytes]]:
    """(name as given, text) of every file meant."""
    if not files:
        raise click.UsageError(f"say which manifests to {verb}: -f FILE, -f DIR, or -f - for stdin")
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


def say_invalid(error: CliError) -> None:
    """An invalid manifest's errors already name file, line and field, one a line."""
    if isinstance(error, ServerError) and error.reason == "Invalid":
        for line in str(error.status["message"]).split("\n"):
            print(f"error: {line}", file=sys.stderr)
    else:
        print(error, file=sys.stderr)
