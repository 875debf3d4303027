"""The calls with which the node reports its work to a metrics collector (telemetry/metrics/meters.py)."""

from __future__ import annotations

from kubelite.node.model.probe_results import Kind, Outcome
from manifests.types.core import Pod


class Observer:
    """The default, which ignores every report. `took`: seconds."""

    def mounted(self, plugin: str, took: float, done: bool) -> None:
        """A volume was set up (`done`), or this failed."""

    def preempted(self, short_of: str) -> None:
        """A pod is preempted because this resource is short."""

    def status_written(self, took: float) -> None:
        """A pod's new status was recorded."""

    def probed(self, pod: Pod, container: str, kind: Kind, outcome: Outcome, took: float) -> None:
        """A probe was tried."""
