"""The metrics of the daemon: kubelet_* with the names of Kubernetes pkg/kubelet/metrics/metrics.go, about pods, starts,
workers and PLEG; and kubelite_* for what kubelet does not have."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubelite.kube.objects import belongs_to_cluster
from kubelite.node.spec.volume_plans import PLUGINS
from kubelite.telemetry.metrics.exposition import Page, counter, gauge, labels, number
from kubelite.telemetry.metrics.meters import Histogram
from kubelite.telemetry.node_view import NodeView
from kubelite.version import version
from runtime.cgroups.layout import Mode, layout
from state.store import Record

_STATES = ("running", "exited", "created", "unknown")
_PER_POD = (1, 2, 4, 8, 16)


def _by_source(pods: Sequence[Record]) -> dict[str, int]:
    """Return the number of the node's own pods ("true") and of those that a cluster has bound to it."""
    bound = sum(belongs_to_cluster(pod.doc) for pod in pods)
    return {"true": len(pods) - bound, "false": bound}


def write_agent(page: Page, agent: NodeView) -> None:
    """Write the metrics that are computed for each page. Those of meters.py write themselves."""
    sandboxes = agent.cri.running_sandboxes()
    pods = agent.store.list("Pod")
    _by(page, "kubelet_node_name", "The node's name. The count is always 1.", "node", {agent.node_name: 1})
    page.one(gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox"), len(sandboxes))
    states = dict.fromkeys(_STATES, 0)
    per_pod = Histogram("kubelet_containers_per_pod_count", "The number of containers per pod.", _PER_POD)
    for record in sandboxes.values():
        for container in record.containers:
            state = "exited" if container["status"] == "stopped" else str(container["status"])
            states[state] = states.get(state, 0) + 1
    for pod in pods:
        per_pod.observe(len(pod.doc["spec"].get("containers") or ()))
    text = "Number of containers currently running"
    _by(page, "kubelet_running_containers", text, "container_state", states)
    per_pod.write(page)
    text = (
        "The number of pods the kubelet is being instructed to run. "
        "static is true if the pod is not from the apiserver."
    )
    _by(page, "kubelet_desired_pods", text, "static", _by_source(pods))
    active = [pod for pod in pods if pod.doc.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
    text = (
        "The number of pods the kubelet considers active and which are being considered when admitting new pods. "
        "static is true if the pod is not from the apiserver."
    )
    _by(page, "kubelet_active_pods", text, "static", _by_source(active))
    running = [pod.doc for pod in pods if pod.uid in sandboxes]
    _volumes(page, {"desired_state_of_world": [pod.doc for pod in pods], "actual_state_of_world": running})
    _working(page, [pod.doc for pod in pods], sum(uid not in {pod.uid for pod in pods} for uid in sandboxes))
    page.one(
        gauge(
            "kubelet_managed_ephemeral_containers",
            "Current number of ephemeral containers in pods managed by this kubelet.",
        ),
        sum(len(pod.doc["spec"].get("ephemeralContainers") or ()) for pod in pods),
    )
    page.one(
        gauge("kubelet_node_startup_duration_seconds", "Duration in seconds of node startup in total."),
        agent.startup_took,
    )
    text = "The number of mirror pods the kubelet will try to create."
    page.one(gauge("kubelet_mirror_pods", text), agent.meters.mirror_pods)
    page.one(
        gauge("kubelet_cgroup_version", "cgroup version on the hosts."), 2 if layout().mode is Mode.V2 else 1
    )
    page.one(
        gauge(
            "kubelet_pleg_last_seen_seconds",
            "Timestamp in seconds when PLEG was last seen active.",
        ),
        agent.meters.last_relist or agent.started_at,
    )
    page.one(
        gauge("kubernetes_build_info", "A metric with a constant '1' value labeled by version."),
        1,
        git_version=f"v{version()}",
        platform=f"linux/{platform.machine()}",
    )
    _own(page, agent)


def _working(page: Page, pods: list[Mapping[str, Any]], strays: int) -> None:
    """Write kubelet_working_pods. A pod that is being deleted counts as orphan, because it no longer has a manifest.
    `strays`: number of running pods without a record."""
    counts = Counter({("sync", "desired"): 0, ("terminating", "runtime_only"): strays})
    for doc in pods:
        if doc["metadata"].get("deletionTimestamp"):
            counts["terminating", "orphan"] += 1
        else:
            over = doc.get("status", {}).get("phase") in ("Succeeded", "Failed")
            counts["terminated" if over else "sync", "desired"] += 1
    name = "kubelet_working_pods"
    text = (
        "Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod is desired, "
        "orphaned, or runtime only (also orphaned), and whether the pod is static."
    )
    lines = (
        f'{name}{{config="{config}",lifecycle="{phase}",static="true"}} {count}\n'
        for (phase, config), count in counts.items()
    )
    page.family(gauge(name, text), "".join(lines))


def _volumes(page: Page, states: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write the number of volumes by plugin and state. `states`: state → the pods whose volumes have it."""
    found = Counter(
        (PLUGINS[field], state)
        for state, pods in states.items()
        for pod in pods
        for volume in pod["spec"].get("volumes") or ()
        for field in PLUGINS.keys() & volume.keys()
    )
    name = "volume_manager_total_volumes"
    lines = (
        f'{name}{{plugin_name="kubernetes.io/{plugin}",state="{state}"}} {count}\n'
        for (plugin, state), count in sorted(found.items())
    )
    page.family(gauge(name, "Number of volumes in Volume Manager"), "".join(lines))


def _own(page: Page, agent: NodeView) -> None:
    page.one(gauge("kubelite_build_info", "The running version."), 1, version=version())
    ready, _ = agent.ready()
    page.one(gauge("kubelite_ready", "Whether the node is ready."), int(ready))
    page.one(gauge("kubelite_start_time_seconds", "Unix time when the daemon started."), agent.started_at)
    states = agent.sources.states()
    counts = dict.fromkeys(("syntax", "invalid", "unsupported", "duplicate", "unreadable"), 0)
    for state in states:
        for problem in state.problems:
            counts[problem.kind] = counts.get(problem.kind, 0) + 1
    _by(page, "kubelite_manifest_errors", "Problems in manifest files, by kind.", "kind", counts)
    page.one(gauge("kubelite_manifest_files", "Manifest files in the watched directory."), len(states))
    page.one(
        gauge("kubelite_store_resource_version", "The newest resourceVersion."), agent.store.resource_version
    )
    usage = agent.disk_usage
    page.one(
        gauge(
            "kubelite_disk_usage_timestamp_seconds",
            "Unix time of the last measurement of writable layers and sockets, 0 before the first.",
        ),
        usage.last_round,
    )
    page.one(gauge("kubelite_disk_usage_duration_seconds", "Duration of the last measurement."), usage.took)
    page.one(gauge("workqueue_depth", "Current depth of workqueue"), len(agent.queue), name="pods")
    page.one(
        counter("workqueue_adds_total", "Total number of adds handled by workqueue"),
        agent.queue.added,
        name="pods",
    )
    page.one(
        counter("workqueue_retries_total", "Total number of retries handled by workqueue"),
        agent.queue.retries,
        name="pods",
    )


def _by(page: Page, name: str, text: str, key: str, values: dict[str, int]) -> None:
    lines: Iterable[str] = (
        f"{name}{{{labels({key: value})}}} {number(count)}\n" for value, count in values.items()
    )
    page.family(gauge(name, text), "".join(lines))
