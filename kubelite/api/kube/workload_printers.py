"""The Table columns of workloads, budgets, accounts and roles, as Kubernetes' API server prints them.

Source: Kubernetes pkg/printers/internalversion/printers.go (printDeployment, printReplicaSet, printDaemonSet, printJob,
printReplicationController, printStatefulSet, printCronJob, printControllerRevision, printPodDisruptionBudget,
printResourceQuota).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kubelite.api.kube.autoscaling.cells import COLUMNS, autoscaler_cells
from kubelite.api.kube.columns import AGE, NAME, NONE, Cells, Column
from kubelite.kube.durations import age_of, human_duration
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import selector_of, selector_text
from kubelite.kube.times import parse_time

_CONTAINERS = (Column("Containers", priority=1), Column("Images", priority=1))
_WIDE = (*_CONTAINERS, Column("Selector", priority=1))
_REPLICAS = (
    NAME,
    Column("Desired", "integer"),
    Column("Current", "integer"),
    Column("Ready", "integer"),
    AGE,
    *_WIDE,
)
_DEPLOYMENT = (
    NAME,
    Column("Ready"),
    Column("Up-to-date", "integer"),
    Column("Available", "integer"),
    AGE,
    *_WIDE,
)
_STATEFUL_SET = (NAME, Column("Ready"), AGE, *_CONTAINERS)
_DAEMON_SET = (
    NAME,
    Column("Desired", "integer"),
    Column("Current", "integer"),
    Column("Ready", "integer"),
    Column("Up-to-date", "integer"),
    Column("Available", "integer"),
    Column("Node Selector"),
    AGE,
    *_WIDE,
)
_JOB = (NAME, Column("Status"), Column("Completions"), Column("Duration"), AGE, *_WIDE)
_CRON_JOB = (
    NAME,
    Column("Schedule"),
    Column("Timezone"),
    Column("Suspend", "boolean"),
    Column("Active", "integer"),
    Column("Last Schedule"),
    AGE,
    *_WIDE,
)
_QUOTA = (NAME, Column("Request"), Column("Limit"), AGE)
_ACCOUNT = (NAME, Column("Secrets", "string"), AGE)
_ROLE = (NAME, Column("Created At", "date"))  # apiserver pkg/registry/rest/table.go, the default columns
_BINDING = (
    NAME,
    Column("Role"),
    AGE,
    Column("Users", priority=1),
    Column("Groups", priority=1),
    Column("ServiceAccounts", priority=1),
)
_BUDGET = (
    NAME,
    Column("Min Available"),
    Column("Max Unavailable"),
    Column("Allowed Disruptions", "integer"),
    AGE,
)
_REVISION = (NAME, Column("Controller"), Column("Revision"), AGE)


def _labels(labels: Mapping[str, Any] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def _selector(doc: Json) -> str:
    return selector_text(selector_of(doc) or {}) or NONE


def _wide(template: Json) -> list[str]:
    containers = (template.get("spec") or {}).get("containers") or ()
    return [",".join(one["name"] for one in containers), ",".join(one.get("image", "") for one in containers)]


def _parts(doc: Json, now: float) -> tuple[Json, Json, str, str]:
    metadata = doc["metadata"]
    age = age_of(metadata.get("creationTimestamp"), now)
    return doc.get("spec") or {}, doc.get("status") or {}, metadata["name"], age


def deployment_cells(doc: Json, now: float) -> Cells:
    spec, status, name, age = _parts(doc, now)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    return [name, ready, *counts, age, *_wide(spec["template"]), _selector(doc)]


def replica_set_cells(doc: Json, now: float) -> Cells:
    spec, status, name, age = _parts(doc, now)
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    return [name, *counts, age, *_wide(spec["template"]), _selector(doc)]


def stateful_set_cells(doc: Json, now: float) -> Cells:
    spec, status, name, age = _parts(doc, now)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name, ready, age, *_wide(spec["template"])]


def daemon_set_cells(doc: Json, now: float) -> Cells:
    spec, status, name, age = _parts(doc, now)
    counts = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    nodes = _labels((spec["template"].get("spec") or {}).get("nodeSelector"))
    return [
        name,
        *(status.get(count, 0) for count in counts),
        nodes,
        age,
        *_wide(spec["template"]),
        _selector(doc),
    ]


def job_cells(doc: Json, now: float) -> Cells:
    spec, status, name, age = _parts(doc, now)
    return [
        name,
        job_status(doc),
        _completions(spec, status),
        _duration(status, now),
        age,
        *_wide(spec["template"]),
        _selector(doc),
    ]


def job_status(doc: Json) -> str:
    conditions = (doc.get("status") or {}).get("conditions") or ()
    held = {one["type"] for one in conditions if one["status"] == "True"}
    for condition, word in (("Complete", "Complete"), ("Failed", "Failed")):
        if condition in held:
            return word
    if doc["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return next((word for word in ("Suspended", "FailureTarget") if word in held), "Running")


def _completions(spec: Json, status: Json) -> str:
    succeeded, wanted = status.get("succeeded", 0), spec.get("completions")
    if wanted is not None:
        return f"{succeeded}/{wanted}"
    parallelism = spec.get("parallelism", 0)
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(status: Json, now: float) -> str:
    began, ended = parse_time(status.get("startTime")), parse_time(status.get("completionTime"))
    return "" if began is None else human_duration((now if ended is None else ended) - began)


def cron_job_cells(doc: Json, now: float) -> Cells:
    spec, status, name, age = _parts(doc, now)
    last = status.get("lastScheduleTime")
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    return [
        name,
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        str(bool(spec.get("suspend"))),
        len(status.get("active") or ()),
        age_of(last, now) if last else NONE,
        age,
        *_wide(job.get("template") or {}),
        selector_text(job.get("selector") or {}) or NONE,
    ]


def revision_cells(doc: Json, now: float) -> Cells:
    _, _, name, age = _parts(doc, now)
    owners = doc["metadata"].get("ownerReferences") or ()
    owner = next((ref for ref in owners if ref.get("controller")), None)
    controller = NONE
    if owner is not None:
        group = owner["apiVersion"].rpartition("/")[0]
        controller = f"{owner['kind'].lower()}{'.' * bool(group)}{group}/{owner['name']}"
    return [name, controller, doc.get("revision", 0), age]


def budget_cells(doc: Json, now: float) -> Cells:
    spec, status, name, age = _parts(doc, now)
    least, most = (str(spec.get(key, "N/A")) for key in ("minAvailable", "maxUnavailable"))
    return [name, least, most, status.get("disruptionsAllowed", 0), age]


def account_cells(doc: Json, now: float) -> Cells:
    _, _, name, age = _parts(doc, now)
    return [name, len(doc.get("secrets") or ()), age]


def role_cells(doc: Json, _now: float) -> Cells:
    return [doc["metadata"]["name"], doc["metadata"].get("creationTimestamp", "")]


def quota_cells(doc: Json, now: float) -> Cells:
    """printResourceQuota."""
    _, status, name, age = _parts(doc, now)
    hard, used = status.get("hard") or {}, status.get("used") or {}
    texts = {resource: f"{resource}: {used.get(resource, '0')}/{hard[resource]}" for resource in sorted(hard)}
    limits = [text for resource, text in texts.items() if resource.startswith("limits.")]
    requests = [text for resource, text in texts.items() if not resource.startswith("limits.")]
    return [name, ", ".join(requests), ", ".join(limits), age]


def binding_cells(doc: Json, now: float) -> Cells:
    _, _, name, age = _parts(doc, now)
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in doc.get("subjects") or ():
        where = f"{subject['namespace']}/" if subject.get("namespace") else ""
        subjects.setdefault(subject["kind"], []).append(where + subject["name"])
    columns = (", ".join(subjects[kind]) for kind in ("User", "Group", "ServiceAccount"))
    return [name, f"{doc['roleRef']['kind']}/{doc['roleRef']['name']}", age, *columns]


PRINTERS: dict[str, tuple[tuple[Column, ...], Callable[[Json, float], Cells]]] = {
    "Deployment": (_DEPLOYMENT, deployment_cells),
    "ReplicaSet": (_REPLICAS, replica_set_cells),
    "ReplicationController": (_REPLICAS, replica_set_cells),
    "StatefulSet": (_STATEFUL_SET, stateful_set_cells),
    "DaemonSet": (_DAEMON_SET, daemon_set_cells),
    "Job": (_JOB, job_cells),
    "CronJob": (_CRON_JOB, cron_job_cells),
    "ControllerRevision": (_REVISION, revision_cells),
    "PodDisruptionBudget": (_BUDGET, budget_cells),
    "ServiceAccount": (_ACCOUNT, account_cells),
    "HorizontalPodAutoscaler": (COLUMNS, autoscaler_cells),
    "LimitRange": (_ROLE, role_cells),
    "ResourceQuota": (_QUOTA, quota_cells),
    "Role": (_ROLE, role_cells),
    "ClusterRole": (_ROLE, role_cells),
    "RoleBinding": (_BINDING, binding_cells),
    "ClusterRoleBinding": (_BINDING, binding_cells),
}
