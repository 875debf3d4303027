"""What a worker tells of its work to whoever counts it (telemetry/metrics/meters.py)."""

from __future__ import annotations


class Noted:
    """Here nobody does."""

    def mounted(self, plugin: str, took: float, done: bool) -> None:
        """A volume was set up, or was not; `took`: seconds."""

    def preempted(self, short_of: str) -> None:
        """A pod is to go for one of higher priority, for want of this resource."""

    def status_written(self, took: float) -> None:
        """A pod's new status is on record; `took`: seconds."""
