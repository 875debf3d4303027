"""The data of `kubelite top` and `kubelite stats`: a snapshot's counters as plain JSON. The client computes rates from
two requests, so nothing is measured unless a client asks.

Units: CPU and stalls in nanoseconds, CPU limits in millicores, the rest in bytes and counts. A limit of 0 means none.
"""

from __future__ import annotations

from kubelite.kube.json import Json
from kubelite.node.pressure.evictor import Measured
from kubelite.telemetry.sampling.machine import machine
from kubelite.telemetry.sampling.sampler import Sample, Snapshot
from runtime.cgroups.reading.stats import Pressure


def usage(snapshot: Snapshot, node: str) -> Json:
    root = snapshot.root
    return {
        "now": snapshot.now,
        "node": {
            "name": node,
            "cpu": int(root.cpu * 1e9),
            "cpuLimit": machine().cores * 1000,
            "memory": root.working_set,
            "memoryLimit": root.memory.get("MemTotal", 0),
            "threads": root.threads,
            "stalled": {name: _total(text) for name, text in root.pressure.items()},
            "received": sum(v[0] for v in root.networks.values()),
            "sent": sum(v[8] for v in root.networks.values()),
            "read": sum(d.read_sectors * 512 for d in root.disks),
            "written": sum(d.write_sectors * 512 for d in root.disks),
        },
        "pods": [{**_of(sample), **_network(snapshot, sample)} for sample in snapshot.pods],
        "containers": [_of(sample) for sample in snapshot.containers],
    }


def measured_pods(snapshot: Snapshot) -> dict[str, Measured]:
    """Return uid → the pod's usage by which eviction ranks it: working set and number of processes."""
    by_container: dict[str, dict[str, dict[str, int]]] = {}
    for s in snapshot.containers:
        amounts = {"memory": s.stats.memory.working_set, "pids": len(s.pids)}
        by_container.setdefault(s.target.uid, {})[s.target.container] = amounts
    return {
        s.target.uid: Measured(s.stats.memory.working_set, len(s.pids), by_container.get(s.target.uid, {}))
        for s in snapshot.pods
    }


def _of(sample: Sample) -> Json:
    target, stats, spec = sample.target, sample.stats, sample.limits.spec
    found: Json = {
        "namespace": target.namespace,
        "pod": target.pod,
        "uid": target.uid,
        "id": target.container_id or target.uid,
        "cpu": stats.cpu.usage_ns,
        "cpuLimit": spec.cpu_quota * 1000 // spec.cpu_period if spec.cpu_quota and spec.cpu_period else 0,
        "memory": stats.memory.working_set,
        "memoryLimit": stats.memory.limit,
        "periods": stats.cpu.periods,
        "throttled": stats.cpu.throttled_periods,
        "stalled": {
            name: pressure.some_us * 1000
            for name in ("cpu", "memory", "io")
            if (pressure := _pressure(sample, name)) is not None
        },
        "read": sum(device.rbytes for device in stats.io),
        "written": sum(device.wbytes for device in stats.io),
        "threads": stats.pids.current,
        "processes": len(sample.pids),
        "oomKills": stats.memory.oom_kills,
    }
    if target.container:
        found["container"] = target.container
    return found


def _pressure(sample: Sample, name: str) -> Pressure | None:
    found: Pressure | None = getattr(sample.stats.pressure, name)
    return found


def _network(snapshot: Snapshot, sample: Sample) -> Json:
    for sandbox, interfaces in snapshot.networks:
        if sandbox.target.uid == sample.target.uid:
            every = interfaces.values()
            return {"received": sum(v[0] for v in every), "sent": sum(v[8] for v in every)}
    return {}  # the pod uses the host's network


def _total(text: str) -> int:
    """Return the total of `some` in the text of a /proc/pressure file, in nanoseconds."""
    first = text.partition("\n")[0]
    return int(first.rpartition("total=")[2]) * 1000 if "total=" in first else 0
