"""The calls with which a worker reports its work to a metrics collector (telemetry/metrics/meters.py)."""

from __future__ import annotations


class Noted:
    """The default, which ignores every report."""

    def mounted(self, plugin: str, took: float, done: bool) -> None:
        """A volume was set up (`done`), or this failed; `took`: seconds."""

    def preempted(self, short_of: str) -> None:
        """A pod is preempted because this resource is short."""

    def status_written(self, took: float) -> None:
        """A pod's new status was recorded; `took`: seconds."""
