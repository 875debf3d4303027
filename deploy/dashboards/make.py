"""The Grafana dashboards, as code: `python deploy/dashboards/make.py` writes node.json, pod.json and workloads.json
beside it.

Every query is run against a Prometheus that scrapes a real node (tests/e2e/test_prometheus.py). They can be imported
into Grafana 9 or newer, which asks for the data source.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]
HERE = Path(__file__).parent

CADVISOR = 'job="kubelet", metrics_path="/metrics/cadvisor"'
ROOT = f'{CADVISOR}, node=~"$node", id="/"'
ON_NODE = f'{CADVISOR}, node=~"$node"'
OF_POD = f'{CADVISOR}, namespace="$namespace", pod="$pod"'
CONTAINER = f'{OF_POD}, container!="", container!="POD"'
STATE = 'job="kube-state-metrics"'
STATE_OF_POD = f'{STATE}, namespace="$namespace", pod="$pod"'
IN_NAMESPACE = 'namespace=~"$namespace"'
AGENT = 'job="kubelet", metrics_path="/metrics", node=~"$node"'


def of(metric: str, where: str) -> str:
    return f"{metric}{{{where}}}"


def rate(metric: str, where: str, over: str = "$__rate_interval") -> str:
    return f"rate({metric}{{{where}}}[{over}])"


def by(labels: str, expression: str) -> str:
    return f"sum by ({labels}) ({expression})"


def asked_for(resource: str) -> str:
    where = f'{STATE}, node=~"$node", resource="{resource}"'
    requests = of("kube_pod_container_resource_requests", where)
    return f"sum({requests}) / sum({of('kube_node_status_allocatable', where)})"


def quantile(share: str) -> str:
    buckets = rate("kubelet_pod_start_duration_seconds_bucket", AGENT, "1h")
    return f"histogram_quantile({share}, {by('le', buckets)})"


def resource(kind: str, name: str) -> str:
    return by("container", of(f"kube_pod_container_resource_{kind}", f'{STATE_OF_POD}, resource="{name}"'))


Panel = tuple[str, str, list[tuple[str, str]], str]
Rows = tuple[tuple[str, tuple[Panel, ...]], ...]


def lines(title: str, unit: str, *queries: tuple[str, str]) -> Panel:
    """(legend, query) pairs over time."""
    return title, unit, list(queries), "timeseries"


def stat(title: str, unit: str, legend: str, query: str, kind: str = "stat") -> Panel:
    return title, unit, [(legend, query)], kind


NODE: Rows = (
    (
        "Node",
        (
            lines(
                "CPU",
                "percentunit",
                (
                    "used",
                    f"{rate('container_cpu_usage_seconds_total', ROOT)} / on (instance) machine_cpu_cores",
                ),
            ),
            lines(
                "Memory",
                "bytes",
                ("working set", of("container_memory_working_set_bytes", ROOT)),
                ("cache", of("container_memory_cache", ROOT)),
                ("installed", of("container_spec_memory_limit_bytes", ROOT)),
            ),
            lines(
                "File systems",
                "percentunit",
                (
                    "{{device}}",
                    f"{of('container_fs_usage_bytes', ROOT)} / {of('container_fs_limit_bytes', ROOT)}",
                ),
            ),
            stat(
                "Conditions",
                "short",
                "{{condition}}",
                of("kube_node_status_condition", f'{STATE}, node=~"$node", status="true"'),
            ),
            stat("Running pods", "short", "pods", of("kubelet_running_pods", AGENT)),
            stat(
                "Running containers",
                "short",
                "containers",
                of("kubelet_running_containers", f'{AGENT}, container_state="running"'),
            ),
        ),
    ),
    (
        "Pods of the node",
        (
            lines(
                "CPU by pod",
                "short",
                (
                    "{{namespace}}/{{pod}}",
                    by(
                        "namespace, pod",
                        rate("container_cpu_usage_seconds_total", f'{ON_NODE}, container!=""'),
                    ),
                ),
            ),
            lines(
                "Memory by pod",
                "bytes",
                (
                    "{{namespace}}/{{pod}}",
                    by(
                        "namespace, pod",
                        of("container_memory_working_set_bytes", f'{ON_NODE}, container!=""'),
                    ),
                ),
            ),
            stat("CPU asked for", "percentunit", "requests", asked_for("cpu"), "gauge"),
            stat("Memory asked for", "percentunit", "requests", asked_for("memory"), "gauge"),
        ),
    ),
    (
        "Disk and network",
        (
            lines(
                "Disk",
                "Bps",
                ("{{device}} read", rate("container_fs_reads_bytes_total", ROOT)),
                ("{{device}} written", rate("container_fs_writes_bytes_total", ROOT)),
            ),
            lines(
                "Disk busy", "percentunit", ("{{device}}", rate("container_fs_io_time_seconds_total", ROOT))
            ),
            lines(
                "Network",
                "Bps",
                ("{{interface}} received", rate("container_network_receive_bytes_total", ROOT)),
                ("{{interface}} sent", rate("container_network_transmit_bytes_total", ROOT)),
            ),
        ),
    ),
    (
        "kubelite itself",
        (
            lines("Pod starts", "s", ("half within", quantile("0.5")), ("99 % within", quantile("0.99"))),
            lines(
                "Operations", "ops", ("{{operation_type}}", rate("kubelet_runtime_operations_total", AGENT))
            ),
            lines("The daemon's CPU", "short", ("cores", rate("process_cpu_seconds_total", AGENT))),
            lines("The daemon's memory", "bytes", ("resident", of("process_resident_memory_bytes", AGENT))),
            stat("Broken manifests", "short", "{{kind}}", of("kubelite_manifest_errors", AGENT)),
            lines("Work waiting", "short", ("depth", of("workqueue_depth", AGENT))),
        ),
    ),
)

POD: Rows = (
    (
        "Pod",
        (
            stat("Phase", "short", "{{phase}}", f"{of('kube_pod_status_phase', STATE_OF_POD)} == 1"),
            stat(
                "Restarts",
                "short",
                "{{container}}",
                of("kube_pod_container_status_restarts_total", STATE_OF_POD),
            ),
            stat("Ready", "short", "{{container}}", of("kube_pod_container_status_ready", STATE_OF_POD)),
            stat("Age", "s", "age", f"time() - {of('kube_pod_start_time', STATE_OF_POD)}"),
        ),
    ),
    (
        "CPU",
        (
            lines(
                "CPU",
                "short",
                ("{{container}}", by("container", rate("container_cpu_usage_seconds_total", CONTAINER))),
                ("{{container}} request", resource("requests", "cpu")),
                ("{{container}} limit", resource("limits", "cpu")),
            ),
            lines(
                "Throttled",
                "percentunit",
                (
                    "{{container}}",
                    by("container", rate("container_cpu_cfs_throttled_periods_total", CONTAINER))
                    + " / "
                    + by("container", rate("container_cpu_cfs_periods_total", CONTAINER)),
                ),
            ),
        ),
    ),
    (
        "Memory",
        (
            lines(
                "Working set",
                "bytes",
                ("{{container}}", by("container", of("container_memory_working_set_bytes", CONTAINER))),
                ("{{container}} limit", resource("limits", "memory")),
            ),
            lines(
                "Anonymous and cache",
                "bytes",
                ("{{container}} rss", of("container_memory_rss", CONTAINER)),
                ("{{container}} cache", of("container_memory_cache", CONTAINER)),
            ),
            lines(
                "Major faults and OOM kills",
                "ops",
                (
                    "{{container}} major faults",
                    rate(
                        "container_memory_failures_total",
                        f'{CONTAINER}, failure_type="pgmajfault", scope="container"',
                    ),
                ),
                ("{{container}} OOM kills", rate("container_oom_events_total", CONTAINER)),
            ),
        ),
    ),
    (
        "Network and disk",
        (
            lines(
                "Network",
                "Bps",
                ("{{interface}} received", rate("container_network_receive_bytes_total", OF_POD)),
                ("{{interface}} sent", rate("container_network_transmit_bytes_total", OF_POD)),
            ),
            lines(
                "Packets dropped",
                "pps",
                ("{{interface}}", rate("container_network_receive_packets_dropped_total", OF_POD)),
            ),
            lines("Writable layer", "bytes", ("{{container}}", of("container_fs_usage_bytes", CONTAINER))),
            lines(
                "Threads and descriptors",
                "short",
                ("{{container}} threads", of("container_threads", CONTAINER)),
                ("{{container}} descriptors", of("container_file_descriptors", CONTAINER)),
            ),
        ),
    ),
)


def of_workload(metric: str) -> str:
    """Sums of containers' values by workload, with the recording rule that knows each pod's workload."""
    owner = f"namespace_workload_pod:kube_pod_owner:relabel{{{IN_NAMESPACE}}}"
    joined = f"{metric} * on (namespace, pod) group_left (workload, workload_type) {owner}"
    return by("workload, workload_type", joined)


def replicas(kind: str, wanted: str, ready: str) -> Panel:
    """How many pods each workload of a kind has, and is to have."""
    queries = (f"kube_{kind}_{name}{{{STATE}, {IN_NAMESPACE}}}" for name in (wanted, ready))
    legends = (f"{{{{{kind}}}}} desired", f"{{{{{kind}}}}} ready")
    return lines(f"{kind.capitalize()}s", "short", *zip(legends, queries, strict=True))


IN_CONTAINERS = f'{CADVISOR}, {IN_NAMESPACE}, container!="", container!="POD"'

WORKLOADS: Rows = (
    (
        "Replicas",
        (
            replicas("deployment", "spec_replicas", "status_replicas_available"),
            replicas("statefulset", "replicas", "status_replicas_ready"),
            replicas("daemonset", "status_desired_number_scheduled", "status_number_available"),
        ),
    ),
    (
        "Rollouts and jobs",
        (
            lines(
                "Pods of the newest template",
                "short",
                ("{{deployment}}", of("kube_deployment_status_replicas_updated", f"{STATE}, {IN_NAMESPACE}")),
            ),
            lines(
                "Pods of jobs",
                "short",
                ("{{job_name}} active", of("kube_job_status_active", f"{STATE}, {IN_NAMESPACE}")),
                (
                    "{{job_name}} failed",
                    by("job_name", of("kube_job_status_failed", f"{STATE}, {IN_NAMESPACE}")),
                ),
            ),
            lines(
                "Next runs of cron jobs",
                "s",
                ("{{cronjob}}", f"kube_cronjob_next_schedule_time{{{STATE}, {IN_NAMESPACE}}} - time()"),
            ),
        ),
    ),
    (
        "Use by workload",
        (
            lines(
                "CPU",
                "short",
                ("{{workload}}", of_workload(rate("container_cpu_usage_seconds_total", IN_CONTAINERS))),
            ),
            lines(
                "Memory",
                "bytes",
                ("{{workload}}", of_workload(of("container_memory_working_set_bytes", IN_CONTAINERS))),
            ),
            lines(
                "Restarts",
                "short",
                (
                    "{{workload}}",
                    of_workload(of("kube_pod_container_status_restarts_total", f"{STATE}, {IN_NAMESPACE}")),
                ),
            ),
        ),
    ),
)


def variable(name: str, query: str, *, multi: bool) -> Json:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": "A"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": multi,
        "includeAll": multi,
        "current": {},
    }


def dashboard(uid: str, title: str, variables: list[Json], rows: Rows) -> Json:
    panels: list[Json] = []
    y = 0
    for heading, row in rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": heading,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
            }
        )
        y += 1
        width = 24 // min(len(row), 3)
        for place, panel in enumerate(row):
            column = place % 3
            where = {"x": column * width, "y": y + place // 3 * 8, "w": width, "h": 8}
            panels.append(_panel(len(panels) + 1, panel, where))
        y += (len(row) + 2) // 3 * 8
    source = {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "label": "Data source",
    }
    return {
        "uid": uid,
        "title": title,
        "tags": ["kubelite"],
        "schemaVersion": 37,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, *variables]},
        "panels": panels,
    }


def _panel(number: int, panel: Panel, where: Json) -> Json:
    title, unit, queries, kind = panel
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {"refId": chr(65 + i), "expr": query, "legendFormat": legend, "datasource": source}
        for i, (legend, query) in enumerate(queries)
    ]
    return {
        "id": number,
        "type": kind,
        "title": title,
        "datasource": source,
        "gridPos": where,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if kind == "timeseries" else {},
        "targets": targets,
    }


def dashboards() -> dict[str, Json]:
    """File name → dashboard."""
    node = variable("node", "label_values(kube_node_info, node)", multi=True)
    namespace = variable("namespace", "label_values(kube_pod_info, namespace)", multi=False)
    namespaces = variable("namespace", "label_values(kube_pod_info, namespace)", multi=True)
    pod = variable("pod", 'label_values(kube_pod_info{namespace="$namespace"}, pod)', multi=False)
    return {
        "node.json": dashboard("kubelite-node", "kubelite / Node", [node], NODE),
        "pod.json": dashboard("kubelite-pod", "kubelite / Pod", [namespace, pod], POD),
        "workloads.json": dashboard("kubelite-workloads", "kubelite / Workloads", [namespaces], WORKLOADS),
    }


def text(document: Json) -> str:
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    for file, document in dashboards().items():
        (HERE / file).write_text(text(document), encoding="utf-8")
