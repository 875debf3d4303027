"""/metrics/resource and /stats/summary: what metrics-server, `kubectl top`, k9s and `kubelite top` read.

Sources: kubernetes pkg/kubelet/metrics/collectors/resource_metrics.go and pkg/kubelet/apis/stats/v1alpha1/types.go.
/metrics/resource has families that /metrics/cadvisor has too, with other labels: the two are never one page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from kubelite.telemetry.diskusage import Usage
from kubelite.telemetry.exposition import Family, Page, counter, gauge, labels, number
from kubelite.telemetry.sampler import Sample, Snapshot
from kubelite.telemetry.volumestats import Volume, summary_of

Json = dict[str, Any]
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


def summary(
    snapshot: Snapshot,
    node: str,
    started_at: float,
    usage: Callable[[str], Usage | None],
    volumes: Iterable[Volume] = (),
) -> Json:
    """The Summary API's document."""
    of_pods: dict[str, list[Volume]] = {}
    for volume in volumes:
        of_pods.setdefault(volume.uid, []).append(volume)
    networks = {s.target.uid: found for s, found in snapshot.networks}
    containers: dict[str, list[Sample]] = {}
    for sample in snapshot.containers:
        containers.setdefault(sample.target.uid, []).append(sample)
    at, pods = _time(snapshot.now), []
    for pod in snapshot.pods:
        uid = pod.target.uid
        found = _pod(at, pod, containers.get(uid, []), of_pods.get(uid, ()), usage)
        if uid in networks:
            found["network"] = _network(at, networks[uid])
        pods.append(found)
    return {"node": {"nodeName": node, "startTime": _time(started_at), **_node(at, snapshot)}, "pods": pods}


def _node(at: str, snapshot: Snapshot) -> Json:
    root = snapshot.root
    document: Json = {
        "cpu": {"time": at, "usageCoreNanoSeconds": int(root.cpu * 1e9)},
        "memory": {
            "time": at,
            "availableBytes": max(0, root.memory.get("MemTotal", 0) - root.working_set),
            "usageBytes": root.usage,
            "workingSetBytes": root.working_set,
            "rssBytes": root.memory.get("AnonPages", 0),
            "pageFaults": root.vm.get("pgfault", 0),
            "majorPageFaults": root.vm.get("pgmajfault", 0),
        },
        "network": _network(at, root.networks),
    }
    if root.file_systems:
        place = root.file_systems[0]
        document["fs"] = {
            "time": at,
            "availableBytes": place.available,
            "capacityBytes": place.size,
            "usedBytes": place.used,
            "inodesFree": place.inodes_free,
            "inodes": place.inodes,
            "inodesUsed": place.inodes - place.inodes_free,
        }
    return document


def _pod(
    at: str,
    pod: Sample,
    containers: Sequence[Sample],
    volumes: Iterable[Volume],
    usage: Callable[[str], Usage | None],
) -> Json:
    t = pod.target
    found: Json = {
        "podRef": {"name": t.pod, "namespace": t.namespace, "uid": t.uid},
        "startTime": _time(t.started_at),
        "containers": [_container(at, sample, usage) for sample in containers],
        "cpu": _cpu(at, pod),
        "memory": _memory(at, pod),
        "swap": {"time": at, "swapUsageBytes": pod.stats.memory.swap},
        "process_stats": {"process_count": len(pod.pids)},
    }
    used = [u for sample in containers if (u := usage(sample.target.upper))]
    if used:
        size = sum(u.bytes for u in used)
        found["ephemeral-storage"] = _filesystem(at, used[0], size, sum(u.inodes for u in used))
    filled = [summary_of(at, v, u) for v in volumes if (u := usage(v.path))]
    if filled:
        found["volume"] = filled
    return found


def _container(at: str, sample: Sample, usage: Callable[[str], Usage | None]) -> Json:
    found: Json = {
        "name": sample.target.container,
        "startTime": _time(sample.target.started_at),
        "cpu": _cpu(at, sample),
        "memory": _memory(at, sample),
        "swap": {"time": at, "swapUsageBytes": sample.stats.memory.swap},
    }
    if used := usage(sample.target.upper):
        found["rootfs"] = _filesystem(at, used, used.bytes, used.inodes)
    return found


def _cpu(at: str, sample: Sample) -> Json:
    return {"time": at, "usageCoreNanoSeconds": sample.stats.cpu.usage_ns}


def _memory(at: str, sample: Sample) -> Json:
    memory = sample.stats.memory
    found = {
        "time": at,
        "usageBytes": memory.usage,
        "workingSetBytes": memory.working_set,
        "rssBytes": memory.rss,
        "pageFaults": memory.pgfault,
        "majorPageFaults": memory.pgmajfault,
    }
    if memory.limit:
        found["availableBytes"] = max(0, memory.limit - memory.working_set)
    return found


def _filesystem(at: str, usage: Usage, used: int, inodes: int) -> Json:
    place = usage.file_system
    return {
        "time": at,
        "availableBytes": place.available,
        "capacityBytes": place.size,
        "usedBytes": used,
        "inodesFree": place.inodes_free,
        "inodes": place.inodes,
        "inodesUsed": inodes,
    }


def _network(at: str, interfaces: Any) -> Json:
    every = [
        {"name": name, "rxBytes": v[0], "rxErrors": v[2], "txBytes": v[8], "txErrors": v[10]}
        for name, v in interfaces.items()
    ]
    first = next((i for i in every if i["name"] == "eth0"), every[0] if every else {"name": ""})
    return {"time": at, **first, "interfaces": every}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
