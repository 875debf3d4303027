"""Deletion with a propagation policy: background, foreground or orphan.

A deletion in the foreground, or one that leaves the dependents, takes more than one write. It is recorded first, as a
deletionTimestamp and a finalizer, and finished by `kubelite.controllers.garbage`, also after a restart. Sources:
Kubernetes apiserver pkg/registry/generic/registry/store.go (deletionFinalizersForGarbageCollection).
"""

from __future__ import annotations

from kubelite.kube.jobs import without_finalizer
from kubelite.kube.json import Json
from kubelite.kube.objects import mark_deleting
from kubelite.kube.times import rfc3339
from kubelite.node.storage.protection import FINALIZERS, terminating
from state.store import Record, Store

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


async def delete(
    store: Store,
    uid: str,
    *,
    now: float,
    orphan: bool = False,
    foreground: bool = False,
    finalizer: str = "",
) -> Record | None:
    """Delete an object, or begin its deletion. Return its record, None if it does not exist. `now`: Unix seconds.

    A pod is terminated gracefully, and loses `finalizer` in the same write. A claim in use stays until it is not used
    any more. Any other object is removed at once, and what it owns after it; unless `orphan` removes the references to
    it before, or `foreground` the dependents themselves."""
    record = store.get_uid(uid)
    if record is None:
        return None
    if record.kind == "Pod":
        return await store.modify(uid, lambda doc: terminated(doc, finalizer, now), durable=False)
    if record.kind in FINALIZERS:
        return await store.modify(uid, lambda doc: terminating(doc, record.kind, now))
    if orphan or foreground:
        finalizer = ORPHAN if orphan else FOREGROUND
        return await store.modify(uid, lambda doc: begun(doc, finalizer, now))
    return await store.delete(uid)


def terminated(pod: Json, finalizer: str, now: float) -> Json | None:
    """Return a pod that is terminating, without a finalizer. None if nothing changes."""
    released = without_finalizer(pod, finalizer) if finalizer else pod
    return mark_deleting(released, now=now) or (None if released is pod else released)


def begun(doc: Json, finalizer: str, now: float) -> Json:
    """Return an object whose deletion has begun."""
    metadata = doc["metadata"]
    others = [one for one in metadata.get("finalizers") or () if one not in (FOREGROUND, ORPHAN)]
    return {
        **doc,
        "metadata": {
            **metadata,
            "deletionTimestamp": metadata.get("deletionTimestamp") or rfc3339(now),
            "deletionGracePeriodSeconds": 0,
            "finalizers": [*others, finalizer],
        },
    }
