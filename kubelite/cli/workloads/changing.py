"""Change fields of an object in its manifest: for `scale`, `set`, `label`, `annotate`, `patch` and `rollout`.

Which objects the arguments name is decided here, too."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.names import Type, path_of, wanted
from kubelite.cli.options import (
    files_option,
    namespace_option,
    recursive_option,
    selector_option,
    socket_option,
)
from kubelite.cli.transport.client import JSON_BODY, Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

F = TypeVar("F", bound=Callable[..., Any])
Path = Sequence[str | int]
REMOVE = object()  # the value of a field that is removed

_dry_run_option = click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    is_flag=False,
    flag_value="server",
    metavar="[=client|server|none]",
    help="Only validate the change; client and server are the same.",
)
_all_option = click.option("--all", "everything", is_flag=True, help="Select all objects of the types.")


def target_options(command: F) -> F:
    """Add the options that select the objects of `targets`, --dry-run and --socket."""
    selecting = (files_option, recursive_option, namespace_option, selector_option, _all_option)
    for option in reversed((*selecting, _dry_run_option, socket_option)):
        command = option(command)
    return command


class Target(NamedTuple):
    """An object that a command changes."""

    type: Type
    doc: Json

    @property
    def name(self) -> str:
        return str(self.doc["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.doc["metadata"].get("namespace") or "")

    @property
    def resource(self) -> str:
        """Return the type as kubectl's errors name it: `deployments.apps`."""
        _, dot, group = self.type.qualified.partition(".")
        return self.type.plural + dot + group

    def __str__(self) -> str:
        return f"{self.type.qualified}/{self.name}"


def targets(server: Client, what: Sequence[str], options: Json, verb: str) -> Iterator[Target]:
    """Yield the objects that are named or selected: `deployment web`, `deploy/web rs/db`, -l, --all, -f. Raises
    CliError."""
    namespace = options.get("namespace") or "default"
    if options.get("files"):
        from kubelite.cli.objects.manifest_files import objects_of_files

        if what:
            raise CliError("error: name objects, or files with -f, not both", code=2)
        given, recursive = options.get("namespace") or "", options.get("recursive", False)
        for kind, where, name in objects_of_files(server, options["files"], recursive, given, verb):
            yield Target(kind, server.get(path_of(kind, where, name)))
        return
    if not what:
        raise CliError("error: name an object: TYPE/NAME, or a file with -f", code=2)
    for query in wanted(what):
        for name in query.names:
            yield Target(query.type, server.get(path_of(query.type, namespace, name)))
        if not query.names:
            yield from _selected(server, query.type, namespace, options)


def _selected(server: Client, kind: Type, namespace: str, options: Json) -> Iterator[Target]:
    if not options.get("everything") and not options.get("selector"):
        raise CliError("error: resource(s) were provided, but no name was specified", code=2)
    query = {"labelSelector": options["selector"]} if options.get("selector") else None
    for doc in server.get(path_of(kind, namespace), query=query)["items"]:
        yield Target(kind, doc)


def change(server: Client, target: Target, changes: Sequence[tuple[Path, Any]], *, dry_run: str) -> Json:
    """Set fields in the object's manifest, or remove them (`REMOVE`). Return the node's answer; that to a dry
    run has the change of the file in "diff".

    Raises ServerError, for example if the file cannot be written; raises Exit after it has printed the errors of an
    invalid manifest."""
    listed = [
        {"path": list(path), **({"remove": True} if value is REMOVE else {"value": value})}
        for path, value in changes
    ]
    return _sent(server, target, {"changes": listed}, dry_run=dry_run)


def patch(server: Client, target: Target, wanted: Any, *, kind: str = "strategic", dry_run: str) -> bool:
    """Apply a patch (`kind`: strategic, merge or json) to the object's manifest. Return whether it changes something.
    Raises as `change`."""
    answer = _sent(server, target, {"patch": wanted, "patchType": kind}, dry_run=dry_run)
    return any(entry["result"] != "unchanged" for entry in answer["objects"])


def _sent(server: Client, target: Target, wanted: Json, *, dry_run: str) -> Json:
    wish = {"kind": target.type.kind, "namespace": target.namespace, "name": target.name, **wanted}
    query = {} if dry_run == "none" else {"dryRun": "true"}
    try:
        answer: Json = server.json(
            "POST", "/kubelite/v1/change", query=query, body=json.dumps(wish).encode(), headers=JSON_BODY
        )
    except ServerError as error:
        if error.reason != "Invalid":
            raise
        from kubelite.cli.objects.manifest_files import say_invalid

        say_invalid(error)
        raise Exit(1) from error
    return answer


class Each:
    """Runs a step for each object, and reports the errors of all: `with each: …`, then `each.finish()`."""

    def __init__(self) -> None:
        self.failed = False

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, CliError):
            return False
        print(error, file=sys.stderr)
        self.failed = True
        return True

    def finish(self) -> None:
        if self.failed:
            raise Exit(1)


def suffix(dry_run: str) -> str:
    return {"none": "", "client": " (dry run)", "server": " (server dry run)"}[dry_run]
