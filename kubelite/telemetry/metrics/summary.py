"""/stats/summary: kubelet's Summary API, which k9s, monitoring agents and older metrics-servers read.

Sources: Kubernetes staging/src/k8s.io/kubelet/pkg/apis/stats/v1alpha1/types.go (the document), pkg/kubelet/server/stats
and pkg/kubelet/stats (the meaning of the fields).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from kubelite.telemetry.sampling.disk_usage import Usage
from kubelite.telemetry.sampling.machine import FileSystem
from kubelite.telemetry.sampling.sampler import ResourceStalls, Sample, Snapshot, stalls_of
from kubelite.telemetry.sampling.volume_stats import Logs, Volume, summary_of

ROOT = "/"
SHORTEST = 1.0  # minimum seconds between the two readings of a rate; clock ticks distort shorter intervals


@dataclass(frozen=True, slots=True)
class Around:
    """The data that is not in the snapshot. `booted_at`: Unix seconds; `used`: directory → its last measured usage;
    `images`: the file system of the images; `pids`: the kernel's limit of processes and threads; `stalls`: as
    `Sampler.stalls` returns them."""

    node: str
    booted_at: float
    used: Callable[[str], Usage | None]
    images: FileSystem | None
    pids: int
    volumes: Sequence[Volume] = ()
    logs: Sequence[Logs] = ()
    stalls: Mapping[str, ResourceStalls] = field(default_factory=dict)


class CpuRates:
    """Computes the CPUs used between two requests: kubelet's `usageNanoCores`."""

    def __init__(self) -> None:
        # cgroup → time, nanoseconds and rate at that time.
        self._before: dict[str, tuple[float, int, int | None]] = {}

    def note(self, snapshot: Snapshot) -> Mapping[str, int]:
        """Return cgroup → nanocores; the machine's are under `ROOT`. A cgroup that is new in this snapshot is not in
        the result."""
        seen = {s.target.cgroup: s.stats.cpu.usage_ns for s in snapshot.all}
        seen[ROOT] = int(snapshot.root.cpu * 1e9)
        now, kept = snapshot.now, {}
        for place, used in seen.items():
            at, before, rate = self._before.get(place, (now, used, None))
            if now - at >= SHORTEST:
                at, before, rate = now, used, int(max(0, used - before) / (now - at))
            kept[place] = (at, before, rate)
        self._before = kept
        return {place: rate for place, (_, _, rate) in kept.items() if rate is not None}


def summary(snapshot: Snapshot, around: Around, rates: Mapping[str, int]) -> Json:
    """Return the Summary API's document. `rates`: the result of `CpuRates.note` for the snapshot."""
    at = rfc3339(snapshot.now)
    volumes, logs = _by_pod(around.volumes), _by_pod(around.logs)
    networks = {s.target.uid: found for s, found in snapshot.networks}
    containers: dict[str, list[Sample]] = {}
    for sample in snapshot.containers:
        containers.setdefault(sample.target.uid, []).append(sample)
    pods = []
    for pod in snapshot.pods:
        t, mine = pod.target, containers.get(pod.target.uid, [])
        said = {log.container: used for log in logs.get(t.uid, ()) if (used := around.used(log.path))}
        found: Json = {
            "podRef": {"name": t.pod, "namespace": t.namespace, "uid": t.uid},
            "startTime": rfc3339(t.started_at),
            "containers": [_container(at, c, rates, around, said) for c in mine],
            **_usage(at, pod, rates, around),
            "process_stats": {"process_count": len(pod.pids)},
        }
        full = [(v, used) for v in volumes.get(t.uid, ()) if (used := around.used(v.path))]
        if layers := [used for c in mine if (used := around.used(c.target.upper))]:
            empty = [used for v, used in full if not v.persistent and not v.memory]
            found["ephemeral-storage"] = _filesystem(at, [*layers, *said.values(), *empty])
        if full:
            found["volume"] = [summary_of(at, volume, used) for volume, used in full]
        if t.uid in networks:
            found["network"] = _network(at, networks[t.uid])
        pods.append(found)
    return {"node": _node(at, snapshot, around, rates), "pods": pods}


def cpu_and_memory(document: Json) -> Json:
    """Return the summary's CPU, memory and swap alone (pkg/kubelet/server/stats/summary.go, GetCPUAndMemoryStats)."""
    kept = ("cpu", "memory", "swap", "startTime")
    node, pods = document["node"], []
    for pod in document["pods"]:
        containers = [{key: one[key] for key in ("name", *kept) if key in one} for one in pod["containers"]]
        part = {key: pod[key] for key in ("podRef", *kept) if key in pod}
        pods.append({**part, "containers": containers})
    part = {key: node[key] for key in ("nodeName", "systemContainers", *kept) if key in node}
    return {"node": part, "pods": pods}


def _by_pod(things: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for thing in things:
        found.setdefault(thing.uid, []).append(thing)
    return found


def _node(at: str, snapshot: Snapshot, around: Around, rates: Mapping[str, int]) -> Json:
    root, free = snapshot.root, snapshot.root.memory.get("SwapFree", 0)
    document: Json = {
        "nodeName": around.node,
        "startTime": rfc3339(around.booted_at),
        "cpu": _cpu(at, int(root.cpu * 1e9), rates.get(ROOT)),
        "memory": {
            "time": at,
            "availableBytes": max(0, root.memory.get("MemTotal", 0) - root.working_set),
            "usageBytes": root.usage,
            "workingSetBytes": root.working_set,
            "rssBytes": root.memory.get("AnonPages", 0),
            "pageFaults": root.vm.get("pgfault", 0),
            "majorPageFaults": root.vm.get("pgmajfault", 0),
        },
        "swap": {
            "time": at,
            "swapAvailableBytes": free,
            "swapUsageBytes": max(0, root.memory.get("SwapTotal", 0) - free),
        },
        "network": _network(at, root.networks),
        "rlimit": {"time": at, "maxpid": around.pids, "curproc": root.threads},
    }
    _add_stalls(document, at, stalls_of(root))
    if root.file_systems:
        document["fs"] = {**_place(at, root.file_systems[0]), **_all_used(root.file_systems[0])}
    if around.images:
        layers = [used for s in snapshot.containers if (used := around.used(s.target.upper))]
        written = {"usedBytes": sum(u.bytes for u in layers), "inodesUsed": sum(u.inodes for u in layers)}
        place = _place(at, around.images)
        document["runtime"] = {
            "imageFs": {**place, **_all_used(around.images)},
            "containerFs": {**place, **written},
        }
    if groups := sorted(snapshot.groups, key=lambda group: len(group.target.cgroup)):
        pods = {
            "name": "pods",
            "startTime": rfc3339(around.booted_at),
            **_usage(at, groups[0], rates, around),
        }
        document["systemContainers"] = [pods]
    return document


def _container(
    at: str,
    sample: Sample,
    rates: Mapping[str, int],
    around: Around,
    logs: Mapping[str, Usage],
) -> Json:
    found: Json = {
        "name": sample.target.container,
        "startTime": rfc3339(sample.target.started_at),
        **_usage(at, sample, rates, around),
    }
    if layer := around.used(sample.target.upper):
        found["rootfs"] = _filesystem(at, [layer])
    if said := logs.get(sample.target.container):
        found["logs"] = _filesystem(at, [said])
    return found


def _usage(at: str, sample: Sample, rates: Mapping[str, int], around: Around) -> Json:
    memory, limit = sample.stats.memory, sample.limits.spec.swap_limit
    found: Json = {
        "cpu": _cpu(at, sample.stats.cpu.usage_ns, rates.get(sample.target.cgroup)),
        "memory": {
            "time": at,
            "usageBytes": memory.usage,
            "workingSetBytes": memory.working_set,
            "rssBytes": memory.rss,
            "pageFaults": memory.pgfault,
            "majorPageFaults": memory.pgmajfault,
        },
        "swap": {"time": at, "swapUsageBytes": memory.swap},
    }
    if memory.limit:
        found["memory"]["availableBytes"] = max(0, memory.limit - memory.working_set)
    if limit:
        found["swap"]["swapAvailableBytes"] = max(0, limit - memory.swap)
    _add_stalls(found, at, around.stalls.get(sample.target.cgroup, {}))
    return found


def _add_stalls(found: Json, at: str, stalls: ResourceStalls) -> None:
    """Add `psi` to cpu and memory, and `io`. Kubelet's totals are the kernel's, in microseconds (pkg/kubelet/stats,
    cadvisorPSIToStatsPSI)."""
    for resource, kinds in stalls.items():
        if kinds:
            none: Json = {"total": 0, "avg10": 0.0, "avg60": 0.0, "avg300": 0.0}
            psi = {
                kind: {"total": s.total_us, "avg10": s.avg10, "avg60": s.avg60, "avg300": s.avg300}
                for kind, s in kinds.items()
            }
            found.setdefault(resource, {"time": at})["psi"] = {"full": none, "some": none, **psi}


def _cpu(at: str, used: int, rate: int | None) -> Json:
    found = {"time": at, "usageCoreNanoSeconds": used}
    return found if rate is None else {**found, "usageNanoCores": rate}


def _filesystem(at: str, used: Sequence[Usage]) -> Json:
    """Describe the sum of several usages, on the file system of the first."""
    return {
        **_place(at, used[0].file_system),
        "usedBytes": sum(u.bytes for u in used),
        "inodesUsed": sum(u.inodes for u in used),
    }


def _place(at: str, place: FileSystem) -> Json:
    return {
        "time": at,
        "availableBytes": place.available,
        "capacityBytes": place.size,
        "inodesFree": place.inodes_free,
        "inodes": place.inodes,
    }


def _all_used(place: FileSystem) -> Json:
    return {"usedBytes": place.used, "inodesUsed": place.inodes - place.inodes_free}


def _network(at: str, interfaces: Any) -> Json:
    every = [
        {"name": name, "rxBytes": v[0], "rxErrors": v[2], "txBytes": v[8], "txErrors": v[10]}
        for name, v in interfaces.items()
    ]
    first = next((i for i in every if i["name"] == "eth0"), every[0] if every else {"name": ""})
    return {"time": at, **first, "interfaces": every}
