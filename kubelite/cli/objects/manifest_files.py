"""Find and read the manifest files given on the command line, and list their objects."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.names import Type, resource_type
from kubelite.cli.output.waiting import waiting
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

SUFFIXES = (".yaml", ".yml", ".json")
DOWNLOAD_SECONDS = 30.0  # time without data after which a download fails
LONGEST = 10 << 20  # bytes of a downloaded manifest; the limit is that of a file
YAML_BODY = {"Content-Type": "application/yaml"}


def objects_of_files(
    server: Client, files: tuple[str, ...], recursive: bool, namespace: str, doing: str
) -> Iterator[tuple[Type, str, str]]:
    """Yield type, namespace and name of each object in the manifests. Raises CliError if a manifest is invalid."""
    for file, text in read_manifests(files, recursive, doing):
        query = {"file": file, "namespace": namespace, "dryRun": "true"}
        answer = server.json("POST", "/kubelite/v1/apply", query=query, body=text, headers=YAML_BODY)
        for entry in answer["objects"]:
            yield resource_type(entry["kind"]), entry["namespace"], entry["name"]


def read_manifests(
    files: tuple[str, ...], recursive: bool, verb: str, kustomize: str = ""
) -> Iterator[tuple[str, bytes]]:
    """Yield (name as given, text) of every selected file, or of what a kustomization makes. `kustomize`: its directory.
    Raises CliError if one cannot be read."""
    if files and kustomize:
        raise click.UsageError("only one of -f or -k can be specified")
    if kustomize:
        from kubelite.cli.objects.kustomize import built

        yield built(kustomize)
        return
    if not files:
        raise click.UsageError(f"specify the manifests to {verb}: -f FILE, -f DIR, -k DIR, or -f - for stdin")
    for given in files:
        if given == "-":
            yield "-", sys.stdin.buffer.read()
            continue
        if given.startswith(("http://", "https://")):
            yield _name_in(given), _download(given)
            continue
        for path in _expand(given, recursive):
            try:
                with open(path, "rb") as file:
                    text = file.read()
            except OSError as error:
                raise CliError(f"error: cannot read {path}: {error.strerror}") from error
            yield path, text


def _name_in(url: str) -> str:
    """Return the file name in a URL, or - for a URL without one."""
    name = url.partition("?")[0].partition("#")[0].partition("://")[2].rpartition("/")[2]
    return name if name.endswith(SUFFIXES) else "-"


def _download(url: str) -> bytes:
    """Download a manifest. TLS certificates are verified with those of the system. Raises CliError."""
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    request = urllib.request.Request(url, headers={"User-Agent": "kubelite"})
    try:
        with waiting(f"reading {url}"), urllib.request.urlopen(request, timeout=DOWNLOAD_SECONDS) as answer:
            text: bytes = answer.read(LONGEST + 1)
    except urllib.error.HTTPError as error:
        raise CliError(
            f"error: unable to read URL {url}: the server answered {error.code} {error.reason}"
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise CliError(f"error: unable to read URL {url}: {reason}") from error
    if len(text) > LONGEST:
        raise CliError(f"error: {url} is larger than {LONGEST >> 20} MiB: it is not a manifest")
    return text


kustomize_option = click.option(
    "-k",
    "--kustomize",
    default="",
    metavar="DIR",
    type=click.Path(),
    help="Build a kustomization with kustomize or kubectl, and use the result.",
)


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
    """Print a line for each document that was left out, and return whether there is one of an unsupported kind."""
    for sentence in answer.get("ignored", ()):
        print(f"warning: {sentence}", file=sys.stderr)
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
