"""The node's signs of life in a cluster: its Node, the status of it, and its Lease.

Sources: Kubernetes pkg/kubelet/kubelet_node_status.go (tryRegisterWithAPIServer), component-helpers
apimachinery/lease/controller.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from kubelite.cluster.client import ClusterClient, ClusterError, Refusal
from kubelite.cluster.decide.node_status import lease, node_object, node_status, status_patch, takeover
from kubelite.kube.json import Json
from kubelite.version import version

log = logging.getLogger(__name__)

PERIOD = 10.0  # seconds between looks at the status, and between renewals of the Lease
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class Heartbeat:
    """`node()` returns the node's own v1 Node; `port` is that of the node's server."""

    def __init__(self, client: ClusterClient, name: str, node: Callable[[], Json], port: int) -> None:
        self._client = client
        self._name = name
        self._node = node
        self._port = port
        self._last: Json | None = None  # the status that was sent
        self._sent = 0.0
        self._registered: Json | None = None
        self._lease: Json | None = None
        self.error = ""  # why the last sign of life did not get through, "" if it did
        self.seen = 0.0  # Unix seconds of the last one that did

    def node_uid(self) -> str:
        """Return the uid of the Node on the API server, "" while it is not registered."""
        return str(self._registered["metadata"]["uid"]) if self._registered is not None else ""

    async def register(self) -> Json:
        """Create the Node, or take over the one that exists. Raises ClusterError."""
        made = node_object(self._node(), port=self._port, version=version(), now=time.time())
        try:
            found = await self._client.post("/api/v1/nodes", made)
            log.info("registered node %s with the cluster", self._name)
        except Refusal as error:
            if error.reason != "AlreadyExists":
                raise
            place = f"/api/v1/nodes/{self._name}"
            found = await self._client.patch(place, takeover(await self._client.get(place), made))
            log.info("node %s is known to the cluster", self._name)
        self._registered, self._last = found, None
        await self._report()
        return found

    async def run(self) -> None:
        """Register, then report until cancelled. Something that fails is tried again in the next period."""
        while True:
            began = time.monotonic()
            try:
                await self._beat()
                if self.error:
                    log.info("the cluster's API server answers again")
                self.error, self.seen = "", time.time()
            except ClusterError as error:
                if not self.error:
                    log.warning("the cluster's API server does not take signs of life: %s", error)
                self.error = str(error)
                self._last = None  # meanwhile the cluster may have called the node lost
                if isinstance(error, Refusal) and error.code == 404:
                    self._registered = self._lease = None  # somebody deleted the Node: register again
            await asyncio.sleep(max(1.0, PERIOD - (time.monotonic() - began)))

    async def _beat(self) -> None:
        if self._registered is None:
            await self.register()
        assert self._registered is not None
        await self._renew(self._registered)
        await self._report()

    async def _report(self) -> None:
        now = time.time()
        new = node_status(self._node(), port=self._port, version=version(), now=now)
        patch = status_patch(self._last, new, sent=self._sent, now=now)
        if patch is not None:
            self._registered = await self._client.patch(f"/api/v1/nodes/{self._name}/status", patch)
            self._last, self._sent = new, now

    async def _renew(self, node: Json) -> None:
        if self._lease is None:
            with contextlib.suppress(Refusal):
                self._lease = await self._client.get(f"{LEASES}/{self._name}")
        wanted, before = lease(node, self._lease, time.time()), self._lease
        try:
            if before is None:
                self._lease = await self._client.post(LEASES, wanted)
                return
            self._lease = await self._client.put(f"{LEASES}/{self._name}", wanted)
            kept = self._lease["metadata"]["uid"] == before["metadata"]["uid"]
        except Refusal as error:
            self._lease, kept = None, before is None  # changed by somebody else, or gone: begin anew
            if error.code not in (404, 409):
                raise
        if not kept:  # so the Node may be gone, too, with which the cluster deletes the Lease
            self._registered = None
