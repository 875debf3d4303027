"""The node's part in `kubelite build`: the image store and the pod network.

The build runs in the process of the command. This module has the operations that only the daemon can do.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from kubelite.kube.json import Json
from kubelite.node.cri.pod_network import PodNetwork
from kubelite.node.model.capacity import machine_memory, memory_limit
from kubelite.node.spec import lsm
from kubelite.settings import Settings
from runtime.errors import StateError
from runtime.images.client import ImageClient

LEASE_PREFIX = "build-"  # prefix of the uid of a build's network lease


@dataclass(slots=True)
class NodeBuilds:
    settings: Settings
    network: PodNetwork
    images: ImageClient

    def about(self) -> Json:
        return {
            "images": self.images.store.root,
            "cgroupParent": f"/{self.settings.cgroup_parent}",
            "memory": memory_limit(self.settings.build_memory, machine_memory()),
            "socketcall": self.settings.socketcall,
            "apparmor": lsm.default_profile(),
        }

    async def attach(self, pid: int) -> AsyncGenerator[Json, None]:
        """Attach the process's network namespace to the pod network until the generator is closed. Raises StateError if
        the process is in the host's namespace."""
        if os.path.samefile(f"/proc/{pid}/ns/net", "/proc/self/ns/net"):
            raise StateError(f"process {pid} has no network namespace of its own")
        uid = f"{LEASE_PREFIX}{secrets.token_hex(8)}"
        try:
            found = await self.network.add(uid, f"/proc/{pid}/ns/net")
            yield {"address": found.ip}
            await asyncio.Event().wait()  # until the client disconnects
        finally:
            await asyncio.shield(asyncio.ensure_future(self.network.delete(uid)))
