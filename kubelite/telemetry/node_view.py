"""A read-only view of the node for telemetry. The daemon's `NodeAgent` implements it; tests use a small implementation.

Telemetry never imports the daemon. If a page needs more than this view offers, extend the view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from kubelite.settings import Settings
from runtime.shim.protocol import SandboxRecord
from state.store import Store

if TYPE_CHECKING:
    from kubelite.services.ports import EndpointCount
    from kubelite.sources.plan import ManifestState
    from kubelite.telemetry.metrics.meters import Meters
    from kubelite.telemetry.sampling.disk_usage import DiskUsage
    from kubelite.telemetry.sampling.volume_stats import Volume
    from kubelite.telemetry.tracing.trace import Tracer


class Sandboxes(Protocol):
    def running_sandboxes(self) -> Mapping[str, SandboxRecord]:
        """Return pod uid → the record of its running sandbox."""


class ManifestStates(Protocol):
    def states(self) -> Sequence[ManifestState]:
        """Return the state of each manifest file in the watched directory."""


class Queue(Protocol):
    """The work queue: its length, and its totals since the daemon started."""

    @property
    def added(self) -> int: ...

    @property
    def retries(self) -> int: ...

    def __len__(self) -> int: ...


class NodeView(Protocol):
    """The node, read-only. Times are Unix seconds, durations seconds."""

    @property
    def settings(self) -> Settings: ...

    @property
    def store(self) -> Store: ...

    @property
    def node_name(self) -> str: ...

    @property
    def started_at(self) -> float: ...

    @property
    def startup_took(self) -> float: ...

    @property
    def cri(self) -> Sandboxes: ...

    @property
    def sources(self) -> ManifestStates: ...

    @property
    def queue(self) -> Queue: ...

    @property
    def meters(self) -> Meters: ...

    @property
    def tracer(self) -> Tracer: ...

    @property
    def disk_usage(self) -> DiskUsage: ...

    def node(self) -> dict[str, Any]:
        """Return the Node object, as the API serves it."""

    def ready(self) -> tuple[bool, str]:
        """Return whether the node is ready, and if not, why."""

    def volumes(self) -> list[Volume]:
        """Return the emptyDir volumes and claims of running pods."""

    def has_image(self, name: str) -> bool:
        """Whether the node has an image of this name."""

    def images(self) -> list[dict[str, Any]]:
        """Return the images of the node, as `kubelite images -o json` shows them."""

    async def dns_status(self) -> dict[str, Any] | None:
        """Return the status of the node's DNS server; None if it does not run."""

    async def service_counts(self) -> Sequence[EndpointCount]:
        """Return what the endpoints of Services have received and sent; nothing without the setting service_counters,
        and while the node's network does not answer."""
