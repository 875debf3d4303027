"""The document of the Summary API, from made-up numbers, and rates."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from kubelite.telemetry.metrics.exposition import render
from kubelite.telemetry.metrics.resource_page import write_resource
from kubelite.telemetry.metrics.summary import Around, CpuRates, summary
from kubelite.telemetry.sampling.disk_usage import Usage
from kubelite.telemetry.sampling.machine import FileSystem, Root
from kubelite.telemetry.sampling.sampler import Limits, Sample, Snapshot
from kubelite.telemetry.sampling.targets import Target
from kubelite.telemetry.sampling.volume_stats import Logs, Volume
from runtime.cgroups.reading.limits import Spec
from runtime.cgroups.reading.parsers import Stalls
from runtime.cgroups.reading.stats import CpuStats, MemoryStats, PidsStats, PressureStats, Stats

DISK = FileSystem("/dev/vda", 1000, 500, 400, 100, 50)
MEMORY = {"MemTotal": 100, "SwapTotal": 30, "SwapFree": 20}
USED = {
    "/layer": Usage(100, 1, DISK),
    "/logs": Usage(20, 2, DISK),
    "/disk": Usage(3, 3, DISK),
    "/ram": Usage(4000, 4, DISK),
    "/claim": Usage(50000, 5, DISK),
}
WHO = ("ns", "web", "u")
AROUND = Around(
    "node", 86400.0, USED.get, DISK, 4096,
    (
        Volume(*WHO, "disk", "/disk", 0), Volume(*WHO, "ram", "/ram", 0, memory=True),
        Volume(*WHO, "c", "/claim", 0, "c"),
    ),
    (Logs(*WHO, "app", "/logs"),),
)  # fmt: skip


def at(now: float, cpu_ns: int, *, swap_limit: int = 0) -> Snapshot:
    stats = Stats(CpuStats(cpu_ns), MemoryStats(swap=5, limit=10), PidsStats(), (), PressureStats())
    limits = Limits(Spec(swap_limit=swap_limit))
    group, pod = Target("/k"), Target("/k/u", *WHO)
    app = replace(pod, cgroup="/k/u/app", container="app", upper="/layer")
    samples = [Sample(target, stats, limits) for target in (app, pod, group)]
    root = Root(cpu_ns / 1e9, 0, 0, MEMORY, {}, 7, (), (DISK,), {}, {})
    return Snapshot(now, (samples[0],), (samples[1],), (samples[2],), (), root)


def of_pod(snapshot: Snapshot) -> dict[str, Any]:
    (found,) = summary(snapshot, AROUND, {})["pods"]
    assert isinstance(found, dict)
    return found


def test_a_rate_needs_two_readings_a_second_apart() -> None:
    rates = CpuRates()
    assert rates.note(at(100.0, 0)) == {}, "nothing to compare with"
    assert rates.note(at(100.5, 10**9)) == {}, "too near to tell"
    assert rates.note(at(102.0, 10**9)) == pytest.approx(dict.fromkeys(("/", "/k", "/k/u", "/k/u/app"), 5e8))
    assert rates.note(at(102.1, 9 * 10**9))["/k/u/app"] == pytest.approx(5e8), "the last one stands"
    assert rates.note(at(104.0, 0))["/k/u/app"] == 0, "another cgroup of the same name has not gone back"


def test_rates_of_removed_containers_are_forgotten() -> None:
    rates = CpuRates()
    rates.note(at(100.0, 0))
    rates.note(replace(at(102.0, 5), containers=()))
    assert "/k/u/app" not in rates.note(at(104.0, 5))


def test_the_rate_is_beside_the_counter() -> None:
    document = summary(at(100.0, 7), AROUND, {"/": 1, "/k": 2, "/k/u": 3, "/k/u/app": 4})
    (pod,) = document["pods"]
    cpus = [document["node"], document["node"]["systemContainers"][0], pod, pod["containers"][0]]
    assert [one["cpu"]["usageNanoCores"] for one in cpus] == [1, 2, 3, 4]
    assert {one["cpu"]["usageCoreNanoSeconds"] for one in cpus} == {7}
    assert "usageNanoCores" not in of_pod(at(100.0, 7))["cpu"]


def test_ephemeral_storage_is_layers_logs_and_volumes_on_disk() -> None:
    pod = of_pod(at(100.0, 7))
    assert (pod["ephemeral-storage"]["usedBytes"], pod["ephemeral-storage"]["inodesUsed"]) == (123, 6)
    assert [v["name"] for v in pod["volume"]] == ["disk", "ram", "c"]
    (app,) = pod["containers"]
    assert (app["rootfs"]["usedBytes"], app["logs"]["usedBytes"]) == (100, 20)


def test_the_node() -> None:
    node = summary(at(100.0, 7), AROUND, {})["node"]
    assert node["startTime"] == "1970-01-02T00:00:00Z", "the machine's, as kubelet says it"
    assert (node["swap"]["swapUsageBytes"], node["swap"]["swapAvailableBytes"]) == (10, 20)
    assert (node["rlimit"]["maxpid"], node["rlimit"]["curproc"]) == (4096, 7)
    runtime = node["runtime"]
    assert (runtime["imageFs"]["usedBytes"], runtime["containerFs"]["usedBytes"]) == (500, 100)
    assert [one["name"] for one in node["systemContainers"]] == ["pods"]
    assert "runtime" not in summary(at(100.0, 7), replace(AROUND, images=None), {})["node"]


def test_stalls() -> None:
    some, full = Stalls(1.5, 0.5, 0.1, 7), Stalls(0.5, 0.25, 0.0, 3)
    around = replace(AROUND, stalls={"/k/u/app": {"cpu": {"some": some}, "io": {"some": some, "full": full}}})
    snapshot = at(100.0, 7)
    text = "some avg10=1.50 avg60=0.50 avg300=0.10 total=7\nfull avg10=0.50 avg60=0.25 avg300=0.00 total=3\n"
    document = summary(replace(snapshot, root=replace(snapshot.root, pressure={"memory": text})), around, {})
    (pod,) = document["pods"]
    (app,) = pod["containers"]
    seen = {"total": 7, "avg10": 1.5, "avg60": 0.5, "avg300": 0.1}
    all_tasks = {"total": 3, "avg10": 0.5, "avg60": 0.25, "avg300": 0.0}
    assert app["io"] == {"time": app["cpu"]["time"], "psi": {"some": seen, "full": all_tasks}}
    none = {"total": 0, "avg10": 0.0, "avg60": 0.0, "avg300": 0.0}
    assert app["cpu"]["psi"] == {"some": seen, "full": none}, "a kernel without `full` for CPU"
    assert document["node"]["memory"]["psi"] == {"some": seen, "full": all_tasks}
    for place in (pod, document["node"]):
        assert "io" not in place and "psi" not in place["cpu"], "the kernel has none"


@pytest.mark.parametrize(("limit", "left"), [(0, None), (8, 3), (4, 0)])
def test_available_swap(limit: int, left: int | None) -> None:
    assert of_pod(at(100.0, 7, swap_limit=limit))["swap"].get("swapAvailableBytes") == left
    write = partial(write_resource, snapshot=at(100.0, 7, swap_limit=limit))
    page = render(write, openmetrics=False, compressed=False).decode()
    said = [line for line in page.splitlines() if line.startswith("container_swap_limit_bytes")]
    wanted = f'container_swap_limit_bytes{{container="app",namespace="ns",pod="web"}} {limit}'
    assert said == ([wanted] if limit else [])
