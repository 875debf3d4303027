"""Each value of the metrics compared with an independent measurement: cgroup files, /proc, a known number of bytes."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from runtime.cgroups import open_cgroup
from runtime.cgroups.layout import Mode, layout
from runtime.cgroups.reading.parsers import stalls
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node
from tests.e2e.test_metrics import METRICS, one, samples
from tests.programs import BUSYBOX

BASE = "http://127.0.0.1:10255"
BUSY = "trap 'exit 0' TERM; while :; do :; done"


def cgroup_of(node: Node, name: str, container: str = "main") -> str:
    found = json.loads(node.cli("inspect", f"default/{name}").out)
    running = [c for c in found["containers"] if c["name"] == container and c["state"] == "running"]
    return str(running[0]["cgroup"])


def file_of(cgroup: str, v1: tuple[str, str], v2: str) -> str:
    """A cgroup file by its name on this machine's cgroup version."""
    where = layout()
    if where.mode is Mode.V2:
        return Path(f"{where.unified}{cgroup}/{v2}").read_text()
    return Path(f"{where.v1[v1[0]]}{cgroup}/{v1[1]}").read_text()


def keyed(text: str, key: str) -> int:
    words = text.split()
    return int(words[words.index(key) + 1])


def cpu_seconds(cgroup: str) -> float:
    where = layout()
    if where.unified and (stat := Path(f"{where.unified}{cgroup}/cpu.stat")).exists():
        return keyed(stat.read_text(), "usage_usec") / 1e6
    return int(Path(f"{where.v1['cpuacct']}{cgroup}/cpuacct.usage").read_text()) / 1e9


def fetch(node: Node, path: str, **headers: str) -> tuple[str, bytes]:
    """(content type, undecoded body) of a page."""
    found = node.fetch(BASE + path, headers=headers)
    return found.headers.get("content-type", "").lower(), found.body


def test_cpu_memory_and_processes_are_the_kernels(node: Node) -> None:
    limits = {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
    script = f"sleep 1000 & sleep 1000 & {BUSY}"
    node.apply("busy.yaml", pod("busy", container(script=script, resources=limits)))
    node.wait_status("busy", "Running")
    group, pid = cgroup_of(node, "busy"), node.pid("busy")
    row = {"namespace": "default", "pod": "busy", "container": "main", "id": group}
    node.wait(lambda: len(open_cgroup(group).pids()) == 3, "the script to have its children")

    before = cpu_seconds(group)
    page = node.get(METRICS)
    after = cpu_seconds(group)
    assert before <= one(page, "container_cpu_usage_seconds_total", **row, cpu="total") <= after
    total = one(page, "container_cpu_user_seconds_total", **row) + one(
        page, "container_cpu_system_seconds_total", **row
    )
    assert total <= after + 0.02  # v1 counts these two in ticks

    usage = int(file_of(group, ("memory", "memory.usage_in_bytes"), "memory.current"))
    assert abs(one(page, "container_memory_usage_bytes", **row) - usage) <= max(usage * 0.02, 64 << 10)
    stat = file_of(group, ("memory", "memory.stat"), "memory.stat")
    rss = keyed(stat, "anon" if layout().mode is Mode.V2 else "total_rss")
    assert abs(one(page, "container_memory_rss", **row) - rss) <= max(rss * 0.02, 64 << 10)
    inactive = keyed(stat, "inactive_file" if layout().mode is Mode.V2 else "total_inactive_file")
    working = max(0, usage - inactive)
    assert abs(one(page, "container_memory_working_set_bytes", **row) - working) <= max(
        working * 0.02, 64 << 10
    )
    assert one(page, "container_spec_memory_limit_bytes", **row) == 64 << 20
    assert one(page, "container_spec_cpu_period", **row) == 100_000
    assert one(page, "container_spec_cpu_quota", **row) == 20_000
    shares = one(page, "container_spec_cpu_shares", **row)
    assert (
        shares == 51 or layout().mode is Mode.V2
    )  # v2 has a weight, from which the shares are computed back
    assert one(page, "container_processes", **row) == 3
    assert one(page, "container_threads", **row) == 3
    open_files = sum(len(os.listdir(f"/proc/{p}/fd")) for p in open_cgroup(group).pids())
    assert one(page, "container_file_descriptors", **row) == open_files
    soft = next(x for x in Path(f"/proc/{pid}/limits").read_text().splitlines() if "open files" in x).split()[
        3
    ]
    assert one(page, "container_ulimits_soft", **row, ulimit="max_open_files") == int(soft)
    pod_row = {"namespace": "default", "pod": "busy", "container": "", "image": "", "name": ""}
    assert one(page, "container_processes", **pod_row) == 3
    for labels in (row, pod_row):
        pairs = next(
            x for x in page.splitlines() if x.startswith("container_memory_rss{") and labels["pod"] in x
        )
        assert all(f"{name}=" in pairs for name in ("container", "id", "image", "name", "namespace", "pod"))


def test_throttling_and_pressure_are_the_kernels(node: Node) -> None:
    """A process that needs ten times its quota: the value of the page lies between two readings."""
    limits = {"limits": {"cpu": "100m", "memory": "64Mi"}}
    node.apply("slow.yaml", pod("slow", container(script=BUSY, resources=limits)))
    node.wait_status("slow", "Running")
    group = cgroup_of(node, "slow")
    row = {"pod": "slow", "container": "main"}

    def throttled() -> tuple[int, int, float]:
        text = file_of(group, ("cpu", "cpu.stat"), "cpu.stat")
        v2 = layout().mode is Mode.V2
        took = keyed(text, "throttled_usec") / 1e6 if v2 else keyed(text, "throttled_time") / 1e9
        return keyed(text, "nr_periods"), keyed(text, "nr_throttled"), took

    def pressure() -> dict[str, tuple[float, float]]:
        """Resource → seconds that some, and that all, tasks waited; empty if the kernel does not count them."""
        found = {}
        for name in ("cpu", "memory", "io"):
            try:
                lines = Path(f"{layout().unified}{group}/{name}.pressure").read_text().splitlines()
            except OSError:
                continue
            totals = {line.split()[0]: int(line.rpartition("total=")[2]) / 1e6 for line in lines}
            found[name] = (totals.get("some", 0.0), totals.get("full", 0.0))
        return found

    node.wait(lambda: throttled()[1] >= 5, "the quota to be used up")
    before, stalls = throttled(), pressure()
    page = node.get(METRICS)
    after, later = throttled(), pressure()
    for place, name in enumerate(("periods", "throttled_periods", "throttled_seconds")):
        assert before[place] <= one(page, f"container_cpu_cfs_{name}_total", **row) <= after[place]
    for name, (some, full) in stalls.items():
        waiting = one(page, f"container_pressure_{name}_waiting_seconds_total", **row)
        stalled = one(page, f"container_pressure_{name}_stalled_seconds_total", **row)
        assert some <= waiting <= later[name][0]
        assert full <= stalled <= later[name][1]
    shown = samples(page, "container_pressure_cpu_waiting_seconds_total", **row)
    assert bool(shown) == ("cpu" in stalls), "there where the kernel counts it, and only there"
    assert not shown or shown[0] > 0


@pytest.mark.either_cgroup
def test_sockets_are_counted(node: Node) -> None:
    script = "nc -ll -p 7001 -e true & nc -ll -p 7002 -e true & sleep 1000"
    node.apply("ears.yaml", pod("ears", container(script=script)))
    node.wait_status("ears", "Running")

    def open_sockets() -> int:
        found = 0
        for pid in open_cgroup(cgroup_of(node, "ears")).pids():
            links = (os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())
            found += sum(link.startswith("socket:") for link in links)
        return found

    node.wait(lambda: open_sockets() == 2, "both to listen")
    row = {"pod": "ears", "container": "main"}
    node.wait(
        lambda: samples(node.get(METRICS), "container_sockets", **row) == [2.0],
        "the sockets to be measured",
        timeout=80,
    )


@pytest.mark.either_cgroup
def test_bytes_sent_are_counted(node: Node) -> None:
    node.apply("net.yaml", pod("net"))
    node.wait_status("net", "Running")
    address = node.pod("net")["status"]["podIP"]
    row = {"pod": "net", "container": "POD", "interface": "eth0"}
    ping = node.in_netns(BUSYBOX, "ping", "-qc", "50", "-s", "1000", "-i", "0.002", address)
    subprocess.run(
        node.in_netns(BUSYBOX, "ping", "-qc", "1", address), check=True, capture_output=True
    )  # ARP is done
    names = ("container_network_receive_bytes_total", "container_network_transmit_bytes_total")
    before = [one(node.get(METRICS), name, **row) for name in names]
    subprocess.run(ping, check=True, capture_output=True)
    page = node.get(METRICS)
    sent = 50 * (1000 + 8 + 20 + 14)  # ICMP, IP and Ethernet headers
    for name, was in zip(names, before, strict=True):
        assert abs(one(page, name, **row) - was - sent) <= sent * 0.02
    dev = Path(f"/proc/{node.pid('net')}/net/dev").read_text()
    received = int(next(x for x in dev.splitlines() if "eth0:" in x).split()[1])
    assert abs(one(page, names[0], **row) - received) <= received * 0.02


def test_bytes_written_are_counted(node: Node) -> None:
    script = "dd if=/dev/zero of=/big bs=64k count=64 conv=fsync 2>/dev/null; echo done; " + "sleep 1000"
    node.apply("disk.yaml", pod("disk", container(script=script)))
    node.wait(lambda: "done" in node.logs("disk"), "the file to be written")
    group = cgroup_of(node, "disk")
    text = file_of(group, ("blkio", "blkio.throttle.io_service_bytes_recursive"), "io.stat")
    page = node.get(METRICS)
    row = {"pod": "disk", "container": "main"}
    shown = sum(samples(page, "container_fs_writes_bytes_total", **row))
    if layout().mode is Mode.V2:
        written = sum(int(w.removeprefix("wbytes=")) for w in text.split() if w.startswith("wbytes="))
    else:
        written = sum(int(x.split()[2]) for x in text.splitlines() if " Write " in x)
    assert shown == written
    if written:  # a layer on a disk (in memory, as in the UML guest, nothing is written to a device)
        assert abs(shown - (4 << 20)) < (4 << 20) * 0.05  # including the file system's own blocks
        device = next(
            x for x in page.splitlines() if x.startswith('container_fs_writes_bytes_total{container="main"')
        )
        assert 'device="/dev/' in device
    node.wait(
        lambda: any(
            abs(used - (4 << 20)) <= (4 << 20) * 0.02
            for used in samples(node.get(METRICS), "container_fs_usage_bytes", **row)
        ),
        "the layer to be measured",
        timeout=40,
    )


@pytest.mark.either_cgroup
def test_the_usage_of_volumes_is_measured(node: Node) -> None:
    """A write of known size to a limited volume on disk, and one to a volume in memory."""
    volumes = [
        {"name": "disk", "emptyDir": {"sizeLimit": "64Mi"}},
        {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    fill = "for d in disk ram; do dd if=/dev/urandom of=/$d/file bs=1M count=8 2>/dev/null; done; sync; touch /ready"
    script = f"trap 'exit 0' TERM; {fill}; while :; do sleep 0.1; done"
    node.apply("v.yaml", pod("v", container(script=script, volumeMounts=mounts), volumes=volumes))
    node.wait(
        lambda: node.cli("exec", "v", "--", "test", "-e", "/ready", check=False).code == 0, "the writes"
    )

    def used(volume: str) -> list[float]:
        found = samples(
            node.get(METRICS), "kubelet_volume_stats_used_bytes", persistentvolumeclaim=f"v-{volume}"
        )
        return [value for value in found if value >= 8 << 20]

    node.wait(lambda: used("disk") and used("ram"), "what was written to be measured", timeout=80)
    assert used("disk") == [pytest.approx(8 << 20, rel=0.02)]
    assert used("ram") == [pytest.approx(8 << 20, rel=0.02)]
    page = node.get(METRICS)
    for volume, limit in (("disk", 64 << 20), ("ram", 16 << 20)):
        claim = {"namespace": "default", "persistentvolumeclaim": f"v-{volume}"}
        assert one(page, "kubelet_volume_stats_capacity_bytes", **claim) == limit
        available = one(page, "kubelet_volume_stats_available_bytes", **claim)
        assert available == pytest.approx(limit - (8 << 20), rel=0.02)
    (found,) = json.loads(node.get(f"{BASE}/stats/summary"))["pods"]
    assert {v["name"]: v["usedBytes"] for v in found["volume"]} == {
        "disk": pytest.approx(8 << 20, rel=0.02), "ram": pytest.approx(8 << 20, rel=0.02),
    }  # fmt: skip
    node.cli("delete", "-f", str(node.manifests / "v.yaml"))
    node.wait_gone("v")
    assert samples(node.get(METRICS), "kubelet_volume_stats_used_bytes") == []


@pytest.mark.either_cgroup
def test_the_usage_of_a_claim_is_measured(node: Node) -> None:
    node.apply(
        "data.yaml",
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\n"
        "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}\n",
    )
    mount = [{"name": "d", "mountPath": "/d"}]
    volume = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    fill = "dd if=/dev/urandom of=/d/file bs=1M count=8 2>/dev/null; sync; exec sleep 1000"
    node.apply("w.yaml", pod("w", container(script=fill, volumeMounts=mount), volumes=volume))
    node.apply("r.yaml", pod("r", container(volumeMounts=mount), volumes=volume))
    node.wait_status("r", "Running")
    row = {"namespace": "default", "persistentvolumeclaim": "data"}
    node.wait(
        lambda: (
            samples(node.get(METRICS), "kubelet_volume_stats_used_bytes", **row)
            == [pytest.approx(8 << 20, rel=0.02)]
        ),
        "the claim to be measured, once for both pods",
        timeout=80,
    )
    page = node.get(METRICS)
    assert one(page, "kubelet_volume_stats_capacity_bytes", **row) == 64 << 20
    assert one(page, "kube_persistentvolumeclaim_status_phase", **row, phase="Bound") == 1
    assert one(page, "kube_persistentvolumeclaim_resource_requests_storage_bytes", **row) == 64 << 20
    for state in ("desired", "actual"):
        where = {"plugin_name": "kubernetes.io/local-volume", "state": f"{state}_state_of_world"}
        assert one(page, "volume_manager_total_volumes", **where) == 2, "what two pods mount"
    assert one(page, "kube_pod_spec_volumes_persistentvolumeclaims_info", **row, pod="r", volume="d") == 1
    found = json.loads(node.get(f"{BASE}/stats/summary"))["pods"]
    assert {v["pvcRef"]["name"] for one in found for v in one["volume"]} == {"data"}


def test_an_oom_kill_is_counted(node: Node) -> None:
    script = "trap 'exit 0' TERM; tail /dev/zero; while :; do sleep 0.1; done"
    node.apply("oom.yaml", pod("oom", container(script=script, resources={"limits": {"memory": "16Mi"}})))
    # v1: the container's own count; v2: the pod's count includes containers that have died
    node.wait(
        lambda: max(samples(node.get(METRICS), "container_oom_events_total", pod="oom"), default=0) >= 1,
        "the kill to be counted",
    )


def test_counters_continue_across_a_restart_of_the_daemon(node: Node) -> None:
    node.apply("p.yaml", pod("p", container(script=BUSY)))
    node.wait_status("p", "Running")
    address = node.pod("p")["status"]["podIP"]
    subprocess.run(
        node.in_netns(BUSYBOX, "ping", "-qc", "3", "-i", "0.01", address), check=True, capture_output=True
    )
    watched = (
        ("container_cpu_usage_seconds_total", {"pod": "p", "container": "main"}),
        ("container_network_receive_bytes_total", {"pod": "p", "container": "POD"}),
        (
            "container_memory_failures_total",
            {"pod": "p", "container": "main", "scope": "container", "failure_type": "pgfault"},
        ),
    )
    page = node.get(METRICS)
    before = [one(page, name, **row) for name, row in watched]
    assert all(value > 0 for value in before)
    node.restart(9)
    node.wait(
        lambda: samples(node.get(METRICS), "container_cpu_usage_seconds_total", pod="p"), "the pod again"
    )
    page = node.get(METRICS)
    for (name, row), was in zip(watched, before, strict=True):
        assert one(page, name, **row) >= was
    assert one(page, "container_start_time_seconds", pod="p", container="main") > 0


def test_containers_that_die_during_a_scrape_break_nothing(node: Node) -> None:
    for place in range(4):
        script = "sleep 0.2; exit 0"
        node.apply(f"{place}.yaml", pod(f"short{place}", container(script=script), restartPolicy="Always"))
    for _ in range(25):
        page = node.get(METRICS)
        names = [f.name for f in parse_text(page)]
        assert len(names) == len(set(names))
        assert one(page, "container_scrape_error") == 0


@pytest.mark.either_cgroup
def test_the_pages(node: Node) -> None:
    node.apply("p.yaml", pod("p", container(resources={"limits": {"memory": "32Mi"}})))
    node.wait_status("p", "Running")
    kind, body = fetch(node, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert len(list(parse_openmetrics(body.decode()))) > 100  # type: ignore[no-untyped-call]
    kind, body = fetch(node, "/metrics", **{"Accept-Encoding": "gzip"})
    assert kind.startswith("text/plain; version=0.0.4")
    text = gzip.decompress(body).decode()
    families = {f.name for f in parse_text(text)}
    assert {"container_memory_rss", "kube_pod_info", "kubelet_running_pods", "machine_cpu_cores"} <= families
    # measured only on demand: before the first scrape of this node it was not measured
    assert one(text, "kubelite_disk_usage_timestamp_seconds") >= 0

    resource = node.get(f"{BASE}/metrics/resource")
    assert (
        one(resource, "container_memory_working_set_bytes", pod="p", container="main", namespace="default")
        > 0
    )
    assert one(resource, "pod_cpu_usage_seconds_total", pod="p", namespace="default") > 0
    assert one(resource, "node_memory_working_set_bytes") > 0
    assert (
        "node_cpu_usage_seconds_total" not in families
    )  # not together with cAdvisor's: it would be counted twice
    cadvisor = node.get(f"{BASE}/metrics/cadvisor")
    assert "kube_pod_info" not in cadvisor
    assert one(cadvisor, "container_memory_working_set_bytes", id="/") > 0
    assert one(node.get(f"{BASE}/metrics/state"), "kube_pod_info", pod="p") == 1
    assert fetch(node, "/metrics/nonsense")[1].startswith(
        b"there is no page nonsense; the pages are: cadvisor"
    )

    summary = json.loads(node.get(f"{BASE}/stats/summary"))
    assert summary["node"]["nodeName"] == node.name
    (found,) = summary["pods"]
    assert found["podRef"]["name"] == "p"
    (main,) = found["containers"]
    assert main["memory"]["workingSetBytes"] > 0
    assert main["memory"]["availableBytes"] <= 32 << 20
    assert found["network"]["name"] == "eth0"
    booted = datetime.fromtimestamp(keyed(Path("/proc/stat").read_text(), "btime"), UTC)
    assert summary["node"]["startTime"] == booted.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert summary["node"]["rlimit"]["maxpid"] <= int(Path("/proc/sys/kernel/pid_max").read_text())
    assert summary["node"]["runtime"]["imageFs"]["capacityBytes"] > 0


def test_the_summary_has_the_cpu_usage(node: Node) -> None:
    node.apply("busy.yaml", pod("busy", container(script=BUSY)))
    node.wait_status("busy", "Running")

    def main() -> dict[str, Any]:
        ((one,),) = [p["containers"] for p in json.loads(node.get(f"{BASE}/stats/summary"))["pods"]]
        return dict(one)

    assert "usageNanoCores" not in main()["cpu"], "a first reading has no rate"
    node.wait(lambda: main()["cpu"].get("usageNanoCores", 0) > 0, "a rate")
    kernel = Path(f"{layout().unified}{cgroup_of(node, 'busy')}/cpu.pressure")
    if kernel.exists():
        before, psi, after = stalls(kernel.read_bytes()), main()["cpu"]["psi"], stalls(kernel.read_bytes())
        for kind in ("some", "full"):
            assert before[kind].total_us <= psi[kind]["total"] <= after[kind].total_us
    node.wait(lambda: "usedBytes" in main().get("logs", {}), "its logs to be measured", timeout=80)


def test_nothing_is_measured_without_a_request(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    stamp = "kubelite_disk_usage_timestamp_seconds"
    assert one(node.get(f"{BASE}/metrics/agent"), stamp) == 0
    node.wait(lambda: one(node.get(f"{BASE}/metrics/agent"), stamp) > 0, "a measure after the question")


@pytest.mark.either_cgroup
@pytest.mark.parametrize(
    "family", ["kubelet_pod_start_duration_seconds_count", "kubelet_started_containers_total"]
)
def test_starts_are_counted(node: Node, family: str) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    node.wait(lambda: samples(node.get(f"{BASE}/metrics/agent"), family) == [1], f"{family} to be 1")


def test_top_agrees_with_the_kernel(node: Node) -> None:
    limits = {"limits": {"cpu": "100m", "memory": "64Mi"}}
    node.apply("busy.yaml", pod("busy", container(script=BUSY, resources=limits)))
    node.wait_status("busy", "Running")
    group = cgroup_of(node, "busy")
    before = cpu_seconds(group)
    (item,) = json.loads(node.cli("top", "containers", "-o", "json").out)["items"]
    grown = cpu_seconds(group) - before
    assert 0 < item["cpu"] <= grown * 1000 + 1  # it measured for a second, within our own measurement
    usage = int(file_of(group, ("memory", "memory.usage_in_bytes"), "memory.current"))
    assert 0 < item["memory"] <= usage * 1.02 + (64 << 10)
    assert item["memoryLimit"] == 64 << 20
    assert item["cpuLimit"] == 100
    name, cores, memory = node.cli("top", "pods", "--no-headers").out.split()
    assert name == "busy"
    assert cores.endswith("m")
    assert memory.endswith("Mi")
    assert node.cli("top", "node").out.splitlines()[1].startswith(node.name)
    assert "busy" in node.cli("stats", "--no-stream").out


@pytest.mark.either_cgroup
def test_the_web_page(node: Node) -> None:
    node.apply("p.yaml", pod("p", container(env=[{"name": "PASSWORD", "value": "hunter2"}])))
    node.wait_status("p", "Running")
    kind, body = fetch(node, "/")
    assert kind.startswith("text/html")
    assert b'<a href="/pods/default/p">p</a>' in body
    assert re.search(rb'<span class="mark running"><i [^>]*>[^<]*</i>Running</span>', body)
    node.wait(lambda: b"<polyline" in fetch(node, "/")[1], "a line through what was measured")
    _, body = fetch(node, "/pods/default/p")
    assert b"shim" in body
    assert b"hunter2" not in body
    assert fetch(node, "/pods/default/nope")[1] == b"no such pod\n"
    for method in ("POST", "DELETE", "PUT"):
        assert node.fetch(f"{BASE}/", method=method).status == 405


@pytest.mark.either_cgroup
def test_probes_are_counted(node: Node) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    bad = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    node.apply("p.yaml", pod("p", container(readinessProbe=probe), container("other", readinessProbe=bad)))
    row = {"pod": "p", "namespace": "default", "probe_type": "Readiness"}
    for name, result in (("main", "successful"), ("other", "failed")):
        node.wait(
            lambda name=name, result=result: (
                sum(  # type: ignore[misc]
                    samples(
                        node.get(f"{BASE}/metrics/probes"),
                        "prober_probe_total",
                        container=name,
                        result=result,
                        **row,
                    )
                )
                >= 1
            ),
            f"{name}'s probe to be {result}",
        )
    page = node.get(f"{BASE}/metrics/probes")
    assert one(page, "prober_probe_duration_seconds_count", container="main", **row) >= 1
    health = node.get(f"{BASE}/metrics/cadvisor")
    assert one(health, "container_health_state", pod="p", container="other") == 0
