"""`kubelite wait`: wait for a condition of objects, with kubectl wait's syntax, messages and exit codes. Other commands
wait with these functions too."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubelite.cli.errors import CliError, Exit, ServerError, Unreachable
from kubelite.cli.groups import Command
from kubelite.cli.names import Type, duration, path_of, wanted
from kubelite.cli.options import (
    all_namespaces_option,
    client,
    complete_types,
    files_option,
    namespace_option,
    recursive_option,
    selector_option,
    socket_option,
)
from kubelite.cli.output.waiting import waiting
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

Met = Callable[["Json"], bool]

WEEK = 7 * 86400.0  # seconds; the meaning of a negative timeout, as in kubectl
LOOK_SECONDS = (
    0.5  # between two polls where a watch does not help: a label without objects, or a daemon that is down
)
RESTART_SECONDS = 60.0  # how long to wait for a daemon that stopped


class Target(NamedTuple):
    """An object to wait for. `uid` is empty if only the name is known."""

    type: Type
    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.type.qualified}/{self.name}"


def until_of(text: str, now: float) -> float:
    """Return when a `--timeout` ends, on the clock of `now` (seconds): `0` immediately, a negative one in a week.
    Raises CliError."""
    return now + (WEEK if text.startswith("-") and duration(text[1:]) else duration(text))


def states(
    server: Client, kind: Type, namespace: str, name: str, until: float | None
) -> Generator[Json | None, None, None]:
    """Yield an object's current state and each change until `until` (monotonic seconds; None: forever); None if the
    object does not exist. Continues after a restart of the daemon. A caller that stops early closes the iterator, which
    closes the connection. Raises CliError."""
    back_by: float | None = None
    while True:
        try:
            for document in _states(server, path_of(kind, namespace or None), name, until):
                back_by = None
                yield document
            return
        except Unreachable:
            now = time.monotonic()
            back_by = min(back_by or now + RESTART_SECONDS, until or math.inf)
            if now >= back_by:
                raise
            time.sleep(min(LOOK_SECONDS, back_by - now))


def _states(server: Client, path: str, name: str, until: float | None) -> Generator[Json | None, None, None]:
    selection = {"fieldSelector": f"metadata.name={name}"}
    while True:
        now = server.get(path, query=selection)
        yield next(iter(now["items"]), None)
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return
        query: Json = {**selection, "watch": "true", "resourceVersion": now["metadata"]["resourceVersion"]}
        if left is not None:
            query["timeoutSeconds"] = math.ceil(left)
        with contextlib.closing(server.open("GET", path, query=query)) as answer:
            for event in server.lines(answer):
                if event["type"] == "ERROR":  # the watch fell behind: list again and continue
                    break
                yield event["object"] if event["type"] != "DELETED" else None


def condition_of(text: str) -> Met:
    """Parse kubectl wait's --for into a predicate: `condition=Ready`, `condition=Ready=false`,
    `jsonpath={.status.phase}=Running`. Raises CliError."""
    form, _, rest = text.partition("=")
    if form == "condition" and rest:
        name, _, value = rest.partition("=")
        return lambda doc: _has(doc, name, value or "true")
    if form == "jsonpath" and rest:
        return _jsonpath(rest)
    raise CliError(f'error: unrecognized condition: "{text}"')


def _has(doc: Json, name: str, value: str) -> bool:
    """Whether the condition has the value. A condition of an older generation of the spec does not count."""
    status = doc.get("status") or {}
    found = (c for c in status.get("conditions") or () if c["type"].casefold() == name.casefold())
    condition = next(found, None)
    if condition is None or str(condition.get("status", "")).casefold() != value.casefold():
        return False
    seen = condition.get("observedGeneration") or status.get("observedGeneration")
    return not seen or seen >= (doc["metadata"].get("generation") or 0)


def _jsonpath(text: str) -> Met:
    from kubelite.cli.output.jsonpath import path, text_of

    parts = [part.replace("\0", "==") for part in text.replace("==", "\0").split("=")]
    if len(parts) > 2:
        raise CliError(
            "error: jsonpath wait format must be --for=jsonpath='{.status.readyReplicas}'=3 or "
            "--for=jsonpath='{.status.readyReplicas}'"
        )
    find, value = path(parts[0]), parts[1].strip("'\"") if len(parts) > 1 else None
    if value == "":
        raise CliError(
            "error: jsonpath wait has to have a value after equal sign, like "
            "--for=jsonpath='{.status.readyReplicas}'=3"
        )

    def met(doc: Json) -> bool:
        found = find(doc)
        if len(found) > 1:
            raise CliError("error: given jsonpath expression matches more than one value")
        if not found or value is None:
            return bool(found)
        if isinstance(found[0], dict | list):
            raise CliError("error: jsonpath leads to a nested object or list which is not supported")
        return text_of(found[0]).strip() == value.strip()

    return met


@click.command(
    "wait",
    cls=Command,
    examples="""
    # Wait until a pod is ready
    kubelite wait --for=condition=Ready pod/web

    # Wait up to two minutes until all pods with a label are ready
    kubelite wait --for=condition=Ready pods -l app=web --timeout=2m

    # Wait until a pod is deleted
    kubelite wait --for=delete pod/web

    # Wait until a pod has succeeded
    kubelite wait --for=jsonpath='{.status.phase}'=Succeeded pod/job

    # Wait until the pods of a manifest file are ready
    kubelite wait --for=condition=Ready -f web.yaml
    """,
)
@click.argument("what", nargs=-1, metavar="TYPE/NAME... | TYPE [NAME...]", shell_complete=complete_types)
@click.option(
    "--for",
    "condition",
    default="",
    metavar="create|delete|condition=NAME[=VALUE]|jsonpath=PATH[=VALUE]",
    help="Condition to wait for.",
)
@click.option(
    "--timeout",
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="Maximum time for all objects together; 0 checks once, a negative value waits for a week.",
)
@files_option
@recursive_option
@namespace_option
@all_namespaces_option
@selector_option
@click.option("--all", "everything", is_flag=True, help="Wait for all objects of the type in the namespace.")
@socket_option
@click.pass_context
def wait(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """Wait for a condition of objects.

    The exit code is 1 if the condition is not met in time. If a pod is replaced by one of the same name, the
    command waits for the new pod; with --for=delete it ends.
    """
    _Waiter(client(ctx), options).wait(what)


class _Waiter:
    def __init__(self, server: Client, options: Json) -> None:
        self.server, self.options = server, options
        self.namespace = None if options["all_namespaces"] else options["namespace"] or "default"
        now = time.monotonic()
        self.until = until_of(options["timeout"], now)
        self.once = self.until <= now
        self.word = options["condition"].lower()
        self.met = (
            (lambda _doc: True) if self.word in ("create", "delete") else condition_of(options["condition"])
        )
        self.failed = False

    def wait(self, what: Sequence[str]) -> None:
        targets = self._targets(what)
        while not targets and self.word == "create" and time.monotonic() < self.until:
            time.sleep(LOOK_SECONDS)
            targets = self._targets(what)
        if not targets and not self.failed and self.word != "delete":
            raise CliError("error: no matching resources found")
        for target in targets:
            try:
                with waiting(f"waiting for {target}: {self.options['condition']}"):
                    self._until(target)
                print(f"{target} condition met", flush=True)
            except CliError as error:
                self._failure(error)
        if self.failed:
            raise Exit(1)

    def _failure(self, error: CliError) -> None:
        print(error, file=sys.stderr)
        self.failed = True

    def _until(self, target: Target) -> None:
        """Wait for one object. Raises CliError if the condition is not met in time."""
        every = states(self.server, target.type, target.namespace, target.name, self.until)
        with contextlib.closing(every):
            for doc in every:
                if self.word == "delete":
                    if doc is None or doc["metadata"].get("uid") != target.uid:
                        return
                elif doc is not None and self.met(doc):
                    return
        words = "condition not met for" if self.once else "timed out waiting for the condition on"
        raise CliError(f"error: {words} {target.type.plural}/{target.name}")

    def _targets(self, what: Sequence[str]) -> list[Target]:
        """Return the selected objects in their current state. Report missing ones, unless the command waits for their
        deletion."""
        if self.options["files"]:
            if what:
                raise CliError(
                    "error: when paths are provided as input, you may not specify resource arguments", code=2
                )
            from kubelite.cli.objects.manifest_files import objects_of_files

            files, recursive = self.options["files"], self.options["recursive"]
            named = objects_of_files(
                self.server, files, recursive, self.options["namespace"] or "", "wait for"
            )
            return [found for one in named for found in self._named(*one)]
        targets: list[Target] = []
        for query in wanted(what):
            if query.type.plural == "manifests":
                raise CliError("error: manifests are files: wait for the pods in them, with -f FILE", code=2)
            if not query.names:
                targets += self._selected(query.type)
            for name in query.names:
                targets += self._named(query.type, self.namespace, name)
        return targets

    def _named(self, kind: Type, namespace: str | None, name: str) -> list[Target]:
        if namespace is None and kind.namespaced:
            raise CliError("error: a resource cannot be retrieved by name across all namespaces", code=2)
        where = (namespace or "") if kind.namespaced else ""
        if self.word == "create":
            return [Target(kind, where, name)]
        try:
            doc = self.server.get(path_of(kind, where or None, name))
        except ServerError as error:
            if error.reason != "NotFound":
                raise
            if self.word != "delete":
                self._failure(error)
            return []
        return [Target(kind, where, name, doc["metadata"].get("uid", ""))]

    def _selected(self, kind: Type) -> list[Target]:
        if not self.options["everything"] and not self.options["selector"]:
            raise CliError("error: resource(s) were provided, but no name was specified")
        query = {"labelSelector": self.options["selector"]} if self.options["selector"] else None
        items = self.server.get(path_of(kind, self.namespace), query=query)["items"]
        return [
            Target(kind, m.get("namespace", ""), m["name"], m.get("uid", ""))
            for m in (doc["metadata"] for doc in items)
        ]
