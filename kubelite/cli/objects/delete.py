"""`kubelite delete`: remove manifests from the manifest directory, or delete pods, workloads, … by name."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.names import (
    AUTOSCALERS,
    NAMESPACES,
    PODS,
    SERVICES,
    WORKLOADS,
    Type,
    path_of,
    qualified,
    resource_type,
    wanted,
)
from kubelite.cli.objects.manifest_files import YAML_BODY, kustomize_option, read_manifests
from kubelite.cli.objects.wait import WEEK, states, until_of
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
from kubelite.cli.transport.client import KEEP, Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    cls=Command,
    examples="""
    # Delete the objects of a manifest file from the manifest directory
    kubelite delete -f web.yaml

    # Delete a pod; if the manifest directory has it, it is created again
    kubelite delete pod web

    # Delete all pods with a label
    kubelite delete pods -l app=web

    # Kill a pod immediately
    kubelite delete pod web --force

    # Delete a namespace with everything in it, also from the manifest directory
    kubelite delete namespace shop

    # Run a job again: it is created again from its manifest
    kubelite delete job backup
    """,
)
@click.argument("what", nargs=-1, metavar="[TYPE NAME... | TYPE/NAME...]", shell_complete=complete_types)
@files_option
@kustomize_option
@recursive_option
@namespace_option
@all_namespaces_option
@selector_option
@click.option("--all", "everything", is_flag=True, help="Delete all objects of the type in the namespace.")
@click.option("--grace-period", type=int, metavar="SECONDS", help="Grace period, instead of that of the pod.")
@click.option(
    "--cascade",
    type=click.Choice(("background", "foreground", "orphan")),
    default="background",
    help="What happens to what a workload owns: it is deleted after it, before it, or stays. [default: background]",
)
@click.option("--now", is_flag=True, help="Use a grace period of one second.")
@click.option("--force", is_flag=True, help="Kill the containers immediately; implies --grace-period=0.")
@click.option("--wait/--no-wait", default=True, help="Wait until the objects are gone. [default: wait]")
@click.option("--timeout", metavar="DURATION", help="Maximum time to wait.")
@click.option("--ignore-not-found", is_flag=True, help="Do not fail if an object is missing.")
@socket_option
@click.pass_context
def delete(ctx: click.Context, /, what: tuple[str, ...], files: tuple[str, ...], **options: Any) -> None:
    """Delete manifests from the directory, or pods, workloads and claims by name.

    If the manifest of an object that is deleted by name remains in the directory, the object is created again. So is a
    pod that belongs to a workload. The command names the file, or the workload. The manifests that `kubelite run` and
    `kubelite create` wrote for pods and workloads are deleted with them. A namespace is deleted with everything in it,
    and all its documents are removed from the manifests.
    """
    kustomize = options.pop("kustomize")
    if bool(what) == bool(files or kustomize):
        raise click.UsageError("specify what to delete: either -f FILE, -k DIR, or TYPE NAME")
    server = client(ctx)
    deleter = _Deleter(server, options)
    if files or kustomize:
        deleter.files(read_manifests(files, options["recursive"], "delete", kustomize))
    else:
        deleter.objects(what)
    deleter.wait()
    if deleter.failed:
        raise Exit(1)


class _Deleter:
    def __init__(self, server: Client, options: Json) -> None:
        self.server, self.options = server, options
        self.namespace = options["namespace"] or "default"
        self.waiting: list[tuple[Type, str, str, str]] = []  # namespace, name, uid
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
            self._missing(f'{resource_type(entry["kind"]).plural} "{entry["name"]}" not found')
            return
        where = f" from {entry['namespace']} namespace" if entry["namespace"] else ""
        print(f'{qualified(entry["kind"])} "{entry["name"]}" deleted{where}', flush=True)
        if entry["kind"] == "Pod" and uid:
            self._shorten(entry["namespace"], entry["name"], uid)
            self.waiting.append((PODS, entry["namespace"], entry["name"], uid))

    def _shorten(self, namespace: str, name: str, uid: str) -> None:
        """Apply the options' grace period to a pod whose manifest was removed. Do nothing if the pod is already gone,
        or has another uid because another manifest defines it."""
        if not (grace := self._grace()):
            return
        grace |= KEEP
        body = json.dumps({"preconditions": {"uid": uid}}).encode()
        headers = {"Content-Type": "application/json"}
        try:
            self.server.json(
                "DELETE", path_of(PODS, namespace, name), query=grace, body=body, headers=headers
            )
        except ServerError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise

    def _missing(self, words: str) -> None:
        if not self.options["ignore_not_found"]:
            print(f"Error from server (NotFound): {words}", file=sys.stderr)
            self.failed = True

    def objects(self, what: Sequence[str]) -> None:
        for query in wanted(what):
            kind = query.type
            if kind not in (PODS, *WORKLOADS, SERVICES, NAMESPACES) and not self._are_unmanaged(
                kind, query.names
            ):
                if kind is AUTOSCALERS and query.names and self._are_command_made(kind, query.names):
                    continue
                self._refuse(kind, query.names)
            if query.names and kind.namespaced and self.options["all_namespaces"]:
                raise CliError("error: a resource cannot be retrieved by name across all namespaces", code=2)
            here = self.namespace if kind.namespaced else ""
            for namespace, name in [(here, name) for name in query.names] or self._selected(kind):
                self._delete(kind, namespace, name)

    def _are_command_made(self, kind: Type, names: Sequence[str]) -> bool:
        """Delete the objects whose manifests a command wrote. Return False at the first other one."""
        return all(self._command_made(kind, self.namespace, name) for name in names)

    def _are_unmanaged(self, kind: Type, names: Sequence[str]) -> bool:
        """Whether these are claims that no manifest defines: those that a StatefulSet left. The daemon refuses others,
        and one that is missing is reported like a missing pod."""
        if kind.plural != "persistentvolumeclaims":
            return False
        from kubelite.kube.objects import SOURCE

        docs = self.server.get(path_of(kind, self.namespace))["items"]
        defined = {
            doc["metadata"]["name"] for doc in docs if (doc["metadata"].get("annotations") or {}).get(SOURCE)
        }
        return not names or not defined.intersection(names)

    def _refuse(self, kind: Type, names: Sequence[str]) -> NoReturn:
        """Raise a CliError that says how to delete an object that is not a pod, with its manifest if that is known."""
        from kubelite.kube.objects import SOURCE

        file = "FILE"
        if len(names) == 1 and kind.plural not in _OTHERS:
            with contextlib.suppress(ServerError):
                doc = self.server.get(path_of(kind, self.namespace if kind.namespaced else None, names[0]))
                file = (doc["metadata"].get("annotations") or {}).get(SOURCE, "")
        raise CliError(_no_such_delete(kind, names, file))

    def _selected(self, kind: Type) -> list[tuple[str, str]]:
        """Return (namespace, name) of each selected object."""
        if not self.options["everything"] and not self.options["selector"]:
            raise CliError("error: resource(s) were provided, but no name was specified", code=2)
        query = {"labelSelector": self.options["selector"]} if self.options["selector"] else None
        where = None if self.options["all_namespaces"] or not kind.namespaced else self.namespace
        items = self.server.get(path_of(kind, where), query=query)["items"]
        if not items:
            print("No resources found")
        return [(doc["metadata"].get("namespace", ""), doc["metadata"]["name"]) for doc in items]

    def _grace(self) -> Json:
        if self.options["force"]:
            return {"gracePeriodSeconds": 0}
        if self.options["now"]:
            return {"gracePeriodSeconds": 1}
        grace = self.options["grace_period"]
        return {} if grace is None or grace < 0 else {"gracePeriodSeconds": grace}

    def _delete(self, kind: Type, namespace: str, name: str) -> None:
        if kind in (PODS, *WORKLOADS, SERVICES) and self._command_made(kind, namespace, name):
            return
        options = (
            self._grace() if kind is PODS else {"propagationPolicy": self.options["cascade"].capitalize()}
        )
        try:
            doc = self.server.json("DELETE", path_of(kind, namespace, name), query={**options, **KEEP})
        except ServerError as error:
            if error.reason != "NotFound":
                raise
            self._missing(f'{kind.plural} "{name}" not found')
            return
        forced = " force" if self.options["force"] else ""
        where = f" from {namespace} namespace" if kind.namespaced else ""
        print(f'{kind.qualified} "{name}"{forced} deleted{where}', flush=True)
        self.waiting.append((kind, namespace, name, doc["metadata"]["uid"]))

    def _command_made(self, kind: Type, namespace: str, name: str) -> bool:
        """Delete an object with the manifest that `kubelite run` or `create` wrote for it. Return False for another
        object, and for one whose pods shall stay."""
        from kubelite.kube.objects import CREATED_BY, SOURCE

        if kind is not PODS and self.options["cascade"] == "orphan":
            return False
        try:
            doc = self.server.get(path_of(kind, namespace, name))
        except ServerError as error:
            if error.reason != "NotFound":
                raise
            return False
        annotations = doc["metadata"].get("annotations") or {}
        if annotations.get(CREATED_BY) not in ("run", "create") or not annotations.get(SOURCE):
            return False
        head = {"apiVersion": doc["apiVersion"], "kind": kind.kind}
        text = {**head, "metadata": {"name": name, "namespace": namespace}}
        body = json.dumps(text).encode()
        answer = self.server.json("POST", "/kubelite/v1/remove", body=body, headers=YAML_BODY)
        (entry,) = answer["objects"]
        if entry["result"] == "missing":  # only its annotation says that a manifest defines it
            return False
        self._removed(entry, doc["metadata"]["uid"])
        if kind is not PODS:
            self.waiting.append((kind, namespace, name, doc["metadata"]["uid"]))
        return True

    def wait(self) -> None:
        """Wait until the deleted objects are gone. One with the same name and another uid is another object."""
        if not self.options["wait"]:
            return
        now = time.monotonic()
        # as in kubectl: without a timeout, or with 0, wait without limit
        until = until_of(self.options["timeout"] or "0", now)
        with waiting("") as line:
            for kind, namespace, name, uid in self.waiting:
                line.now(f'waiting until {kind.singular} "{name}" is gone')
                self._gone(kind, namespace, name, uid, until if until > now else now + WEEK)

    def _gone(self, kind: Type, namespace: str, name: str, uid: str, until: float) -> None:
        with contextlib.closing(states(self.server, kind, namespace, name, until)) as every:
            if any(doc is None or doc["metadata"]["uid"] != uid for doc in every):
                return
        raise CliError(f"error: timed out waiting for the deletion of {kind.singular} {name}")


_OTHERS = {
    "nodes": "the node is this machine: kubelite reset ends its pods, kubelite drain evicts them for a while",
    "events": "events expire by themselves",
    "manifests": "a manifest is a file: kubelite delete -f FILE, or remove it from the manifest directory",
}


def _no_such_delete(kind: Type, names: Sequence[str], file: str) -> str:
    """Return the error message for a type that is not deleted by name. It names the alternative. `file`: the manifest
    of the object; "" if no manifest defines it."""
    if not file:
        return f'error: {kind.singular} "{names[0]}" is in no manifest: kubelite creates it by itself'
    otherwise = f"{kind.plural} are deleted with their manifest: kubelite delete -f {file}"
    return f"error: {_OTHERS.get(kind.plural, otherwise)}"
