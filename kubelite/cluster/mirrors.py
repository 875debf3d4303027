"""Keeps a mirror of each of the node's own pods on the API server.

Everything is level-triggered: each look compares all pods of the node with all mirrors that the API server has, so that
a lost connection or a restart loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kubelite.cluster.client import ClusterClient, Refusal
from kubelite.cluster.decide.mirrors import MIRROR, Plan, is_mirror, plan
from kubelite.cluster.sink import GONE, path
from kubelite.cluster.source import ApiPods
from kubelite.kube.json import Json
from state.store import Store

log = logging.getLogger(__name__)

COALESCE = 0.2  # seconds in which changes lead to one look
LOOK = 60.0  # seconds between looks without a change, and until a refused mirror is tried again
FIRST = 5.0  # seconds until it is tried the first time again: admission may not know a new Node yet
UNREGISTERED = 1.0  # seconds until the next look while the Node is not registered, or its pods are not known


@dataclass(frozen=True, slots=True)
class _Refused:
    """A mirror that the cluster does not take: its hash, how many times it was refused, and when it is tried again
    (monotonic seconds)."""

    digest: str
    times: int = 0
    due: float = 0.0


class Mirrors:
    """`node_uid()` returns the uid of the Node on the API server, "" while it is not registered; `warn` gets a pod of
    the node, the reason and the message of an event about it; `counted` gets the number of mirrors on the API server at
    each look."""

    def __init__(
        self,
        store: Store,
        client: ClusterClient,
        pods: ApiPods,
        node: str,
        *,
        node_uid: Callable[[], str],
        warn: Callable[[Json, str, str], None],
        counted: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._store, self._client, self._pods, self._node = store, client, pods, node
        self._node_uid, self._warn, self._counted = node_uid, warn, counted
        self._wake = asyncio.Event()
        self._refused: dict[str, _Refused] = {}  # by the uid of the node's pod

    def look(self) -> None:
        """Look soon: a pod of the API server has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Keep the mirrors until cancelled. Raises ClusterError."""
        following = asyncio.create_task(self._follow(), name="cluster-mirrors-store")
        try:
            while True:
                self._wake.clear()
                uid = self._node_uid()
                if begun := bool(uid and self._pods.complete):
                    own = [record.doc for record in self._store.list("Pod")]
                    there = [pod for pod in self._pods.all() if is_mirror(pod)]
                    self._counted(len(there))
                    await self._carry_out(plan(own, there, self._node, uid))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause() if begun else UNREGISTERED):
                        await self._wake.wait()
                await asyncio.sleep(COALESCE)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self) -> None:
        async with self._store.watch("Pod") as watch:
            async for _ in watch:
                self._wake.set()

    def _pause(self) -> float:
        """Return the seconds until the next look if nothing changes."""
        now = time.monotonic()
        return max(0.0, min((one.due - now for one in self._refused.values()), default=LOOK))

    async def _carry_out(self, found: Plan) -> None:
        self._refused = {uid: one for uid, one in self._refused.items() if uid in found.create}
        for pod in found.delete:
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
            await self._done(pod, self._client.delete(path(pod), options))
        for pod, patch in found.tell:
            answer = await self._done(pod, self._client.patch(path(pod, "/status"), patch))
            if answer is not None:
                self._pods.written(answer)
        for uid, made in found.create.items():
            await self._create(uid, made)

    async def _done(self, pod: Json, request: Awaitable[Json]) -> Json | None:
        """Return the answer to a request about a mirror; None if it is refused, which keeps no other mirror waiting."""
        try:
            return await request
        except Refusal as error:
            if error.code not in GONE:
                log.warning("the cluster does not take a mirror pod: %s", error, extra={"pod": path(pod)})
            return None

    async def _create(self, uid: str, made: Json) -> None:
        """Create the mirror of a pod. API servers refuse mirrors that refer to Secrets, ConfigMaps, ServiceAccounts or
        claims; a pod that refers to one of them gets no mirror, and an event says so."""
        metadata, now = made["metadata"], time.monotonic()
        digest = metadata["annotations"][MIRROR]
        before = self._refused.get(uid)
        if before is None or before.digest != digest:
            before = _Refused(digest)
        if now < before.due:
            return
        try:
            await self._client.post(f"/api/v1/namespaces/{metadata['namespace']}/pods", made)
            self._refused.pop(uid, None)
        except Refusal as error:  # AlreadyExists: its event is on the way, or the name is another pod's
            self._refused[uid] = _Refused(digest, before.times + 1, now + (LOOK if before.times else FIRST))
            record = self._store.get_uid(uid)
            if before.times == 1 and record is not None:
                words = f"The cluster does not see this pod, which runs all the same: {error}"
                self._warn(record.doc, "MirrorPodRefused", words)
