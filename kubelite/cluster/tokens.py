"""Gets the tokens of the cluster's pods, and renews them.

Source: Kubernetes pkg/kubelet/token/token_manager.go (requiresRefresh: at 80 % of the life, or after 24 hours).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kubelite.cluster.client import ClusterClient, Refusal, Unreachable
from kubelite.cluster.decide.references import is_over, tokens
from kubelite.kube.json import Json
from kubelite.kube.times import unix
from kubelite.kube.workqueue import WorkQueue
from kubelite.node.spec.cluster_objects import TOKEN, TokenAsked, cluster_kind, token_name
from state.store import Store

log = logging.getLogger(__name__)

LONGEST = 24 * 3600.0  # seconds after which a token is renewed in any case
PART = 0.8  # of its life
RETRY = 2.0  # seconds until a request is sent again


class Wanted(NamedTuple):
    """A token that a pod's volume asks for. `uid`: the pod's."""

    uid: str
    asked: TokenAsked


def renewal(issued: float, expires: float) -> float:
    """Return when a token is renewed, in Unix seconds. Pure."""
    return min(issued + LONGEST, issued + (expires - issued) * PART)


class ClusterTokens:
    """`pod(uid)` returns the API server's document; `changed(uid)` is called for a pod that has got a new token."""

    def __init__(
        self,
        store: Store,
        client: ClusterClient,
        pod: Callable[[str], Json | None],
        changed: Callable[[str], None],
    ) -> None:
        self._store = store
        self._client = client
        self._pod = pod
        self._changed = changed
        self._known: set[Wanted] = set()
        self.queue: WorkQueue[Wanted] = WorkQueue(limit=8)

    def start(self) -> None:
        self.queue.start(self._reconcile)

    async def use(self, pods: Iterable[Json]) -> None:
        """Keep the tokens of these pods, and delete all others, also those that an earlier run of the daemon has left.
        Raises StoreError."""
        wanted = {
            Wanted(str(pod["metadata"]["uid"]), asked)
            for pod in pods
            if not is_over(pod)
            for asked in tokens(pod)
        }
        old, self._known = self._known, wanted
        for one in wanted - old:
            self.queue.add(one)
        names = {token_name(*one) for one in wanted}
        for record in self._store.list(cluster_kind(TOKEN)):
            if record.name not in names:
                await self._store.delete(record.uid)

    async def _reconcile(self, one: Wanted) -> float | None:
        name = token_name(*one)
        record = self._store.get_uid(f"token:{name}")
        pod = self._pod(one.uid)
        if one not in self._known or pod is None:
            if record is not None:  # issued while `use` deleted the others
                await self._store.delete(record.uid)
            return None
        if record is not None:
            due = renewal(record.doc["issued"], record.doc["expires"]) - time.time()
            if due > 0:
                return float(min(due, LONGEST))
        try:
            await self._issue(one, pod, name)
        except Unreachable as error:
            log.info("a token waits: %s", error, extra={"uid": one.uid})
            return RETRY
        except Refusal as error:
            log.warning("the cluster issues no token: %s", error, extra={"uid": one.uid})
            return RETRY * 5
        return RETRY  # by this clock, a new token may be due at once

    async def _issue(self, one: Wanted, pod: Json, name: str) -> None:
        metadata = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        audiences = [one.asked.audience] if one.asked.audience else []
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": one.asked.seconds, "boundObjectRef": bound},
        }
        place = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        now = time.time()
        status = (await self._client.post(place, request))["status"]
        doc = {
            "kind": TOKEN,
            "metadata": {"name": name, "namespace": metadata["namespace"], "uid": f"token:{name}"},
            "token": status["token"],
            "issued": now,
            "expires": unix(status["expirationTimestamp"]),
        }
        await self._store.post(cluster_kind(TOKEN), doc, delay=0.0)
        self._changed(one.uid)
