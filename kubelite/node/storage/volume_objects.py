"""Maintains the PersistentVolume objects: their claim, their phase, and the reclaim of released ones. The binding is
decided in node/scheduling/volume_binding.py; claims.py calls this module and holds the lock.

Volumes from manifests are bound and reclaimed here. A volume that claims.py provisions has an object for information
only; it stays (Released) as long as the directory of its deleted claim is retained.

The reclaim policy of a volume from a manifest affects data only as in Kubernetes: `Recycle` empties a hostPath, and
`Delete` removes one below /tmp. In any other case the volume becomes Failed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kubelite.kube.events import EventRecorder
from kubelite.kube.objects import reference, source_of
from kubelite.kube.times import rfc3339
from kubelite.node.model.claim_names import KIND as CLAIM
from kubelite.node.model.claim_names import own_volume
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.node_facts import NodeState
from kubelite.node.scheduling.volume_binding import (
    CLASS_KIND,
    KIND,
    PROVISIONED_BY,
    Shelf,
    bound_claim,
    built_in_class,
    by_name,
    claimed_volume,
    in_phase,
    made_volume,
    phase_of,
)
from kubelite.node.storage.protection import protected
from runtime.identity import new_uid
from runtime.removal import remove_tree
from state.store import Record, Store

log = logging.getLogger(__name__)
Key = tuple[str, str]  # namespace and name of a claim


class Volumes:
    """`node`: the facts that nodeAffinity is matched against."""

    def __init__(
        self,
        store: Store,
        config: NodeConfig,
        events: EventRecorder,
        node: NodeState,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._config, self._events, self._node, self._clock = store, config, events, node, clock

    def shelf(self) -> Shelf:
        volumes = (record.doc for record in self._store.list(KIND) if source_of(record))
        classes = by_name(record.doc for record in self._store.list(CLASS_KIND))
        return Shelf(self._node.facts(), by_name(volumes), classes)

    async def keep_class(self, policy: str) -> None:
        """Store the class of the volumes that the node provisions. A manifest of that name takes precedence."""
        wanted = built_in_class(policy)
        record = self._store.get(CLASS_KIND, "", wanted["metadata"]["name"])
        if record is None:
            own = {"uid": new_uid(), "creationTimestamp": rfc3339(self._clock())}
            doc = {**wanted, "metadata": {**wanted["metadata"], **own}}
            await self._store.create(CLASS_KIND, doc, durable=False)
        elif not source_of(record) and record.doc.get("reclaimPolicy") != policy:
            await self._store.update(CLASS_KIND, {**wanted, "metadata": record.metadata})

    async def hold(self, name: str, claim: Record) -> None:
        """Bind a volume and a claim to each other: first the volume, so that a Bound claim always has one. Raises
        StoreError."""
        record = self._store.get(KIND, "", name)
        if record is None:
            return
        wanted = claimed_volume(record.doc, claim.doc)
        if wanted != record.doc:
            await self._store.update(KIND, {**wanted, "status": record.doc.get("status", {})})
        classes = by_name(one.doc for one in self._store.list(CLASS_KIND))
        doc = bound_claim(claim.doc, wanted, classes)
        if doc != claim.doc:
            await self._store.modify(claim.uid, lambda old: bound_claim(old, wanted, classes))

    async def made(self, claim: Record, path: str, policy: str) -> None:
        """Store the object of the volume that was provisioned for a claim. Raises StoreError."""
        wanted = made_volume(claim.doc, path, policy)
        name = own_volume(claim.doc)
        record = self._store.get(KIND, "", name)
        if record is None:
            for other in self._store.list(KIND):  # left by an earlier claim of this name
                ref = other.doc["spec"].get("claimRef") or {}
                if _is_made(other) and _key(ref) == (claim.namespace, claim.name):
                    await self._store.delete(other.uid)
            own = {"uid": new_uid(), "creationTimestamp": rfc3339(self._clock())}
            doc = {**wanted, "metadata": protected(KIND, {**wanted["metadata"], **own})}
            status = {"phase": "Bound", "lastPhaseTransitionTime": own["creationTimestamp"]}
            await self._store.create(KIND, {**doc, "status": status}, durable=False)
        elif record.doc["spec"] != wanted["spec"]:
            await self._store.update(KIND, {**record.doc, "spec": wanted["spec"]})

    async def settle(self, used: Iterable[Key], left: Mapping[Key, Any]) -> None:
        """Update the phase of every volume. `used`: the claims that pods mount; `left`: the claims with a directory on
        disk. Raises StoreError."""
        mounted = set(used)
        for record in self._store.list(KIND):
            key = _key(record.doc["spec"].get("claimRef") or {})
            claim = self._store.get(CLAIM, *key) if key[1] else None
            if _is_made(record) and claim is None and key not in left:
                await self._store.delete(record.uid)
                continue
            phase = phase_of(record.doc, claim.doc if claim is not None else None)
            if phase == "Released" and not _is_made(record):
                await self._released(record, gone=key not in mounted)
            else:
                await self._to(record, phase)

    async def _to(self, record: Record, phase: str, *, reason: str = "", message: str = "") -> None:
        at = rfc3339(self._clock())
        if in_phase(record.doc, phase, at, reason=reason, message=message) is not None:
            await self._store.modify(
                record.uid, lambda doc: in_phase(doc, phase, at, reason=reason, message=message)
            )

    async def _released(self, record: Record, *, gone: bool) -> None:
        """Reclaim a released volume. `gone`: no pod mounts it any longer."""
        spec, before = record.doc["spec"], (record.doc.get("status") or {}).get("phase")
        policy = spec.get("persistentVolumeReclaimPolicy", "Retain")
        if policy == "Retain" or not gone:
            await self._to(record, "Released")
        elif before != "Failed":
            why = await self._reclaim(record, policy)
            if why:
                reason = "VolumeFailedDelete" if policy == "Delete" else "VolumeFailedRecycle"
                self._events.event(reference(record.doc), "Warning", reason, why)
                await self._to(record, "Failed", reason=reason, message=why)
                return
            kept = {key: value for key, value in spec.items() if key != "claimRef"}
            found = await self._store.modify(record.uid, lambda doc: {**doc, "spec": kept})
            if found is not None:
                await self._to(found, "Available")
            if policy == "Recycle":
                self._events.event(reference(record.doc), "Normal", "VolumeRecycled", "Volume recycled")

    async def _reclaim(self, record: Record, policy: str) -> str:
        """Carry out Delete or Recycle. Return why that is not possible; "" if it was done."""
        path = (record.doc["spec"].get("hostPath") or {}).get("path", "")
        verb = "deletable" if policy == "Delete" else "recyclable"
        if not path:
            doing = "deleter" if policy == "Delete" else "recycler"
            return f'error getting {doing} volume plugin for volume "{record.name}": no {verb} volume plugin matched'
        if policy == "Delete" and not os.path.normpath(path).startswith("/tmp/"):
            return f"host_path deleter only supports /tmp/.+ but received provided {path}"
        try:
            await asyncio.to_thread(_empty, path, remove=policy == "Delete")
        except OSError as error:
            return f"{error.filename or path}: {os.strerror(error.errno or 0)}"
        log.info("volume %s: %s is %s", record.name, path, "removed" if policy == "Delete" else "emptied")
        return ""


def _empty(path: str, *, remove: bool) -> None:
    """Empty a directory and, with `remove`, remove it. A missing directory is fine. Raises OSError."""
    if os.path.islink(path):
        raise OSError(20, "it is a symbolic link", path)
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    for name in names:
        remove_tree(f"{path}/{name}")
    if remove:
        os.rmdir(path)


def _is_made(record: Record) -> bool:
    return PROVISIONED_BY in (record.metadata.get("annotations") or {}) and not source_of(record)


def _key(ref: Mapping[str, Any]) -> Key:
    return str(ref.get("namespace") or ""), str(ref.get("name") or "")
