"""The revisions of a workload: of a Deployment its ReplicaSets, of a StatefulSet or DaemonSet its ControllerRevisions.

Sources: kubectl pkg/polymorphichelpers/history.go and rollback.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kubelite.cli.errors import CliError
from kubelite.cli.names import path_of, resource_type
from kubelite.cli.workloads.changing import REMOVE, Path
from kubelite.cli.workloads.owned import is_controlled

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.cli.workloads.changing import Target
    from kubelite.kube.json import Json

REVISION = "deployment.kubernetes.io/revision"
CAUSE = "kubernetes.io/change-cause"
HASH = "pod-template-hash"
WITH_HISTORY = ("Deployment", "DaemonSet", "StatefulSet")


class Revision(NamedTuple):
    """A template that the workload has had. `number`: 0 is unknown."""

    number: int
    cause: str
    template: Json


def revisions_of(server: Client, target: Target) -> list[Revision]:
    """Return the retained revisions, the oldest first. Raises CliError for a kind without revisions."""
    if target.type.kind not in WITH_HISTORY:
        raise CliError(f'error: no history viewer has been implemented for "{target.type.kind}"')
    kind = "ReplicaSet" if target.type.kind == "Deployment" else "ControllerRevision"
    items = server.get(path_of(resource_type(kind), target.namespace))["items"]
    uid = target.doc["metadata"]["uid"]
    mine = [doc for doc in items if is_controlled(doc, {uid})]
    found = [_of_set(doc) if kind == "ReplicaSet" else _of_revision(doc) for doc in mine]
    return sorted((one for one in found if one.number), key=lambda one: one.number)


def _of_set(doc: Json) -> Revision:
    annotations = doc["metadata"].get("annotations") or {}
    number = annotations.get(REVISION, "0")
    template = doc["spec"]["template"]
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH}
    template = {**template, "metadata": {**metadata, "labels": labels}}
    return Revision(int(number) if number.isdigit() else 0, annotations.get(CAUSE, ""), template)


def _of_revision(doc: Json) -> Revision:
    given = ((doc.get("data") or {}).get("spec") or {}).get("template") or {}
    template = {key: value for key, value in given.items() if key != "$patch"}
    return Revision(
        int(doc.get("revision") or 0), (doc["metadata"].get("annotations") or {}).get(CAUSE, ""), template
    )


def chosen(found: Sequence[Revision], number: int, title: str) -> Revision:
    """Return the revision of this number, 0: the one before the newest. Raises CliError."""
    if not found:
        raise CliError(f"error: no rollout history found for {title}")
    if number:
        by_number = {one.number: one for one in found}
        if number not in by_number:
            raise CliError(f"error: unable to find specified revision {number} in history")
        return by_number[number]
    if len(found) < 2:
        raise CliError(f"error: no last revision to roll back to for {title}")
    return found[-2]


def template_changes(target: Target, template: Json) -> list[tuple[Path, Any]]:
    """Return the changes of the manifest that make this template the workload's, as (path, value)."""
    from kubelite.sources.fields import REMOVED, differences

    found = differences(target.doc["spec"]["template"], template, ("spec", "template"))
    return [(list(path), REMOVE if value is REMOVED else value) for path, value in found]
