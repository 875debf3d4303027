"""The interface to the network of the node's pods. Either the node's own bridge or CNI plugins implement it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runtime.network.plan import Attachment, Bandwidth, PortMapping, Repair


class PodNetwork(Protocol):
    """runtime.network.client.NetworkClient and runtime.cni.network.CniNetwork; the former says what the methods do."""

    @property
    def not_ready(self) -> str:
        """Why pods cannot be attached now, as a sentence; "" if they can."""

    @property
    def reattaches(self) -> bool:
        """Whether add() attaches a running pod again whose record is lost."""

    @property
    def warnings(self) -> Sequence[str]: ...

    async def add(
        self,
        uid: str,
        netns: str,
        ports: Sequence[PortMapping] = ...,
        *,
        had: str = ...,
        limit: Bandwidth = ...,
    ) -> Attachment: ...

    async def limit(self, uid: str, bandwidth: Bandwidth) -> Sequence[str]: ...

    async def delete(self, uid: str) -> None: ...

    async def list(self) -> Sequence[Attachment]: ...

    async def audit(self) -> Sequence[str]: ...

    async def repair(self, *, inside: int | None = None) -> Repair: ...

    async def teardown(self) -> None: ...

    async def close(self) -> None: ...
