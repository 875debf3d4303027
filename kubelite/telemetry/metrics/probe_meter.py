"""prober_*: results of probes, counted as by kubelet's prober (pkg/kubelet/prober/prober_manager.go).

A pod's series are deleted with the pod, so their number is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from kubelite.node.model.probe_results import Kind, Outcome
from kubelite.telemetry.metrics.exposition import Page, counter, histogram, labels, number
from manifests.types.core import Pod

TYPES = ("Liveness", "Readiness", "Startup")
RESULTS = ("successful", "failed", "unknown")
_RESULTS = {
    Outcome.SUCCESS: "successful",
    Outcome.WARNING: "successful",
    Outcome.FAILURE: "failed",
    Outcome.UNKNOWN: "unknown",
}
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TOTAL = counter(
    "prober_probe_total",
    "Cumulative number of a liveness, readiness or startup probe for a container by result.",
)
DURATION = histogram("prober_probe_duration_seconds", "Duration in seconds for a probe response.")


@dataclass(slots=True)
class _Probe:
    """One probe of one container."""

    counter_head: str
    duration_head: str
    results: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0


class ProbeMeter:
    """Call `observe(…)` after each probe, and `forget(uid)` when the pod is deleted."""

    def __init__(self) -> None:
        self._probes: dict[str, dict[tuple[str, str], _Probe]] = {}

    def observe(
        self, uid: str, namespace: str, pod: str, *, container: str, kind: str, result: str, seconds: float
    ) -> None:
        """Count a result. `kind`: Liveness, Readiness or Startup; `result`: successful, failed or unknown; `seconds`:
        duration of the probe."""
        mine = self._probes.setdefault(uid, {})
        probe = mine.get((container, kind))
        if probe is None:
            pairs = {"probe_type": kind, "container": container, "pod": pod, "namespace": namespace}
            probe = _Probe(labels({**pairs, "pod_uid": uid}), labels(pairs))
            mine[container, kind] = probe
        probe.results[result] += 1
        probe.buckets[bisect_left(BOUNDS, seconds)] += 1
        probe.seconds += seconds

    def tried(self, pod: Pod, container: str, kind: Kind, outcome: Outcome, seconds: float) -> None:
        """Count a result of the prober under kubelet's names."""
        meta, result = pod.metadata, _RESULTS[outcome]
        place = (meta.uid or "", meta.namespace or "", meta.name or "")
        self.observe(*place, container=container, kind=kind.title(), result=result, seconds=seconds)

    def forget(self, uid: str) -> None:
        self._probes.pop(uid, None)

    def write(self, page: Page) -> None:
        probes = [probe for mine in list(self._probes.values()) for probe in list(mine.values())]
        lines = [
            f'{TOTAL.name}{{{p.counter_head},result="{result}"}} {count}\n'
            for p in probes
            for result, count in p.results.items()
            if count
        ]
        page.family(TOTAL, "".join(lines))
        page.family(DURATION, "".join(_durations(page, p) for p in probes))


def _durations(page: Page, probe: _Probe) -> str:
    name, head, running, lines = DURATION.name, probe.duration_head, 0, []
    for bound, count in zip((*BOUNDS, None), probe.buckets, strict=True):
        running += count
        le = "+Inf" if bound is None else repr(bound) if page.openmetrics else number(bound)
        lines.append(f'{name}_bucket{{{head},le="{le}"}} {running}\n')
    lines.append(f"{name}_sum{{{head}}} {number(probe.seconds)}\n{name}_count{{{head}}} {running}\n")
    return "".join(lines)
