"""/metrics/resource, which metrics-server reads to answer `kubectl top`.

Source: Kubernetes pkg/kubelet/metrics/collectors/resource_metrics.go. Some families are also on /metrics/cadvisor, with
other labels, so no page may have both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kubelite.telemetry.metrics.exposition import Family, Page, counter, gauge, labels, number
from kubelite.telemetry.sampling.sampler import Sample, Snapshot

_Read = Callable[[Sample], float]

_EACH: tuple[tuple[str, str, str, _Read], ...] = (
    (
        "cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the {} in core-seconds",
        lambda s: s.stats.cpu.usage_ns / 1e9,
    ),
    (
        "memory_working_set_bytes",
        "gauge",
        "Current working set of the {} in bytes",
        lambda s: s.stats.memory.working_set,
    ),
    (
        "swap_usage_bytes",
        "gauge",
        "Current amount of the {} swap usage in bytes. Reported only on non-windows systems",
        lambda s: s.stats.memory.swap,
    ),
)


def write_resource(page: Page, snapshot: Snapshot) -> None:
    root, memory = snapshot.root, snapshot.root.memory
    page.one(
        counter("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds"),
        root.cpu,
    )
    page.one(
        gauge("node_memory_working_set_bytes", "Current working set of the node in bytes"), root.working_set
    )
    page.one(
        gauge(
            "node_swap_usage_bytes",
            "Current swap usage of the node in bytes. Reported only on non-windows systems",
        ),
        memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
    )
    text = "Start time of the container since unix epoch in seconds"
    _samples(
        page,
        gauge("container_start_time_seconds", text),
        snapshot.containers,
        lambda s: s.target.started_at,
    )
    for word, samples in (("container", snapshot.containers), ("pod", snapshot.pods)):
        for name, kind, text, read in _EACH:
            make = counter if kind == "counter" else gauge
            _samples(page, make(f"{word}_{name}", text.format(word)), samples, read)
    limited = [s for s in snapshot.containers if s.limits.spec.swap_limit]
    text = "Current amount of the container swap limit in bytes. Reported only on non-windows systems"
    _samples(page, gauge("container_swap_limit_bytes", text), limited, lambda s: s.limits.spec.swap_limit)
    page.one(
        gauge(
            "resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise"
        ),
        int(snapshot.errors > 0),
    )


def _samples(page: Page, family: Family, samples: Iterable[Sample], read: _Read) -> None:
    lines = []
    for sample in samples:
        target = sample.target
        pairs = {"container": target.container} if target.container else {}
        pairs |= {"namespace": target.namespace, "pod": target.pod}
        lines.append(f"{family.name}{{{labels(pairs)}}} {number(read(sample))}\n")
    page.family(family, "".join(lines))
