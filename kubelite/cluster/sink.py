"""Tells the cluster what becomes of its pods: their statuses, and their end.

The store's changes feed a queue of uids; what is sent is decided when a pod's turn comes, from the newest status, so
that changes in between are one request, and a lost connection loses nothing.

The end of a pod (Kubernetes pkg/kubelet/status/status_manager.go, syncPod and canBeDeleted): the cluster marks it, the
node stops it, reports a terminal phase, and deletes it with a grace period of 0, by its uid.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from kubelite.cluster.client import ClusterClient, Refusal, Unreachable
from kubelite.cluster.decide.mirrors import is_mirror
from kubelite.cluster.decide.pod_status import final, refusal, status_patch
from kubelite.cluster.decide.pods import kept
from kubelite.cluster.source import ApiPods
from kubelite.kube.json import Json
from kubelite.kube.workqueue import WorkQueue
from state.store import Store

log = logging.getLogger(__name__)

RETRY = 2.0  # seconds until a request is sent again that did not get through
GONE = (404, 409)  # the pod does not exist any more, or another one has its name


def path(pod: Json, more: str = "") -> str:
    """Return the address of a pod."""
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}{more}"


class StatusSink:
    """`looked(uid)` is called when a pod of the cluster has left the node, so that its source looks again."""

    def __init__(
        self,
        store: Store,
        client: ClusterClient,
        pods: ApiPods,
        queue: WorkQueue[str],
        looked: Callable[[str], None],
    ) -> None:
        self._store = store
        self._client = client
        self._pods = pods
        self._queue = queue
        self._looked = looked
        self._last: dict[str, Json] = {}  # uid → the last status of a pod that has left the node
        self._refusals: dict[str, tuple[str, str, float]] = {}

    async def run(self) -> None:
        """Follow the store until cancelled."""
        async with self._store.watch("Pod") as watch:
            for record in self._store.list("Pod"):
                if kept(record.doc):
                    self._queue.add(record.uid)
            async for change in watch:
                record = change.record
                if not kept(record.doc):
                    continue
                if change.type == "DELETED":
                    self._last[record.uid] = record.doc.get("status") or {}
                    self._looked(record.uid)
                self._queue.add(record.uid)

    def refused(self, uid: str, reason: str, message: str) -> None:
        """Report a pod that does not run here as failed."""
        self._refusals.setdefault(uid, (reason, message, time.time()))
        self._queue.add(uid)

    async def reconcile(self, uid: str) -> float | None:
        """Tell the cluster what has changed of a pod. Return the seconds until the next try."""
        pod, record = self._pods.get(uid), self._store.get_uid(uid)
        if record is not None and not kept(record.doc):
            record = None  # an object of this node, which the cluster's pod has taken the uid of
        if pod is None or is_mirror(pod):
            if self._pods.complete:
                self._last.pop(uid, None)
                self._refusals.pop(uid, None)
            return None
        try:
            if record is not None:
                await self._tell(pod, record.doc.get("status") or {})
            elif pod["metadata"].get("deletionTimestamp"):
                await self._end(pod, self._last.get(uid) or pod.get("status") or {})
            elif uid in self._refusals:
                await self._tell(pod, refusal(pod.get("status") or {}, *self._refusals[uid]))
        except Unreachable as error:
            log.info("a pod's status waits: %s", error, extra={"uid": uid})
            return RETRY
        except Refusal as error:
            if error.code not in GONE:
                log.error("the cluster does not take a pod's status: %s", error, extra={"uid": uid})
                return RETRY * 10
        return None

    async def _tell(self, pod: Json, status: Json) -> None:
        patch = status_patch(pod, status)
        if patch is not None:
            self._pods.written(await self._client.patch(path(pod, "/status"), patch))

    async def _end(self, pod: Json, status: Json) -> None:
        await self._tell(pod, final(status, time.time()))
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        await self._client.delete(path(pod), options)
