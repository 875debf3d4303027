"""Debian's Prometheus scrapes a node with the shipped configuration; the rules and dashboards work with it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import runpy
import shutil
import signal
import subprocess
import urllib.parse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.manifests import container, pod
from tests.e2e.node import PATIENCE, REPO, Node

DEPLOY = REPO / "deploy"
PROMETHEUS = "http://127.0.0.1:9090"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (prometheus)")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus")


@contextlib.contextmanager
def prometheus(node: Node, base: Path) -> Iterator[None]:
    """A Prometheus on the node's loopback with the shipped configuration and a shorter scrape interval."""
    base.mkdir()
    text = (DEPLOY / "prometheus.yml").read_text().replace("interval: 15s", "interval: 1s")
    (base / "prometheus.yml").write_text(text)
    shutil.copytree(DEPLOY / "rules", base / "rules")
    command = node.in_netns(
        "prometheus",
        f"--config.file={base}/prometheus.yml",
        f"--storage.tsdb.path={base}/data",
        "--web.listen-address=127.0.0.1:9090",
    )
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        node.wait(lambda: is_ready(node), "Prometheus to be ready", timeout=60)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20 * PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def api(node: Node, path: str) -> Any:
    answer = json.loads(node.fetch(PROMETHEUS + path, timeout=10.0).body)
    assert answer["status"] == "success", (path, answer)
    return answer["data"]


def is_ready(node: Node) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return node.fetch(f"{PROMETHEUS}/-/ready").status == 200
    return False


def query(node: Node, expression: str) -> list[dict[str, Any]]:
    return list(api(node, f"/api/v1/query?query={urllib.parse.quote(expression, safe='')}")["result"])


def dashboard_queries() -> list[tuple[str, str]]:
    """(panel, expression with values for the dashboard's variables) of all dashboards."""
    found = []
    for file in ("node.json", "pod.json", "workloads.json"):
        board = json.loads((DEPLOY / "dashboards" / file).read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                found.append((f"{file}: {panel['title']}", target["expr"]))
    return found


def filled(expression: str, node: Node) -> str:
    words = {"$node": node.name, "$namespace": "default", "$pod": "web", "$__rate_interval": "30s"}
    for name, value in words.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def on_a_disk() -> bool:
    """Whether this machine has a file system on a block device, which node dashboards show."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return any(device.startswith("/dev/") for device, *_ in mounts)


@needs_prometheus
@pytest.mark.skipif(not on_a_disk(), reason="needs a file system on a block device")
def test_prometheus_reads_all_pages_and_the_dashboards_have_data(node: Node, tmp_path: Path) -> None:
    """One Prometheus for all checks: targets, labels, dashboards, rules, selectors of public dashboards."""
    limits = {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}}
    script = """
        dd if=/dev/zero of=/data/file bs=64k count=4 conv=fsync 2>/dev/null
        trap 'exit 0' TERM; while :; do :; done
    """
    mounts = [{"name": "data", "mountPath": "/data"}]
    web = container(script=script, resources=limits, volumeMounts=mounts)
    node.apply("web.yaml", pod("web", web, volumes=[{"name": "data", "emptyDir": {}}]))
    node.wait_status("web", "Running")
    for name, document in workloads():
        node.apply(f"{name}.yaml", document)
    with prometheus(node, tmp_path / "prometheus"):
        node.wait(lambda: len(query(node, "up == 1")) == 4, "every page to be scraped", timeout=60)
        assert {r["metric"]["job"] for r in query(node, "up")} == {"kubelet", "kube-state-metrics"}

        # a rate needs two samples, and a start samples before and after it
        node.wait(
            lambda: query(
                node, 'rate(container_cpu_usage_seconds_total{pod="web",container="main"}[30s]) > 0'
            ),
            "two samples",
            timeout=60,
        )
        node.apply("late.yaml", pod("late"))
        node.wait_status("late", "Running")
        for panel, expression in dashboard_queries():
            words = filled(expression, node)
            node.wait(partial(query, node, words), f"{panel} to show something: {words}", timeout=60)

        selectors(node)
        with contextlib.suppress(AssertionError):
            node.wait(lambda: otherwise(node) == [], "public boards to be answered")
        assert otherwise(node) == []
        rules = [rule for group in api(node, "/api/v1/rules")["groups"] for rule in group["rules"]]
        assert len(rules) > 35
        assert [rule for rule in rules if rule["health"] == "err"] == []
        node.wait(
            lambda: query(node, "node_namespace_pod_container:container_memory_working_set_bytes"),
            "the recording rules",
        )

        # the series of a removed pod end with the next scrape, by Prometheus' staleness rules
        (node.manifests / "late.yaml").unlink()
        node.wait_gone("late")
        node.wait(lambda: not query(node, 'container_memory_rss{pod="late"}'), "the series to end")


def workloads() -> Iterator[tuple[str, str]]:
    """Name and manifest of a workload of each kind that the dashboard shows."""
    once = {"template": {"spec": {"restartPolicy": "Never", "containers": [container(script="exit 0")]}}}
    yield "job", manifest("batch/v1", "Job", once)
    yield "cronjob", manifest("batch/v1", "CronJob", {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": once}})
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        labels = {"app": kind.lower()}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container()]}}
        spec = {"selector": {"matchLabels": labels}, "template": template}
        yield kind.lower(), manifest("apps/v1", kind, spec)


def manifest(version: str, kind: str, spec: dict[str, Any]) -> str:
    return yaml.safe_dump(
        {"apiVersion": version, "kind": kind, "metadata": {"name": f"a-{kind.lower()}"}, "spec": spec}
    )


def public_queries(node: Node) -> list[tuple[str, str, str]]:
    """(dashboard, "data", "empty (reason)" or "either (reason)", expression) for queries of public dashboards."""
    text = (Path(__file__).parent / "public_queries.tsv").read_text().replace("NODE", node.name)
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    return [(board, answer, expression) for board, answer, expression in rows]


def otherwise(node: Node) -> list[tuple[str, str, str]]:
    """The queries with an unexpected result. Prometheus must be able to evaluate each."""
    found = [(row, bool(query(node, row[2]))) for row in public_queries(node)]
    return [row for row, answer in found if not row[1].startswith(("data" if answer else "empty", "either"))]


def selectors(node: Node) -> None:
    """The most frequent selectors of public dashboards."""
    cadvisor = 'job="kubelet", metrics_path="/metrics/cadvisor"'
    for expression in (
        f'container_memory_working_set_bytes{{{cadvisor}, node="{node.name}", container!="", image!=""}}',
        f'container_network_receive_bytes_total{{{cadvisor}, namespace="default", image!="", name=~"^k8s_.*"}}',
        f'container_network_receive_bytes_total{{{cadvisor}, container="POD", pod="web"}}',
        f'container_cpu_usage_seconds_total{{{cadvisor}, id="/"}}',
        f'container_fs_reads_bytes_total{{{cadvisor}, device=~"(/dev/)?(nvme.+|sd.+|vd.+|xvd.+|dm-.+|md.+|ubd.+)"}}',
        'kube_pod_info{job="kube-state-metrics", host_network="false"}',
        'kube_pod_container_resource_requests{job="kube-state-metrics", resource="cpu", unit="core"}',
        'sum by (node) (kube_pod_container_resource_limits{resource="memory"})'
        ' / on (node) kube_node_status_allocatable{resource="memory"}',
        'sum by (namespace, pod) (container_memory_rss{container!=""})'
        " * on (namespace, pod) group_left (qos_class) (kube_pod_status_qos_class == 1)",
        'machine_memory_bytes{job="kubelet"}',
        'kubelet_node_name{job="kubelet", metrics_path="/metrics"}',
    ):
        assert query(node, expression), expression


@needs_promtool
def test_the_rules_pass_their_tests() -> None:
    for command in (("check", "config", "prometheus.yml"), ("test", "rules", "rules/tests.yml")):
        done = subprocess.run(["promtool", *command], cwd=DEPLOY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test() -> None:
    texts = ((DEPLOY / "rules" / f"{name}.yml").read_text() for name in ("kubelite", "workloads"))
    alerts = [alert for text in texts for alert in re.findall(r"alert: (\w+)", text)]
    tested = set(re.findall(r"alertname: (\w+)", (DEPLOY / "rules" / "tests.yml").read_text()))
    assert set(alerts) == tested


def test_the_dashboards_are_current() -> None:
    made = runpy.run_path(str(DEPLOY / "dashboards" / "make.py"))
    for file, document in made["dashboards"]().items():
        assert (DEPLOY / "dashboards" / file).read_text() == made["text"](document), f"run {file}'s make.py"
