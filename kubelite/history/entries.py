"""Creates history entries from changes, and reconstructs past pods and workloads from entries.

An entry describes a change in words and has the data that undoes it. A change of an object affects few of its top-level
keys (`status`, seldom `metadata` or `spec`), so the entry has the old values of these keys. The entry of a deletion has
the whole object. To get the objects of a past moment, start from the present ones and undo the entries since then,
newest first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE, WORKLOADS
from kubelite.node.worker.pod_worker import Decided
from state.history import Entry
from state.records import Change, Record

RESTORED = WORKLOADS | {"Pod"}  # kinds whose past states are known
KINDS = RESTORED | {"ConfigMap", "Secret"}
DECISION = "Decision"
MOST_REPEATS = 10  # repetitions of an event that are recorded; after that, only powers of two

#: Counts in the status of a workload, and their words.
_COUNTS = (
    ("replicas", "pods"),
    ("currentNumberScheduled", "pods"),
    ("updatedReplicas", "updated"),
    ("updatedNumberScheduled", "updated"),
    ("readyReplicas", "ready"),
    ("numberReady", "ready"),
    ("active", "active"),
    ("succeeded", "succeeded"),
    ("failed", "failed"),
)

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def entry_of(old: Record | None, change: Change) -> Entry | None:
    """Return the entry for a change, or None if history does not record it (a state.batch.Historian)."""
    record = change.record
    if record.kind == "Event":
        return None if change.type == "DELETED" else event_entry(record.doc)
    if record.kind not in KINDS:
        return None
    before: Json | None = None
    if record.kind in RESTORED and old is not None:
        before = old.doc if change.type == "DELETED" else _replaced(old.doc, record.doc)
    words = "; ".join(_words(old, change))
    where = (record.kind, record.namespace, record.name, record.uid)
    return Entry(_now(), *where, change.type, "", words, _encode(before) if before is not None else "")


def event_entry(doc: Mapping[str, Any]) -> Entry | None:
    about, count = doc["involvedObject"], int(doc.get("count") or 1)
    if count > MOST_REPEATS and count & (count - 1):
        return None
    where = (about["kind"], about.get("namespace", ""), about["name"], about.get("uid", ""))
    message = f"{doc.get('message', '')}{f' (seen {count} times)' if count > 1 else ''}"
    return Entry(_now(), *where, str(doc.get("type")), str(doc.get("reason")), message)


def decision_entry(decided: Decided) -> Entry:
    about = decided.pod.metadata
    words = f"{decided.what}; because {decided.because}" if decided.because else decided.what
    return Entry(
        decided.at, "Pod", about.namespace or "", about.name or "", about.uid or "", DECISION, "", words
    )


def objects_at(kind: str, now: Iterable[Json], changes: Iterable[Entry]) -> list[Json]:
    """Return the objects of a kind at a past moment, sorted by namespace and name. `kind`: one of `RESTORED`; `now`:
    the present objects; `changes`: all changes since that moment, oldest first."""
    found = {doc["metadata"]["uid"]: doc for doc in now}
    for entry in reversed(list(changes)):
        if entry.kind != kind:
            continue
        if entry.what == "ADDED":
            found.pop(entry.uid, None)
        elif entry.what == "DELETED" and entry.before:
            found[entry.uid] = json.loads(entry.before)
        elif entry.before and entry.uid in found:
            old = json.loads(entry.before)
            doc = {**found[entry.uid], **old}
            found[entry.uid] = {key: value for key, value in doc.items() if value is not None}
    return sorted(
        found.values(), key=lambda doc: (doc["metadata"].get("namespace", ""), doc["metadata"]["name"])
    )


def _now() -> float:
    return round(time.time(), 6)  # the precision of the API: a time from an answer is exact in a request


def _replaced(old: Json, new: Json) -> Json:
    """Return the old values of the keys that changed; None for a key that did not exist."""
    return {
        key: old.get(key)
        for key in {**old, **new}
        if old.get(key) is not new.get(key)
        and (
            _bare(old.get(key)) != _bare(new.get(key)) if key == "metadata" else old.get(key) != new.get(key)
        )
    }


def _bare(metadata: Any) -> Json:
    return {key: value for key, value in (metadata or {}).items() if key != "resourceVersion"}


def _words(old: Record | None, change: Change) -> Iterator[str]:
    doc = change.record.doc
    if old is None:
        source = (doc["metadata"].get("annotations") or {}).get(SOURCE, "")
        yield f"created{f' from {source}' if source else ''}"
        return
    if change.type == "DELETED":
        yield "deleted"
        return
    before, after = old.doc["metadata"], doc["metadata"]
    if after.get("deletionTimestamp") != before.get("deletionTimestamp"):
        yield f"deletion within {after.get('deletionGracePeriodSeconds', 0)} s requested"
    if change.record.kind not in RESTORED:
        yield "changed"
        return
    if old.doc.get("spec") is not doc.get("spec") and old.doc.get("spec") != doc.get("spec"):
        from kubelite.sources.diff import changed_fields

        yield f"generation {after.get('generation', '')}: " + ", ".join(
            line.partition(": ")[0] for line in changed_fields(old.doc.get("spec"), doc.get("spec"), "spec")
        )
    words = status_words if change.record.kind == "Pod" else workload_words
    yield from words(old.doc.get("status") or {}, doc.get("status") or {})


def workload_words(old: Json, new: Json) -> Iterator[str]:
    """Describe the changes between two statuses of a workload: its counts, and its conditions."""
    for key, word in _COUNTS:
        before, after = _count(old.get(key)), _count(new.get(key))
        if before != after:
            yield f"{word} {before} → {after}"
    known = {one["type"]: one for one in old.get("conditions") or ()}
    for one in new.get("conditions") or ():
        was = known.get(one["type"], {})
        if (was.get("status"), was.get("reason")) != (one["status"], one.get("reason")):
            yield f"{one['type']} {one['status']}" + (f" ({one['reason']})" if one.get("reason") else "")


def _count(value: Any) -> int:
    """Return a count of a status; a CronJob lists its active Jobs."""
    return len(value) if isinstance(value, list) else int(value or 0)


def status_words(old: Json, new: Json) -> Iterator[str]:
    """Describe the changes between two statuses of a pod."""
    if old.get("phase") != new.get("phase"):
        yield f"phase {old.get('phase', 'Pending')} → {new.get('phase')}"
    if new.get("reason") and old.get("reason") != new.get("reason"):
        yield f"{new['reason']}{': ' + new['message'] if new.get('message') else ''}"
    if new.get("podIP") and old.get("podIP") != new.get("podIP"):
        yield f"address {new['podIP']}"
    for key in ("initContainerStatuses", "containerStatuses"):
        known = {found["name"]: found for found in old.get(key) or ()}
        for container in new.get(key) or ():
            yield from _container_words(known.get(container["name"], {}), container)
    for was, now, word in ((False, True, "ready"), (True, False, "not ready")):
        if (_ready(old), _ready(new)) == (was, now):
            yield word


def _container_words(old: Json, new: Json) -> Iterator[str]:
    if _state(old) != _state(new) or old.get("containerID") != new.get("containerID"):
        ended = f" after {_state({'state': new['lastState']})}" if new.get("lastState") else ""
        yield f"{new['name']} {_state(new)}{ended if 'running' in (new.get('state') or {}) else ''}"
    if new.get("restartCount") and old.get("restartCount") != new.get("restartCount"):
        yield f"{new['name']} restart count {new['restartCount']}"


def _state(status: Json) -> str:
    state = status.get("state") or {}
    if "running" in state:
        return "running"
    if ended := state.get("terminated"):
        return f"terminated ({ended.get('reason') or 'Unknown'}, exit code {ended.get('exitCode')})"
    waiting = (state.get("waiting") or {}).get("reason")
    return f"waiting ({waiting})" if waiting else "waiting"


def _ready(status: Json) -> bool:
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
