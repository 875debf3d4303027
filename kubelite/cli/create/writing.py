"""Write a generated object into the manifest directory, or print it: --dry-run and -o of `run` and `create`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.objects.manifest_files import YAML_BODY, say_invalid
from kubelite.cli.output.formats import by_template, complete_format, known_format
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

F = TypeVar("F", bound=Callable[..., Any])

dry_run_option = click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    is_flag=False,
    flag_value="client",
    metavar="[=client|server|none]",
    help="Do not create it; with server, let the node validate it.",
)
output_option = click.option(
    "-o",
    "--output",
    default=None,
    metavar="json|yaml|name|jsonpath=…",
    callback=known_format,
    shell_complete=complete_format,
    help="Print the object in this format.",
)
_SUFFIX = {"none": "", "client": " (dry run)", "server": " (server dry run)"}


def yaml_of(document: Json) -> str:
    """Return the manifest's text, its fields in the order of the document."""
    from kubelite.cli.output.tables import to_yaml

    return to_yaml(document, sort_keys=False)


def mark(document: Json, command: str) -> None:
    """Say in the manifest that a command wrote it, so that `kubelite delete TYPE NAME` deletes the manifest, too."""
    from kubelite.kube.objects import CREATED_BY

    document["metadata"].setdefault("annotations", {})[CREATED_BY] = command


def write(server: Client, document: Json, *, dry_run: str, output: str) -> None:
    """Create the object in a new file in the manifest directory, and report it as kubectl does. Raises ServerError with
    the reason AlreadyExists if a manifest already has the object."""
    if dry_run != "client":
        create(
            server, yaml_of(document).encode(), document["metadata"].get("namespace") or "", dry_run=dry_run
        )
    title = f"{_resource(document)}/{document['metadata']['name']}"
    if not output:
        print(f"{title} created{_SUFFIX[dry_run]}")
    elif output == "name":
        print(title)
    else:
        _print(document, output)


def create(server: Client, text: bytes, namespace: str, *, dry_run: str, file: str = "-") -> Json:
    """Write new objects, and return the node's answer. Raises ServerError; raises Exit after it has printed the errors
    of an invalid manifest."""
    query = {"file": file, "namespace": namespace, "create": "true"}
    query |= {} if dry_run == "none" else {"dryRun": "true"}
    try:
        answer = server.json("POST", "/kubelite/v1/apply", query=query, body=text, headers=YAML_BODY)
    except ServerError as error:
        if error.reason != "Invalid":
            raise
        say_invalid(error)
        raise Exit(1) from error
    return cast("Json", answer)


def _resource(document: Json) -> str:
    group, slash, _ = document["apiVersion"].partition("/")
    return f"{document['kind'].lower()}{f'.{group}' if slash else ''}"


def _print(document: Json, output: str) -> None:
    if output == "yaml":
        print(yaml_of(document), end="")
        return
    if output == "json":
        from kubelite.cli.output.tables import print_json

        print_json(document)
        return
    printer = by_template(output)
    if printer is None:
        raise CliError(f"error: -o {output} does not apply to a new object", code=2)
    printer(document, True)
