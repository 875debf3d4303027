"""kube_pod_*, kube_pod_container_*, kube_pod_init_container_* of the stored pods, as in kube-state-metrics.

Source: kube-state-metrics docs/metrics/workload/pod-metrics.md and internal/store/pod.go. A reason has a series only
while it applies. Phases and conditions always have a series for each possible value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.telemetry.metrics.exposition import Page, escape
from kubelite.telemetry.metrics.kubestate.page import (
    MOST,
    Table,
    amount,
    key_labels,
    label,
    label_pairs,
    owner_labels,
    resource_labels,
)

PHASES = ("Pending", "Succeeded", "Failed", "Unknown", "Running")
QOS = ("BestEffort", "Burstable", "Guaranteed")
TRUTH = ("true", "false", "unknown")
STATES = ("running", "waiting", "terminated")


def write_pods(page: Page, pods: Iterable[Json], node: str) -> None:
    """Write all families. `node`: the name of the node."""
    pods = list(pods)
    table = Table()
    _pods(table, pods, node)
    _tolerations(table, pods)
    table.write(page)
    for word, specs, statuses in (
        ("kube_pod_container", "containers", "containerStatuses"),
        ("kube_pod_init_container", "initContainers", "initContainerStatuses"),
    ):
        table = Table()
        _containers(table, word, list(_of(pods, specs, statuses)), node)
        table.write(page)


def head_of(doc: Json) -> str:
    meta = doc["metadata"]
    return f'namespace="{escape(meta.get("namespace", ""))}",pod="{escape(meta["name"])}",uid="{meta["uid"]}"'


def _pods(t: Table, pods: list[Json], node: str) -> None:
    for write in (_identities, _times, _specs, _statuses):
        write(t, pods, node)


def _identities(t: Table, pods: list[Json], node: str) -> None:
    info = t.gauge("kube_pod_info", "Information about pod.")
    owner = t.gauge("kube_pod_owner", "Information about the Pod's owner.")
    labels = t.gauge("kube_pod_labels", "Kubernetes labels converted to Prometheus labels.")
    ips = t.gauge("kube_pod_ips", "Pod IP addresses")
    for doc in pods:
        spec, status, head = doc["spec"], doc.get("status", {}), head_of(doc)
        owners = doc["metadata"].get("ownerReferences") or [{}]
        controller: Json = next((o for o in owners if o.get("controller")), {})
        words = {
            "host_ip": status.get("hostIP", ""),
            "pod_ip": status.get("podIP", ""),
            "node": node,
            "created_by_kind": controller.get("kind", ""),
            "created_by_name": controller.get("name", ""),
            "priority_class": spec.get("priorityClassName") or "",
            "host_network": str(bool(spec.get("hostNetwork"))).lower(),
        }
        t.add(info, head + "".join(label(k, v) for k, v in words.items()), 1)
        for text in owner_labels(doc["metadata"]):
            t.add(owner, head + text, 1)
        t.add(labels, head + label_pairs(doc), 1)
        for address in status.get("podIPs", ()):
            family = "6" if ":" in address["ip"] else "4"
            t.add(ips, head + label("ip", address["ip"]) + f',ip_family="{family}"', 1)


#: Type of a condition that is True → the family with the time of its last transition, and the help text.
_SINCE = {
    "Initialized": ("kube_pod_status_initialized_time", "Time when the pod is initialized."),
    "Ready": ("kube_pod_status_ready_time", "Readiness achieved time in unix timestamp for a pod."),
    "ContainersReady": (
        "kube_pod_status_container_ready_time",
        "Readiness achieved time in unix timestamp for a pod containers.",
    ),
    "PodScheduled": (
        "kube_pod_status_scheduled_time",
        "Unix timestamp when pod moved into scheduled status",
    ),
}


#: The same for a condition that is False.
_NOT_SINCE = {
    "PodScheduled": (
        "kube_pod_status_unscheduled_time",
        "Unix timestamp when pod moved into unscheduled status",
    )
}


def _times(t: Table, pods: list[Json], _node: str) -> None:
    created = t.gauge("kube_pod_created", "Unix creation timestamp")
    started = t.gauge("kube_pod_start_time", "Start time in unix timestamp for a pod.")
    done = t.gauge("kube_pod_completion_time", "Completion time in unix timestamp for a pod.")
    deleting = t.gauge("kube_pod_deletion_timestamp", "Unix deletion timestamp")
    since = {(kind, "True"): t.gauge(*words) for kind, words in _SINCE.items()}
    since |= {(kind, "False"): t.gauge(*words) for kind, words in _NOT_SINCE.items()}
    for doc in pods:
        meta, status, head = doc["metadata"], doc.get("status", {}), head_of(doc)
        moments = [
            (created, parse_time(meta.get("creationTimestamp"))),
            (started, parse_time(status.get("startTime"))),
            (deleting, parse_time(meta.get("deletionTimestamp"))),
            (done, _completion(status)),
        ]
        for condition in status.get("conditions", ()):
            if (family := since.get((condition["type"], condition["status"]))) is not None:
                moments.append((family, parse_time(condition.get("lastTransitionTime"))))
        for family, at in moments:
            if at is not None:
                t.add(family, head, at)


def _specs(t: Table, pods: list[Json], _node: str) -> None:
    policy = t.gauge("kube_pod_restart_policy", "Describes the restart policy in use by this pod.")
    scheduler = t.gauge("kube_pod_scheduler", "The scheduler for a pod.")
    account = t.gauge("kube_pod_service_account", "The service account for a pod.")
    runtime = t.gauge("kube_pod_runtimeclass_name_info", "The runtimeclass associated with the pod.")
    selectors = t.gauge("kube_pod_nodeselectors", "Describes the Pod nodeSelectors.")
    overheads = {
        "cpu": t.gauge(
            "kube_pod_overhead_cpu_cores",
            "The pod overhead in regards to cpu cores associated with running a pod.",
        ),
        "memory": t.gauge(
            "kube_pod_overhead_memory_bytes",
            "The pod overhead in regards to memory associated with running a pod.",
        ),
    }
    for doc in pods:
        spec, head = doc["spec"], head_of(doc)
        t.add(policy, head + label("type", spec.get("restartPolicy", "Always")), 1)
        t.add(scheduler, head + label("name", spec.get("schedulerName") or "default-scheduler"), 1)
        t.add(account, head + label("service_account", spec.get("serviceAccountName") or "default"), 1)
        if spec.get("runtimeClassName"):
            t.add(runtime, head + label("runtimeclass_name", spec["runtimeClassName"]), 1)
        for name, family in overheads.items():
            if (value := (spec.get("overhead") or {}).get(name)) is not None:
                t.add(family, head, amount(name, value))
        if wanted := key_labels("nodeselector", spec.get("nodeSelector") or {}):
            t.add(selectors, head + wanted, 1)


def _statuses(t: Table, pods: list[Json], _node: str) -> None:
    phase = t.gauge("kube_pod_status_phase", "The pods current phase.")
    ready = t.gauge("kube_pod_status_ready", "Describes whether the pod is ready to serve requests.")
    scheduled = t.gauge(
        "kube_pod_status_scheduled", "Describes the status of the scheduling process for the pod."
    )
    unschedulable = t.gauge(
        "kube_pod_status_unschedulable", "Describes the unschedulable status for the pod."
    )
    qos = t.gauge("kube_pod_status_qos_class", "The pods current qosClass.")
    reason = t.gauge("kube_pod_status_reason", "The pod status reasons")
    disruption = t.gauge("kube_pod_status_disruption_reason", "The pod status disruption reason.")
    for doc in pods:
        status, head = doc.get("status", {}), head_of(doc)
        for value in PHASES:
            t.add(phase, f'{head},phase="{value}"', float(status.get("phase", "Pending") == value))
        conditions = {c["type"]: c for c in status.get("conditions", ())}
        for family, kind in ((ready, "Ready"), (scheduled, "PodScheduled")):
            now = str(conditions.get(kind, {}).get("status", "False")).lower()
            for value in TRUTH:
                t.add(family, f'{head},condition="{value}"', float(now == value))
        if conditions.get("PodScheduled", {}).get("reason") == "Unschedulable":
            t.add(unschedulable, head, 1)
        for value in QOS if status.get("qosClass") else ():
            t.add(qos, f'{head},qos_class="{value}"', float(status["qosClass"] == value))
        if conditions.get("DisruptionTarget", {}).get("status") == "True":
            t.add(disruption, head + label("reason", conditions["DisruptionTarget"].get("reason", "")), 1)
        if status.get("reason"):
            t.add(reason, head + label("reason", status["reason"]), 1)


def _completion(status: Json) -> float | None:
    """Return when the last container ended, if the pod has ended."""
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    ends = [
        at
        for s in status.get("containerStatuses", ())
        if (at := parse_time(s.get("state", {}).get("terminated", {}).get("finishedAt"))) is not None
    ]
    return max(ends, default=None)


def _tolerations(t: Table, pods: list[Json]) -> None:
    family = t.gauge("kube_pod_tolerations", "Information about the pod tolerations")
    for doc in pods:
        head, said = head_of(doc), []
        for one in (doc["spec"].get("tolerations") or ())[:MOST]:
            words = {
                "key": one.get("key", ""),
                "operator": one.get("operator", "Equal"),
                "value": one.get("value", ""),
                "effect": one.get("effect", ""),
                "toleration_seconds": one.get("tolerationSeconds", ""),
            }
            said.append("".join(label(k, v) for k, v in words.items() if v != ""))
        for text in dict.fromkeys(said):  # without duplicates, which would be duplicate series
            t.add(family, head + text, 1)


def _of(pods: list[Json], specs: str, statuses: str) -> Iterator[tuple[str, Json, Json, str]]:
    """Yield (labels, spec, status, the pod's labels) of every container of one kind. The status is {} if the pod's
    status does not have the container yet."""
    for doc in pods:
        found = {s["name"]: s for s in doc.get("status", {}).get(statuses) or ()}
        head = head_of(doc)
        for spec in doc["spec"].get(specs) or ():
            yield f'container="{escape(spec["name"])}",{head}', spec, found.get(spec["name"], {}), head


def _containers(t: Table, word: str, found: list[tuple[str, Json, Json, str]], node: str) -> None:
    init = "init" in word
    which = "init container" if init else "container"
    info = t.gauge(f"{word}_info", f"Information about {'an' if init else 'a'} {which} in a pod.")
    started = t.gauge(f"{word}_state_started", "Start time in unix timestamp for a pod container.")
    restarts = t.counter(f"{word}_status_restarts_total", f"The number of restarts for the {which}.")
    ready = t.gauge(f"{word}_status_ready", f"Describes whether the {which}'s readiness check succeeded.")
    states = {
        state: t.gauge(
            f"{word}_status_{state}", f"Describes whether the {which} is currently in {state} state."
        )
        for state in STATES
    }
    waits = t.gauge(
        f"{word}_status_waiting_reason", f"Describes the reason the {which} is currently in waiting state."
    )
    ends = t.gauge(
        f"{word}_status_terminated_reason",
        f"Describes the reason the {which} is currently in terminated state.",
    )
    last = {
        name: t.gauge(f"{word}_status_last_terminated_{name}", f"Describes the last {text} of the {which}.")
        for name, text in (
            ("reason", "reason it was in terminated state"),
            ("exitcode", "exit code"),
            ("timestamp", "time of termination"),
        )
    }
    for head, spec, status, _ in found:
        t.add(info, head + _info(spec, status, init=init), 1)
        if not status:
            continue
        state = status.get("state") or {}
        t.add(restarts, head, status.get("restartCount", 0))
        t.add(ready, head, float(bool(status.get("ready"))))
        for name in STATES:
            t.add(states[name], head, float(name in state))
        if (at := parse_time(state.get("running", {}).get("startedAt"))) is not None:
            t.add(started, head, at)
        if reason := state.get("waiting", {}).get("reason"):
            t.add(waits, head + label("reason", reason), 1)
        if reason := state.get("terminated", {}).get("reason"):
            t.add(ends, head + label("reason", reason), 1)
        _last(t, last, head, (status.get("lastState") or {}).get("terminated"))
    _resources(t, word, found, node, which)


def _info(spec: Json, status: Json, *, init: bool) -> str:
    words = {
        "image": status.get("image") or spec.get("image", ""),
        "image_id": status.get("imageID", ""),
        "image_spec": spec.get("image", ""),
        "container_id": status.get("containerID", ""),
    }
    if init:
        words["restart_policy"] = spec.get("restartPolicy") or ""
    return "".join(label(k, v) for k, v in words.items())


def _last(t: Table, families: dict[str, str], head: str, ended: dict[str, Any] | None) -> None:
    if not ended:
        return
    if ended.get("reason"):
        t.add(families["reason"], head + label("reason", ended["reason"]), 1)
    t.add(families["exitcode"], head, ended.get("exitCode", 0))
    if (at := parse_time(ended.get("finishedAt"))) is not None:
        t.add(families["timestamp"], head, at)


def _resources(t: Table, word: str, found: list[tuple[str, Json, Json, str]], node: str, which: str) -> None:
    where = label("node", node)
    for kind, text in (
        (
            "requests",
            f"The number of requested request resource by {'an' if 'init' in word else 'a'} {which}.",
        ),
        ("limits", f"The number of requested limit resource by {'an' if 'init' in word else 'a'} {which}."),
    ):
        family = t.gauge(f"{word}_resource_{kind}", text)
        for head, spec, _, _ in found:
            resources = spec.get("resources") or {}
            wanted = dict(resources.get(kind) or {})
            if kind == "requests":  # a limit without a request is also the request (API defaulting)
                wanted = {**(resources.get("limits") or {}), **wanted}
            named: dict[str, float] = {}
            for name, value in [*wanted.items()][:MOST]:
                named.setdefault(resource_labels(name), amount(name, value))
            for labels, quantity in named.items():
                t.add(family, head + where + labels, quantity)
