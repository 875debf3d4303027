"""The pods as kube-state-metrics shows them, and the daemon's own health under kubelet's names.

Sources: kube-state-metrics docs/metrics/workload/pod-metrics.md; kubernetes pkg/kubelet/metrics/metrics.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from kubelite.agent import Agent

POD = ("namespace", "pod", "uid")
CONTAINER = ("container", *POD)
PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")

Doc = dict[str, Any]


class PodCollector(Collector):
    """kube_pod_* from the stored objects."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        pods = [record.doc for record in self._agent.store.list("Pod")]
        yield from _pod_metrics(pods, self._agent.node_name)
        yield from _container_metrics(pods)


def _pod_metrics(pods: list[Doc], node: str) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "kube_pod_info",
        "Information about pod.",
        labels=(
            *POD,
            "host_ip",
            "pod_ip",
            "node",
            "created_by_kind",
            "created_by_name",
            "priority_class",
            "host_network",
        ),
    )
    phase = GaugeMetricFamily("kube_pod_status_phase", "The pods current phase.", labels=(*POD, "phase"))
    ready = GaugeMetricFamily(
        "kube_pod_status_ready",
        "Describes whether the pod is ready to serve requests.",
        labels=(*POD, "condition"),
    )
    created = GaugeMetricFamily("kube_pod_created", "Unix creation timestamp", labels=POD)
    for doc in pods:
        status, labels = doc.get("status", {}), pod_labels(doc)
        host_network = str(bool(doc["spec"].get("hostNetwork"))).lower()
        address = (status.get("hostIP", ""), status.get("podIP", ""))
        info.add_metric(
            (*labels, *address, node, "", "", doc["spec"].get("priorityClassName", ""), host_network), 1
        )
        for name in PHASES:
            phase.add_metric((*labels, name), float(status.get("phase") == name))
        conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
        for value in ("true", "false", "unknown"):
            ready.add_metric((*labels, value), float(conditions.get("Ready", "False").lower() == value))
        created.add_metric(labels, _unix(doc["metadata"].get("creationTimestamp")))
    yield from (info, phase, ready, created)


def _container_metrics(pods: list[Doc]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "kube_pod_container_info",
        "Information about a container in a pod.",
        labels=(*CONTAINER, "image", "image_id", "image_spec", "container_id"),
    )
    restarts = CounterMetricFamily(
        "kube_pod_container_status_restarts",
        "The number of container restarts per container.",
        labels=CONTAINER,
    )
    simple = {
        state: GaugeMetricFamily(
            f"kube_pod_container_status_{state}",
            f"Describes whether the container is currently in {state} state.",
            labels=CONTAINER,
        )
        for state in ("running", "waiting", "terminated", "ready")
    }
    waiting = GaugeMetricFamily(
        "kube_pod_container_status_waiting_reason",
        "Describes the reason the container is currently in waiting state.",
        labels=(*CONTAINER, "reason"),
    )
    last = GaugeMetricFamily(
        "kube_pod_container_status_last_terminated_reason",
        "Describes the last reason the container was in terminated state.",
        labels=(*CONTAINER, "reason"),
    )
    for doc in pods:
        images = {c["name"]: c.get("image", "") for c in doc["spec"].get("containers", ())}
        for status in doc.get("status", {}).get("containerStatuses", ()):
            labels = (status["name"], *pod_labels(doc))
            identity = (status.get("image", ""), status.get("imageID", ""), images.get(status["name"], ""))
            info.add_metric((*labels, *identity, status.get("containerID", "")), 1)
            restarts.add_metric(labels, status.get("restartCount", 0))
            state = status.get("state", {})
            for name in ("running", "waiting", "terminated"):
                simple[name].add_metric(labels, float(name in state))
            simple["ready"].add_metric(labels, float(status.get("ready", False)))
            if reason := state.get("waiting", {}).get("reason"):
                waiting.add_metric((*labels, reason), 1)
            if reason := status.get("lastState", {}).get("terminated", {}).get("reason"):
                last.add_metric((*labels, reason), 1)
    yield from (info, restarts, *simple.values(), waiting, last)


class NodeCollector(Collector):
    """The daemon's own health."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        agent = self._agent
        build = InfoMetricFamily("kubelite_build", "The version that runs.")
        build.add_metric((), {"version": version("kubelite")})
        yield build
        sandboxes = agent.cri.living()
        yield _gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox", len(sandboxes))
        yield self._containers()
        ready, _ = agent.ready()
        yield _gauge("kubelite_ready", "Whether the node can do its work.", float(ready))
        yield _gauge("kubelite_start_time_seconds", "Unix time the daemon started.", agent.started_at)
        errors = GaugeMetricFamily(
            "kubelite_manifest_errors", "Problems in a manifest file, by kind.", labels=("kind",)
        )
        counts: dict[str, int] = dict.fromkeys(
            ("syntax", "invalid", "unsupported", "duplicate", "unreadable"), 0
        )
        for state in agent.sources.states():
            for problem in state.problems:
                counts[problem.kind] = counts.get(problem.kind, 0) + 1
        for kind, count in counts.items():
            errors.add_metric((kind,), count)
        yield errors
        yield _gauge(
            "kubelite_manifest_files", "Manifest files in the directory.", len(agent.sources.states())
        )
        yield _gauge("workqueue_depth", "Current depth of workqueue", len(agent.queue))
        yield _counter("workqueue_adds", "Total number of adds handled by workqueue", agent.queue.added)
        yield _counter(
            "workqueue_retries", "Total number of retries handled by workqueue", agent.queue.retries
        )
        yield _gauge(
            "kubelite_store_resource_version", "The newest resourceVersion.", agent.store.resource_version
        )
        yield _gauge(
            "kubelite_disk_usage_timestamp_seconds",
            "Unix time the writable layers were last measured.",
            agent.disk_usage.last_round,
        )

    def _containers(self) -> Metric:
        found = GaugeMetricFamily(
            "kubelet_running_containers",
            "Number of containers currently running",
            labels=("container_state",),
        )
        counts = dict.fromkeys(("running", "exited", "created", "unknown"), 0)
        for record in self._agent.cri.living().values():
            for container in record.containers:
                state = "exited" if container["status"] == "stopped" else str(container["status"])
                counts[state] = counts.get(state, 0) + 1
        for state, count in counts.items():
            found.add_metric((state,), count)
        return found


def pod_labels(doc: Doc) -> tuple[str, str, str]:
    metadata = doc["metadata"]
    return metadata.get("namespace", ""), metadata["name"], metadata["uid"]


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _unix(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
