"""The state of a workload in a few words, with its level of health, and which pods belong to it. Pure.

The words are for a table in which a person looks for what is wrong; `kubelite why deployment/web` explains more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kubelite.diagnosis.health import ORDER, Level
from kubelite.kube.json import Json


class State(NamedTuple):
    """`ready`: how much of it is there, such as `2/3`; of a Job its completions. `because`: what is wrong, or what it
    waits for."""

    level: Level
    words: str
    ready: str
    because: str = ""


class Workload(NamedTuple):
    """A workload that nothing controls, with all pods below it."""

    doc: Json
    state: State
    pods: Sequence[Json]

    @property
    def name(self) -> str:
        """Return the name for commands: `deployment/web`."""
        return workload_name(self.doc)


def workload_name(doc: Json) -> str:
    return f"{doc['kind'].lower()}/{doc['metadata']['name']}"


def controller_uid(doc: Json) -> str:
    """Return the uid of the object that controls this one, or ""."""
    for reference in doc["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return str(reference.get("uid", ""))
    return ""


def owners(workloads: Iterable[Json]) -> dict[str, Json]:
    """Return uid → the workload at the top that it belongs to: of a ReplicaSet its Deployment, of a Job its CronJob."""
    known = {doc["metadata"]["uid"]: doc for doc in workloads}
    found = {}
    for uid, doc in known.items():
        top = doc
        while (above := known.get(controller_uid(top))) is not None:
            top = above
        found[uid] = top
    return found


def grouped(workloads: Sequence[Json], pods: Iterable[tuple[Json, Level]]) -> list[Workload]:
    """Return the workloads at the top with their pods, those with problems first. `pods`: with their levels."""
    tops = owners(workloads)
    below: dict[str, list[tuple[Json, Level]]] = {}
    for pod, level in pods:
        if (top := tops.get(controller_uid(pod))) is not None:
            below.setdefault(top["metadata"]["uid"], []).append((pod, level))
    found = []
    for uid, doc in tops.items():
        if doc["metadata"]["uid"] == uid:
            mine = below.get(uid, [])
            state = _with_pods(doc, state_of(doc), [level for _, level in mine])
            found.append(Workload(doc, state, [pod for pod, _ in mine]))
    return sorted(found, key=_order)


def _order(workload: Workload) -> tuple[int, str, str]:
    metadata = workload.doc["metadata"]
    return ORDER[workload.state.level], metadata.get("namespace", ""), workload.name


def _with_pods(doc: Json, state: State, levels: Sequence[Level]) -> State:
    """A workload that waits for a pod that fails, fails. The failed pods of a Job are part of its work."""
    failing = levels.count(Level.FAILING)
    if state.level != Level.WAITING or not failing or doc["kind"] in ("Job", "CronJob"):
        return state
    words = f"{failing} {'pod is' if failing == 1 else 'pods are'} failing"
    return state._replace(level=Level.FAILING, because=state.because or words)


def state_of(doc: Json) -> State:
    """Return the state of a workload by its own status."""
    spec, status = doc.get("spec") or {}, doc.get("status") or {}
    state = _STATES[doc["kind"]](spec, status, _conditions(status))
    if doc["metadata"].get("deletionTimestamp"):
        return state._replace(level=Level.WAITING, words="Terminating", because="")
    if "observedGeneration" in status and status["observedGeneration"] < doc["metadata"].get("generation", 0):
        return state._replace(level=Level.WAITING, words="Changing", because="")
    return state


def _conditions(status: Json) -> dict[str, Json]:
    return {one["type"]: one for one in status.get("conditions") or ()}


def _deployment(spec: Json, status: Json, conditions: Mapping[str, Json]) -> State:
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas") or 0
    ready = f"{status.get('readyReplicas') or 0}/{wanted}"
    if (refused := conditions.get("ReplicaFailure", {})).get("status") == "True":
        return State(Level.FAILING, "Pods refused", ready, str(refused.get("message", "")))
    if conditions.get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded":
        return State(Level.FAILING, "Stuck", ready, f"{updated} of {wanted} pods have the newest template")
    old = (status.get("replicas") or 0) - updated
    if spec.get("paused"):
        return State(Level.WAITING if old else Level.RUNNING, "Paused", ready)
    if updated < wanted or old > 0:
        return State(
            Level.WAITING, "Rolling out", ready, f"{updated} of {wanted} pods have the newest template"
        )
    return _available(wanted, status.get("availableReplicas") or 0, ready)


def _available(wanted: int, available: int, ready: str) -> State:
    if not wanted:
        return State(Level.COMPLETED, "Scaled to 0", ready)
    if available < wanted:
        return State(Level.WAITING, "Not ready", ready)
    return State(Level.RUNNING, "Available", ready)


def _replica_set(spec: Json, status: Json, conditions: Mapping[str, Json]) -> State:
    wanted = spec.get("replicas", 1)
    ready = f"{status.get('readyReplicas') or 0}/{wanted}"
    if (refused := conditions.get("ReplicaFailure", {})).get("status") == "True":
        return State(Level.FAILING, "Pods refused", ready, str(refused.get("message", "")))
    return _available(wanted, status.get("availableReplicas") or 0, ready)


def _stateful_set(spec: Json, status: Json, _: Mapping[str, Json]) -> State:
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas") or 0
    ready = f"{status.get('readyReplicas') or 0}/{wanted}"
    strategy = spec.get("updateStrategy") or {}
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    rolling = strategy.get("type", "RollingUpdate") == "RollingUpdate"
    new = status.get("updateRevision") != status.get("currentRevision")
    if rolling and new and updated < max(wanted - partition, 0):
        return State(
            Level.WAITING, "Rolling out", ready, f"{updated} of {wanted} pods have the newest template"
        )
    return _available(wanted, status.get("availableReplicas") or 0, ready)


def _daemon_set(spec: Json, status: Json, _: Mapping[str, Json]) -> State:
    wanted, updated = status.get("desiredNumberScheduled") or 0, status.get("updatedNumberScheduled") or 0
    ready = f"{status.get('numberReady') or 0}/{wanted}"
    if not wanted:
        return State(Level.COMPLETED, "Not for this node", ready)
    if (
        updated < wanted
        and (spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
    ):
        return State(Level.WAITING, "Rolling out", ready)
    return _available(wanted, status.get("numberAvailable") or 0, ready)


def _job(spec: Json, status: Json, conditions: Mapping[str, Json]) -> State:
    ready = f"{status.get('succeeded') or 0}/{spec.get('completions') or 1}"
    held = {kind: one for kind, one in conditions.items() if one.get("status") == "True"}
    if failed := held.get("Failed") or held.get("FailureTarget"):
        because = ": ".join(str(failed[key]) for key in ("reason", "message") if failed.get(key))
        return State(Level.FAILING, "Failed", ready, because)
    if "Complete" in held:
        return State(Level.COMPLETED, "Complete", ready)
    if "Suspended" in held:
        return State(Level.COMPLETED, "Suspended", ready)
    failures = status.get("failed") or 0
    because = f"{failures} {'pod' if failures == 1 else 'pods'} failed" if failures else ""
    return State(Level.WAITING if failures else Level.RUNNING, "Running", ready, because)


def _cron_job(spec: Json, status: Json, _: Mapping[str, Json]) -> State:
    active = len(status.get("active") or ())
    if spec.get("suspend"):
        return State(Level.COMPLETED, "Suspended", f"{active} active")
    return State(Level.RUNNING, f"At {spec.get('schedule', '')}", f"{active} active")


_STATES = {
    "CronJob": _cron_job,
    "DaemonSet": _daemon_set,
    "Deployment": _deployment,
    "Job": _job,
    "ReplicaSet": _replica_set,
    "ReplicationController": _replica_set,
    "StatefulSet": _stateful_set,
}
