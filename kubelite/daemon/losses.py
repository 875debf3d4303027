"""Describe what `kubelite reset` would terminate and permanently remove, for the question before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubelite.kube.jobs import finished_condition
from kubelite.kube.json import Json
from kubelite.kube.objects import source_of
from kubelite.kube.times import rfc3339
from kubelite.node.model.node_facts import own_labels
from kubelite.settings import Settings
from runtime.shim.client import read_state, shim_alive
from runtime.shim.protocol import SandboxRecord
from state.database import DatabaseError, Summary, summary
from state.records import Record

GRACE = 30.0  # seconds for a pod that sets no grace period or has no record, Kubernetes' default
NAMES = 8  # pods that the text names; it counts the others


def grace_of(doc: Json) -> float:
    """Return the grace period in a pod's document, in seconds."""
    wanted = (doc.get("spec") or {}).get("terminationGracePeriodSeconds")
    return GRACE if wanted is None else float(wanted)


def name_of(sandbox: SandboxRecord) -> str:
    """Return the namespace/name of a running pod, or its uid if its sandbox has no name."""
    where = sandbox.annotations
    return f"{where.get('namespace', '')}/{where['name']}" if where.get("name") else f"pod {sandbox.uid}"


@dataclass(frozen=True, slots=True)
class Losses:
    """`running`: namespace/name of each running pod → its grace period in seconds. `removed`: phrases that continue
    "This removes for good:". `manifests`: the manifest directories of the node, which are retained."""

    running: Mapping[str, float]
    removed: tuple[str, ...]
    manifests: tuple[str, ...]


def find_losses(settings: Settings) -> Losses:
    """Collect the losses of a reset. Nothing is changed, and the daemon may be running or stopped."""
    names = dict(_running(f"{settings.run_dir}/shims"))
    unreadable = ""
    try:
        found = summary(f"{settings.root}/state.db")
    except (OSError, DatabaseError) as error:
        found, unreadable = Summary(), f"the state file, which cannot be read: {error}"
    docs = {record.uid: record.doc for record in found.objects}
    running = {name: grace_of(docs.get(uid, {})) for uid, name in names.items()}
    pods = {r.uid for r in found.objects if r.kind == "Pod"} | names.keys()
    removed = filter(None, (*_words(found, len(pods), settings.node_name), unreadable))
    # The daemon may have got another directory by a flag, which reset does not have.
    manifests = sorted(r.name for r in found.objects if r.kind == "ManifestDirectory") or [settings.manifests]
    return Losses(running, tuple(removed), tuple(manifests))


def _running(shims: str) -> Iterable[tuple[str, str]]:
    """Yield the uid and namespace/name of each running pod."""
    for uid in sorted(os.listdir(shims)) if os.path.isdir(shims) else ():
        record = read_state(f"{shims}/{uid}")
        if record is not None and shim_alive(record):
            yield uid, name_of(record)


def _words(found: Summary, pods: int, node_name: str) -> Iterable[str]:
    """Yield one phrase for each kind of loss."""
    if pods:
        what = "logs, events, restart counts, emptyDir volumes and what containers wrote to their own file system"
        yield f"of {pods} pod{'s' * (pods != 1)}: {what}"
    if found.entries or found.revisions:
        what = f"{found.entries} entries, {found.revisions} versions of manifests"
        since = f" since {rfc3339(found.since)}" if found.since else ""
        yield f"the history{since}: {what} (kubelite history, kubelite rollout undo)"
    if jobs := sorted(f"{r.namespace}/{r.name}" for r in found.objects if _has_run(r)):
        more = f" and {len(jobs) - NAMES} more" if len(jobs) > NAMES else ""
        which, again = ("job", "it runs") if len(jobs) == 1 else ("jobs", "they run")
        names = ", ".join(jobs[:NAMES])
        yield f"that the {which} {names}{more} finished: {again} again when the daemon starts"
    for record in found.objects:
        if record.kind == "Node":
            yield from _node_words(record.doc, node_name)


def _has_run(record: Record) -> bool:
    """Whether a record is of a finished Job that its manifest would create, and so run, again."""
    return record.kind == "Job" and bool(source_of(record)) and finished_condition(record.doc) is not None


def _node_words(doc: Mapping[str, Any], node_name: str) -> Iterable[str]:
    metadata, spec = doc.get("metadata") or {}, doc.get("spec") or {}
    own = own_labels(node_name)
    labels = [f"{k}={v}" for k, v in sorted((metadata.get("labels") or {}).items()) if k not in own]
    if labels:
        yield f"labels of the node: {', '.join(labels)}"
    if annotations := sorted(metadata.get("annotations") or {}):
        yield f"annotations of the node: {', '.join(annotations)}"
    taints = [_taint(taint) for taint in spec.get("taints") or ()]
    if taints:
        yield f"taints of the node: {', '.join(taints)}"
    if spec.get("unschedulable"):
        yield "that the node is cordoned"


def _taint(taint: Mapping[str, Any]) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def described(losses: Losses, *, now: bool, timeout: float | None) -> list[str]:
    """Return the lines that are shown before the question."""
    lines = []
    if losses.running:
        names = sorted(losses.running)
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        longest = max(losses.running.values())
        if timeout is not None:
            longest = min(longest, timeout)
        how = "at once, without stop signal" if now else f"gracefully, within {longest:.0f} s"
        lines.append(f"This ends {how}: {', '.join(names[:NAMES])}{more}")
    if losses.removed:
        lines += ["This removes for good:", *(f"  {one}" for one in losses.removed)]
        where = ", ".join(losses.manifests)
        lines.append(f"This keeps: images, manifests ({where}), the data of volumes and claims")
    return lines
