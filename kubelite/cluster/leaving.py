"""How the node leaves its cluster in good order: no new pods, evictions that ask disruption budgets, then the Node and
its Lease are deleted.

Source: Kubernetes' kubectl pkg/drain/drain.go (evictPods), for what is evicted and when it is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from kubelite.cluster.client import ClusterError, Refusal
from kubelite.cluster.decide.mirrors import is_mirror
from kubelite.cluster.decide.node_status import LEFT
from kubelite.cluster.heartbeat import LEASES
from kubelite.cluster.member import Member
from kubelite.cluster.sink import path
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

log = logging.getLogger(__name__)

RETRY = 2.0  # seconds until a refused eviction is tried again
POLL = 0.2


class Leaving:
    """`say` gets sentences for a person."""

    def __init__(self, member: Member, say: Callable[[str], None]) -> None:
        self._member = member
        self._client = member.client
        self._node = member.membership.node
        self._say = say

    async def drain(self, seconds: float) -> None:
        """Cordon the node, evict its pods, and wait until they are gone. Raises ClusterError, and TimeoutError, which
        names the pods that stay."""
        mark = {"annotations": {LEFT: rfc3339(time.time())}}
        await self._client.patch(
            f"/api/v1/nodes/{self._node}", {"metadata": mark, "spec": {"unschedulable": True}}
        )
        found = self._evictable()
        refused: dict[str, str] = {}
        evictions = [asyncio.create_task(self._evict(pod, refused)) for pod in found]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*evictions)
                while self._evictable():
                    await asyncio.sleep(POLL)
        except TimeoutError:
            left = [_name(pod) for pod in self._evictable()]
            why = "; ".join(dict.fromkeys(refused.values()))
            raise TimeoutError(f"pods still run: {', '.join(left)}{f' ({why})' * bool(why)}") from None
        finally:  # one that fails must not leave the others evicting
            for one in evictions:
                one.cancel()
            await asyncio.gather(*evictions, return_exceptions=True)
        self._say(f"{len(found)} {'pod is' if len(found) == 1 else 'pods are'} evicted")

    def _evictable(self) -> list[Json]:
        """Return the pods that go by themselves: not those of DaemonSets, which would come back, nor mirror pods."""
        return [
            pod
            for pod in self._member.pods.all()
            if not is_mirror(pod)
            and not any(one["kind"] == "DaemonSet" for one in pod["metadata"].get("ownerReferences") or ())
        ]

    async def _evict(self, pod: Json, refused: dict[str, str]) -> None:
        metadata = pod["metadata"]
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "deleteOptions": {"preconditions": {"uid": metadata["uid"]}},
        }
        while True:
            try:
                await self._client.post(path(pod, "/eviction"), body)
            except ClusterError as error:
                code = error.code if isinstance(error, Refusal) else 0
                if code not in (404, 409):
                    if 0 < code < 500:
                        raise
                    # 429: a disruption budget does not allow it now; 500: the pod has two budgets, for example
                    refused[metadata["uid"]] = str(error)
                    await asyncio.sleep(RETRY)
                    continue
            refused.pop(metadata["uid"], None)
            return

    async def unregister(self) -> None:
        """Delete the mirror pods, the Lease and the Node. A cluster does not let a node delete its Node, unless an
        administrator has given nodes that right: what to do by hand is said."""
        await self._delete_mirrors()
        for place in (f"{LEASES}/{self._node}", f"/api/v1/nodes/{self._node}"):
            try:
                await self._client.delete(place)
            except ClusterError as error:
                if not isinstance(error, Refusal) or error.code not in (403, 404):
                    log.warning("the cluster keeps %s: %s", place, error)
                elif error.code == 403:
                    self._say(
                        f"the Node remains, cordoned: run `kubectl delete node {self._node}` on the cluster"
                    )
                continue
            if place.startswith("/api/v1/nodes/"):
                self._say(f"node {self._node} is deleted from the cluster")

    async def _delete_mirrors(self) -> None:
        """The node's own pods go on, and the cluster does not see them any more."""
        for pod in [one for one in self._member.pods.all() if is_mirror(one)]:
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
            try:
                await self._client.delete(path(pod), options)
            except ClusterError as error:
                log.warning("the cluster keeps the mirror pod %s: %s", _name(pod), error)
                return


def _name(pod: Json) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
