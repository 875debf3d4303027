"""The cluster is the second source of pods: this module keeps the store in step with the pods that the API server has
bound to this node, as `kubelite.sources.directory` does with the manifest directory.

Everything is level-triggered: an event only says which pod to look at. What the API server said last stays valid until
it says something else, so the pods go on while it is away, also across restarts of the daemon.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from kubelite.cluster.decide.mirrors import is_mirror
from kubelite.cluster.decide.pods import Surroundings, foreign_os, kept, stored, updated, with_deletion
from kubelite.cluster.decide.references import claims
from kubelite.kube.errors import Forbidden
from kubelite.kube.json import Json
from kubelite.kube.objects import TERMINAL_PHASES, mark_deleting, source_of
from kubelite.kube.workqueue import WorkQueue
from manifests.problems import InvalidObject
from state.errors import AlreadyExists
from state.store import Store

log = logging.getLogger(__name__)

HELD = 0.5  # seconds until a pod is tried again whose name an older one still has


class ApiPods:
    """The pods that the API server has bound to this node, as it said last. `changed(uid)` is called for each one that
    may be different now."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._pods: dict[str, Json] = {}
        self.complete = False  # whether the API server has listed them since the daemon's start

    def get(self, uid: str) -> Json | None:
        return self._pods.get(uid)

    def all(self) -> Iterable[Json]:
        return self._pods.values()

    def listed(self, pods: list[Json]) -> None:
        old, self._pods = self._pods, {str(pod["metadata"]["uid"]): pod for pod in pods}
        self.complete = True
        for uid in {**old, **self._pods}:
            self._changed(uid)

    def event(self, kind: str, pod: Json) -> None:
        uid = str(pod["metadata"]["uid"])
        if kind == "DELETED":
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = pod
        self._changed(uid)

    def written(self, pod: Json) -> None:
        """Take the answer to a patch, unless the pod is gone already."""
        uid = str(pod["metadata"]["uid"])
        if uid in self._pods:
            self._pods[uid] = pod


class Refused(Exception):
    """The node does not run a pod. `reason`: in CamelCase."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotYet(Exception):
    """Something that a pod needs is not there yet. The message says what."""


class ClusterSource:
    """`volumes(pod)` returns the volumes that a pod's claims are bound to, by name of the pod's volume; it may raise
    NotYet or Refused. `refused(uid, reason, message)` is told of a pod that does not run here."""

    def __init__(
        self,
        store: Store,
        pods: ApiPods,
        queue: WorkQueue[str],
        around: Callable[[], Surroundings],
        *,
        volumes: Callable[[Json], Awaitable[Mapping[str, Json]]],
        refused: Callable[[str, str, str], None],
        warn: Callable[[Json, str, str], None],
    ) -> None:
        self._store = store
        self._pods = pods
        self._queue = queue
        self._around = around
        self._volumes = volumes
        self._refused = refused
        self._warn = warn  # with a pod, and the reason and message of an event about it
        self._bound: dict[str, Mapping[str, Json]] = {}  # uid → the volumes of its claims

    async def reconcile(self, uid: str) -> float | None:
        """Bring the store's record of a pod in step with the API server's. Return the seconds until the next look."""
        pod, record = self._pods.get(uid), self._store.get_uid(uid)
        if pod is not None and is_mirror(pod):
            return None
        if pod is None:
            self._bound.pop(uid, None)
            if record is not None and self._pods.complete and kept(record.doc):
                await self._store.modify(uid, lambda doc: mark_deleting(doc, now=time.time()))
            return None
        if record is not None and not kept(record.doc):
            self._refused(uid, "NameConflict", "an object of this node has the pod's uid")
            return None
        if record is not None:
            await self._update(uid, pod)
            return None
        if pod["metadata"].get("deletionTimestamp") or _has_ended(pod):
            return None
        try:
            return await self._add(uid, pod)
        except Refused as error:
            self._refused(uid, error.reason, str(error))
        except NotYet as error:
            self._warn(pod, "FailedMount", str(error))
            return HELD * 4
        return None

    async def _update(self, uid: str, pod: Json) -> None:
        try:
            new = stored(pod, self._around(), self._bound.get(uid) or await self._again(uid, pod)).doc
        except (InvalidObject, NotYet, Refused) as error:
            log.warning("an edit of a pod has no effect: %s", error, extra={"uid": uid})
            await self._store.modify(uid, lambda doc: updated(doc, with_deletion(doc, pod)))
            return
        await self._store.modify(uid, lambda doc: updated(doc, new))

    async def _again(self, uid: str, pod: Json) -> Mapping[str, Json]:
        """Return the volumes that the pod's record has: they do not change once it runs."""
        record = self._store.get_uid(uid)
        volumes = record.doc["spec"].get("volumes") or () if record is not None else ()
        bound = claims(pod)
        found = {
            one["name"]: {key: value for key, value in one.items() if key != "name"}
            for one in volumes
            if one["name"] in bound
        }
        self._bound[uid] = found
        return found

    async def _add(self, uid: str, pod: Json) -> float | None:
        if name := foreign_os(pod):
            raise Refused(
                "PodOSNotSupported", f"Pod was rejected: it is for {name}, and this node runs linux"
            )
        metadata = pod["metadata"]
        holder = self._store.get("Pod", metadata["namespace"], metadata["name"])
        if holder is not None and not kept(holder.doc):
            place = f"the manifest {source_of(holder)}" if source_of(holder) else "the node's own objects"
            raise Refused("NameConflict", f"Pod was rejected: {place} has a pod of this name on this node")
        if holder is not None:
            if self._pods.complete and self._pods.get(holder.uid) is None:
                self._queue.add(holder.uid)
            return HELD
        self._bound[uid] = await self._volumes(pod)
        try:
            made = stored(pod, self._around(), self._bound[uid])
            await self._store.create("Pod", made.doc)
        except InvalidObject as error:
            raise Refused("InvalidPod", f"Pod was rejected: {error}") from error
        except Forbidden as error:
            raise Refused("Forbidden", f"Pod was rejected: {error}") from error
        except AlreadyExists:
            return HELD
        for field in made.dropped:
            self._warn(
                pod, "UnsupportedField", f"{field} has no effect: this version of the node does not know it"
            )
        return None


def _has_ended(pod: Json) -> bool:
    return (pod.get("status") or {}).get("phase") in TERMINAL_PHASES
