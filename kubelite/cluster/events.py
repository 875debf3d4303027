"""Sends the events about the cluster's pods, and about the node, to the cluster.

Events are a help for people and no record: at most a few are under way, and one that cannot be sent is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from kubelite.cluster.client import MALFORMED, ClusterClient, ClusterError
from kubelite.kube.json import Json
from state.store import Store

log = logging.getLogger(__name__)

MOST = 500  # events that wait
PAUSE = 0.02  # seconds between requests


class EventSink:
    """`pod(uid)` returns the API server's document of a pod, None if it has none."""

    def __init__(
        self, store: Store, client: ClusterClient, pod: Callable[[str], Json | None], node: str
    ) -> None:
        self._store = store
        self._client = client
        self._pod = pod
        self._node = node
        self._waiting: deque[Json] = deque(maxlen=MOST)
        self._sent: set[str] = set()  # uids of events that the API server has

    async def run(self) -> None:
        """Send what happens from now on, until cancelled."""
        wake = asyncio.Event()
        sending = asyncio.create_task(self._send(wake), name="cluster-events-send")
        try:
            async with self._store.watch("Event") as watch:
                async for change in watch:
                    uid = change.record.uid
                    if change.type == "DELETED":
                        self._sent.discard(uid)
                    elif self._concerns(change.record.doc):
                        self._waiting.append(change.record.doc)
                        wake.set()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def _concerns(self, event: Json) -> bool:
        about = event["involvedObject"]
        if about["kind"] == "Node":
            return bool(about["name"] == self._node)
        return about["kind"] == "Pod" and self._pod(str(about.get("uid"))) is not None

    async def _send(self, wake: asyncio.Event) -> None:
        while True:
            await wake.wait()
            wake.clear()
            while self._waiting:
                event = self._waiting.popleft()
                try:
                    await self._one(event)
                except (ClusterError, *MALFORMED) as error:
                    log.debug("an event is not sent: %r", error)
                await asyncio.sleep(PAUSE)

    async def _one(self, event: Json) -> None:
        metadata = event["metadata"]
        place, uid = f"/api/v1/namespaces/{metadata['namespace']}/events", metadata["uid"]
        if uid in self._sent:
            again = {"count": event["count"], "lastTimestamp": event["lastTimestamp"]}
            await self._client.patch(f"{place}/{metadata['name']}", again)
            return
        fresh = {"name": metadata["name"], "namespace": metadata["namespace"]}
        await self._client.post(place, {**event, "metadata": fresh})
        self._sent.add(uid)
