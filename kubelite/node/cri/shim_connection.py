"""The connection to a running shim. A new shim is connected and attached to the network in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

from kubelite.node.model.cri import Rates
from runtime.network.plan import Attachment
from runtime.shim.client import ShimClient
from runtime.shim.protocol import SandboxRecord


@dataclass(slots=True)
class RunningShim:
    """A running shim and the connection to it."""

    record: SandboxRecord
    client: ShimClient
    ended: set[str] = field(default_factory=set)  # containers whose exit was reported

    async def look(self) -> SandboxRecord:
        """Ask the shim for its record. If nothing has changed, return the same object as before, so that what was
        computed from it stays valid and is not stored twice."""
        record = await self.client.state()
        if record != self.record:
            self.record = record
        return self.record


BANDWIDTH = "bandwidth"  # the annotation of a sandbox with its limits in bits per second, such as "1000000/0"


def noted_rates(rates: Rates) -> dict[str, str]:
    """The annotation that records a sandbox's limits of bandwidth."""
    return {BANDWIDTH: f"{rates[0]}/{rates[1]}"}


def rates_of(record: SandboxRecord) -> Rates:
    """The recorded limits of bandwidth."""
    ingress, _, egress = record.annotations.get(BANDWIDTH, "0/0").partition("/")
    return int(ingress), int(egress)


async def both(
    connect: Awaitable[RunningShim], attach: Awaitable[Attachment | None]
) -> tuple[RunningShim, Attachment | None]:
    """Await both in parallel. If one fails, the other is awaited before the error is raised, so that the undo covers
    both."""
    results = await asyncio.gather(connect, attach, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    shim, attachment = results
    assert isinstance(shim, RunningShim) and not isinstance(attachment, BaseException)
    return shim, attachment
