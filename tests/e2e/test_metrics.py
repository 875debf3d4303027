"""The pages that Prometheus scrapes, compared with the kernel."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node
from tests.programs import BUSYBOX

METRICS = "http://127.0.0.1:10255/metrics"


def samples(page: str, family: str, **labels: str) -> list[float]:
    """Values of the family's series whose labels include these."""
    found = []
    for line in page.splitlines():
        match = re.fullmatch(rf"{family}(?:{{(.*)}})? (\S+)", line)
        if match is None:
            continue
        pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[1] or ""))
        if all(pairs.get(key) == value for key, value in labels.items()):
            found.append(float(match[2]))
    return found


def one(page: str, family: str, **labels: str) -> float:
    found = samples(page, family, **labels)
    assert len(found) == 1, (family, labels, found)
    return found[0]


def test_a_container_is_measured(node: Node) -> None:
    script = """
        dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null
        x=$(head -c 4000000 /dev/zero | tr '\\0' a)
        trap 'exit 0' TERM; while :; do :; done
    """
    limits = {"limits": {"memory": "64Mi", "cpu": "100m"}}  # so little that even a busy machine provides more
    node.apply("hog.yaml", pod("hog", container(script=script, resources=limits)))
    node.wait_status("hog", "Running")
    place = {"namespace": "default", "pod": "hog", "container": "main"}
    node.wait(
        lambda: samples(node.get(METRICS), "container_cpu_cfs_throttled_periods_total", **place) > [0],
        "throttling",
    )
    node.wait(
        lambda: samples(node.get(METRICS), "container_memory_rss", **place) > [3_000_000],
        "the script to hold its memory",
    )
    page = node.get(METRICS)
    assert one(page, "container_spec_memory_limit_bytes", **place) == 64 << 20
    assert 0 < one(page, "container_cpu_usage_seconds_total", **place, cpu="total") < 20
    assert one(page, "container_memory_usage_bytes", **place) > 4_000_000
    assert one(page, "container_processes", **place) >= 1
    assert one(page, "container_oom_events_total", **place) == 0
    assert (
        abs(
            one(page, "container_start_time_seconds", **place)
            - Path(f"/proc/{node.pid('hog')}").stat().st_mtime
        )
        < 60
    )
    pod_row = {"namespace": "default", "pod": "hog", "container": "", "image": "", "name": ""}
    assert one(page, "container_memory_usage_bytes", **pod_row) >= one(
        page, "container_memory_usage_bytes", **place
    )
    assert (
        one(page, "container_network_receive_bytes_total", pod="hog", container="POD", interface="eth0") >= 0
    )
    assert one(page, "kube_pod_container_status_restarts_total", **place) == 0
    assert one(page, "kube_pod_status_phase", pod="hog", phase="Running") == 1
    # measured periodically: on a slow machine perhaps first while the file is still being written
    node.wait(
        lambda: any(
            abs(used - (8 << 20)) < (8 << 20) * 0.02
            for used in samples(node.get(METRICS), "container_fs_usage_bytes", **place)
        ),
        "the writable layer to be measured with the 8 MiB in it",
        timeout=40,
    )


@pytest.mark.either_cgroup
def test_network_counts_what_was_sent(node: Node) -> None:
    node.apply("net.yaml", pod("net"))
    node.wait_status("net", "Running")
    address = node.pod("net")["status"]["podIP"]
    row = {"pod": "net", "container": "POD", "interface": "eth0"}
    before = one(node.get(METRICS), "container_network_receive_packets_total", **row)
    subprocess.run(
        node.in_netns(BUSYBOX, "ping", "-qc", "20", "-i", "0.01", address), check=True, capture_output=True
    )
    after = one(node.get(METRICS), "container_network_receive_packets_total", **row)
    assert 20 <= after - before < 40
    rows = r'^container_network_receive_bytes_total\{.*id="/".*interface="(.+)"'
    of_the_node = re.findall(rows, node.get(METRICS), re.M)
    assert of_the_node == [node.bridge], "pods' own ends are no interfaces of the node's"


def test_series_of_a_removed_pod_are_gone_at_once(node: Node) -> None:
    path = node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    assert samples(node.get(METRICS), "container_memory_usage_bytes", pod="p")
    path.unlink()
    node.wait_gone("p")
    assert samples(node.get(METRICS), "container_memory_usage_bytes", pod="p") == []


@pytest.mark.either_cgroup
def test_health(node: Node) -> None:
    assert node.get("http://127.0.0.1:10255/healthz") == "ok\n"
    assert node.get("http://127.0.0.1:10255/readyz") == "ok\n"
    node.manifests.rename(node.manifests.with_suffix(".gone"))
    node.wait(lambda: "manifests" in node.get("http://127.0.0.1:10255/readyz"), "readyz to say it")
    node.manifests.with_suffix(".gone").rename(node.manifests)
    node.wait(lambda: node.get("http://127.0.0.1:10255/readyz") == "ok\n", "it to be ready again")


@pytest.mark.either_cgroup
@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (prometheus)")
def test_promtool_finds_nothing_wrong(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    page = node.get(METRICS)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if not is_upstream(line)]
    assert complaints == []


def is_upstream(line: str) -> bool:
    """Names that kubelet and cAdvisor use, too, although promtool objects to them."""
    return any(
        word in line
        for word in ("cadvisor_version_info", "container_fs_inodes_total", "container_memory_failcnt")
    )
