"""`apply`, `delete`, `diff`: manifests on their way into the directory, out of it, or only looked at."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.names import PODS, Type, path_of, resource_type, wanted
from kubelite.cli.objects.wait import WEEK, states, until_of
from kubelite.cli.options import (
    all_namespaces_option,
    client,
    complete_pods,
    files_option,
    namespace_option,
    recursive_option,
    selector_option,
    socket_option,
)
from kubelite.cli.transport.client import Client

Json = dict[str, Any]

SUFFIXES = (".yaml", ".yml", ".json")
YAML_BODY = {"Content-Type": "application/yaml"}


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


@click.command()
@click.argument("what", nargs=-1, metavar="[pod NAME... | pod/NAME...]", shell_complete=complete_pods)
@files_option
@recursive_option
@namespace_option
@all_namespaces_option
@selector_option
@click.option("--all", "everything", is_flag=True, help="Every pod of the namespace.")
@click.option("--grace-period", type=int, metavar="SECONDS", help="Instead of the pod's own grace period.")
@click.option("--now", is_flag=True, help="A grace period of one second.")
@click.option("--force", is_flag=True, help="Kill at once (with --grace-period=0, which it implies).")
@click.option("--wait/--no-wait", default=True, help="Return when it is gone [default], or at once.")
@click.option("--timeout", metavar="DURATION", help="Wait no longer than this.")
@click.option("--ignore-not-found", is_flag=True, help="What is not there is no error.")
@socket_option
@click.pass_context
def delete(ctx: click.Context, /, what: tuple[str, ...], files: tuple[str, ...], **options: Any) -> None:
    """Take manifests out of the directory (-f), or end a pod by name.

    A pod ended by name whose manifest still stands comes back, as a ReplicaSet's would; the command says which file
    brings it back.
    """
    if bool(what) == bool(files):
        raise click.UsageError("say what to delete: either -f FILE, or pod NAME")
    server = client(ctx)
    deleter = _Deleter(server, options)
    if files:
        deleter.files(read_manifests(files, options["recursive"], "delete"))
    else:
        deleter.pods(what)
    deleter.wait()
    if deleter.failed:
        raise Exit(1)


class _Deleter:
    def __init__(self, server: Client, options: Json) -> None:
        self.server, self.options = server, options
        self.namespace = options["namespace"] or "default"
        self.waiting: list[tuple[str, str, str]] = []  # namespace, name, uid
        self.failed = False

    def files(self, read: Iterator[tuple[str, bytes]]) -> None:
        for file, text in read:
            query = {"file": file, "namespace": self.options["namespace"] or ""}
            before = {
                (d["metadata"]["namespace"], d["metadata"]["name"]): d["metadata"]["uid"] for d in self._all()
            }
            answer = self.server.json(
                "POST", "/kubelite/v1/remove", query=query, body=text, headers=YAML_BODY
            )
            for entry in answer["objects"]:
                self._removed(entry, before.get((entry["namespace"], entry["name"])))

    def _all(self) -> list[Json]:
        found: list[Json] = self.server.get("/api/v1/pods")["items"]
        return found

    def _removed(self, entry: Json, uid: str | None) -> None:
        if entry["result"] == "missing":
            self._missing(f'{entry["kind"].lower()}s "{entry["name"]}" not found')
            return
        where = f" from {entry['namespace']} namespace" if entry["namespace"] else ""
        print(f'{entry["kind"].lower()} "{entry["name"]}" deleted{where}', flush=True)
        if entry["kind"] == "Pod" and uid:
            self.waiting.append((entry["namespace"], entry["name"], uid))

    def _missing(self, words: str) -> None:
        if not self.options["ignore_not_found"]:
            print(f"Error from server (NotFound): {words}", file=sys.stderr)
            self.failed = True

    def pods(self, what: Sequence[str]) -> None:
        for query in wanted(what):
            if query.type is not PODS:
                self._no_such_delete(query.type)
            if query.names and self.options["all_namespaces"]:
                raise CliError("error: a resource cannot be retrieved by name across all namespaces", code=2)
            for namespace, name in [(self.namespace, name) for name in query.names] or self._selected():
                self._delete(namespace, name)

    def _no_such_delete(self, kind: Type) -> None:
        raise CliError(f"error: {kind.plural} are deleted with their manifest: kubelite delete -f FILE")

    def _selected(self) -> list[tuple[str, str]]:
        """Namespaces and names."""
        if not self.options["everything"] and not self.options["selector"]:
            raise CliError("error: resource(s) were provided, but no name was specified", code=2)
        query = {"labelSelector": self.options["selector"]} if self.options["selector"] else None
        where = None if self.options["all_namespaces"] else self.namespace
        items = self.server.get(path_of(PODS, where), query=query)["items"]
        if not items:
            print("No resources found")
        return [(doc["metadata"]["namespace"], doc["metadata"]["name"]) for doc in items]

    def _grace(self) -> Json:
        if self.options["force"]:
            return {"gracePeriodSeconds": 0}
        if self.options["now"]:
            return {"gracePeriodSeconds": 1}
        grace = self.options["grace_period"]
        return {} if grace is None or grace < 0 else {"gracePeriodSeconds": grace}

    def _delete(self, namespace: str, name: str) -> None:
        try:
            pod = self.server.json("DELETE", path_of(PODS, namespace, name), query=self._grace())
        except ServerError as error:
            if error.reason != "NotFound":
                raise
            self._missing(f'pods "{name}" not found')
            return
        forced = " force" if self.options["force"] else ""
        print(f'pod "{name}"{forced} deleted from {namespace} namespace', flush=True)
        self.waiting.append((namespace, name, pod["metadata"]["uid"]))

    def wait(self) -> None:
        """Until none of them is left; a pod of the same name with another uid is another pod."""
        if not self.options["wait"]:
            return
        now = time.monotonic()
        # kubectl's: nothing, and 0, is as long as it takes
        until = until_of(self.options["timeout"] or "0", now)
        for namespace, name, uid in self.waiting:
            self._gone(namespace, name, uid, until if until > now else now + WEEK)

    def _gone(self, namespace: str, name: str, uid: str, until: float) -> None:
        with contextlib.closing(states(self.server, PODS, namespace, name, until)) as every:
            if any(doc is None or doc["metadata"]["uid"] != uid for doc in every):
                return
        raise CliError(f"error: timed out waiting for pod {name} to be gone")


@click.command()
@files_option
@recursive_option
@namespace_option
@socket_option
@click.pass_context
def diff(ctx: click.Context, files: tuple[str, ...], recursive: bool, namespace: str | None) -> None:
    """Say in words what applying manifests would do, before it does.

    Exit code 0: nothing would change, 1: something would, 2: an error.
    """
    server, differs = client(ctx), False
    try:
        for file, text in read_manifests(files, recursive, "diff"):
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
    """Whether it is a difference."""
    if entry["change"] == "unchanged":
        return False
    print(f"{entry['object'].replace('/default/', '/')}: {entry['change']}")
    for word in entry.get("words", []):
        print(f"  - {word}")
    for field in entry.get("fields", []):
        print(f"      {field}")
    return True


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


def _title(entry: Json) -> str:
    return f"{entry['kind'].lower()}/{entry['name']}"
