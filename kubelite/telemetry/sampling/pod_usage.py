"""What pods use, as the autoscaler wants it: CPU time as the difference of two snapshots, and the working set."""

from __future__ import annotations

from collections.abc import Mapping

from kubelite.autoscaling.model import Sample
from kubelite.telemetry.sampling.sampler import Snapshot

SHORTEST = (
    4.0  # seconds: an earlier question gets the last answer, since clock ticks distort a shorter difference
)


class PodUsage:
    """Remembers the CPU time of the last snapshot. Amounts are in thousandths, by uid of the pod."""

    def __init__(self) -> None:
        self.found: Mapping[str, Sample] = {}
        self._at = 0.0
        self._before: dict[str, int] = {}  # cgroup → nanoseconds

    def is_due(self, now: float) -> bool:
        return not 0 <= now - self._at < SHORTEST

    def note(self, snapshot: Snapshot) -> Mapping[str, Sample]:
        """Return the samples of a snapshot. A container that is new in it has no CPU time yet."""
        seconds = snapshot.now - self._at
        before, self._before, self._at = self._before, {}, snapshot.now
        pods: dict[str, dict[str, dict[str, int]]] = {}
        for one in snapshot.containers:
            place, used = one.target.cgroup, one.stats.cpu.usage_ns
            self._before[place] = used
            amounts = {"memory": one.stats.memory.working_set * 1000}
            if place in before and seconds > 0:
                amounts["cpu"] = int(max(0, used - before[place]) / seconds / 1e6)
            pods.setdefault(one.target.uid, {})[one.target.container] = amounts
        self.found = {uid: Sample(snapshot.now, seconds, one) for uid, one in pods.items()}
        return self.found
