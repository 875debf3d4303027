"""kube_deployment_*, kube_replicaset_*, kube_replicationcontroller_*, kube_statefulset_* and kube_daemonset_* of the
stored objects, as in kube-state-metrics (docs/metrics/workload; internal/store/deployment.go, replicaset.go, …).

A kind has families only while there are objects of it. A node without workloads does not import this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kubelite.controllers.decide.pods import scaled
from kubelite.kube.json import Json
from kubelite.telemetry.metrics.exposition import Page
from kubelite.telemetry.metrics.kubestate.fields import (
    CREATED,
    DELETED,
    GENERATION,
    Field,
    Kind,
    add_truth,
    conditions_of,
)
from kubelite.telemetry.metrics.kubestate.jobs import write_cron_jobs, write_jobs
from kubelite.telemetry.metrics.kubestate.page import Table, label, owner_labels
from kubelite.telemetry.metrics.kubestate.policies import (
    write_autoscalers,
    write_budgets,
    write_limit_ranges,
    write_quotas,
)

#: Reasons of a Deployment's conditions that appear as they are; any other one is "unknown", which bounds the series.
REASONS = frozenset(
    {
        "",
        "DeploymentPaused",
        "DeploymentResumed",
        "FoundNewReplicaSet",
        "MinimumReplicasAvailable",
        "MinimumReplicasUnavailable",
        "NewReplicaSetAvailable",
        "NewReplicaSetCreated",
        "ProgressDeadlineExceeded",
        "ReplicaSetCreateError",
        "ReplicaSetUpdated",
    }
)

_OF_DEPLOYMENT = "The number of {} per deployment.".format
_OF_STATEFUL_SET = "The number of {} per StatefulSet.".format
_SHOULD = "The number of nodes that should be running the daemon pod and have"

DEPLOYMENT_FIELDS = (
    CREATED,
    Field("status_replicas", _OF_DEPLOYMENT("replicas"), "status.replicas"),
    Field("status_replicas_ready", _OF_DEPLOYMENT("ready replicas"), "status.readyReplicas"),
    Field("status_replicas_available", _OF_DEPLOYMENT("available replicas"), "status.availableReplicas"),
    Field(
        "status_replicas_unavailable", _OF_DEPLOYMENT("unavailable replicas"), "status.unavailableReplicas"
    ),
    Field("status_replicas_updated", _OF_DEPLOYMENT("updated replicas"), "status.updatedReplicas"),
    Field(
        "status_terminating_replicas",
        _OF_DEPLOYMENT("terminating replicas"),
        "status.terminatingReplicas",
        None,
    ),
    Field(
        "status_observed_generation",
        "The generation observed by the deployment controller.",
        "status.observedGeneration",
    ),
    Field("spec_replicas", "Number of desired pods for a deployment.", "spec.replicas", None),
    Field(
        "spec_paused",
        "Whether the deployment is paused and will not be processed by the deployment controller.",
        "spec.paused",
    ),
    GENERATION,
    DELETED,
)

STATEFUL_SET_FIELDS = (
    CREATED,
    Field("status_replicas", _OF_STATEFUL_SET("replicas"), "status.replicas"),
    Field("status_replicas_available", _OF_STATEFUL_SET("available replicas"), "status.availableReplicas"),
    Field("status_replicas_current", _OF_STATEFUL_SET("current replicas"), "status.currentReplicas"),
    Field("status_replicas_ready", _OF_STATEFUL_SET("ready replicas"), "status.readyReplicas"),
    Field("status_replicas_updated", _OF_STATEFUL_SET("updated replicas"), "status.updatedReplicas"),
    Field(
        "status_observed_generation",
        "The generation observed by the StatefulSet controller.",
        "status.observedGeneration",
    ),
    Field("replicas", "Number of desired pods for a StatefulSet.", "spec.replicas", None),
    Field("ordinals_start", "Start ordinal of the StatefulSet.", "spec.ordinals.start", None),
    Field(
        "metadata_generation",
        f"{GENERATION.text.removesuffix('.')} for the StatefulSet.",
        "metadata.generation",
    ),
    DELETED,
)

DAEMON_SET_FIELDS = (
    CREATED,
    Field(
        "status_current_number_scheduled",
        "The number of nodes running at least one daemon pod and are supposed to.",
        "status.currentNumberScheduled",
    ),
    Field(
        "status_desired_number_scheduled",
        "The number of nodes that should be running the daemon pod.",
        "status.desiredNumberScheduled",
    ),
    Field(
        "status_number_available",
        f"{_SHOULD} one or more of the daemon pod running and available",
        "status.numberAvailable",
    ),
    Field(
        "status_number_misscheduled",
        "The number of nodes running a daemon pod but are not supposed to.",
        "status.numberMisscheduled",
    ),
    Field(
        "status_number_ready",
        f"{_SHOULD} one or more of the daemon pod running and ready.",
        "status.numberReady",
    ),
    Field(
        "status_number_unavailable",
        f"{_SHOULD} none of the daemon pod running and available",
        "status.numberUnavailable",
    ),
    Field(
        "status_observed_generation",
        "The most recent generation observed by the daemon set controller.",
        "status.observedGeneration",
    ),
    Field(
        "status_updated_number_scheduled",
        "The total number of nodes that are running updated daemon pod",
        "status.updatedNumberScheduled",
    ),
    GENERATION,
    DELETED,
)


def write_workloads(page: Page, objects: Mapping[str, Sequence[Json]]) -> None:
    """Write the families of all kinds of `WRITERS` that have objects. `objects`: by kind."""
    for kind, write in WRITERS.items():
        if docs := objects.get(kind):
            table = Table()
            write(table, docs)
            table.write(page)


def write_deployments(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("deployment")
    owner = kind.gauge(t, "owner", "Information about the Deployment's owner.")
    for doc in docs:
        for one in doc["metadata"].get("ownerReferences") or [{}]:
            words = label("owner_kind", one.get("kind", "")) + label("owner_name", one.get("name", ""))
            t.add(owner, kind.head(doc) + words, 1)
    kind.write(t, docs, *DEPLOYMENT_FIELDS)
    _deployment_conditions(t, kind, docs)
    _rolling_updates(t, kind, docs)
    kind.write_labels(t, docs)


def _deployment_conditions(t: Table, kind: Kind, docs: Sequence[Json]) -> None:
    family = kind.gauge(t, "status_condition", "The current status conditions of a deployment.")
    for doc in docs:
        for condition in conditions_of(doc):
            reason = condition.get("reason", "")
            words = label("reason", reason if reason in REASONS else "unknown")
            head = kind.head(doc) + words + label("condition", condition["type"])
            add_truth(t, family, head, condition["status"], "status")


def _rolling_updates(t: Table, kind: Kind, docs: Sequence[Json]) -> None:
    during = "during a rolling update of a deployment."
    most = "Maximum number of replicas that can be scheduled above the desired number of replicas"
    for name, field, text, up in (
        ("max_unavailable", "maxUnavailable", f"Maximum number of unavailable replicas {during}", False),
        ("max_surge", "maxSurge", f"{most} {during}", True),
    ):
        family = kind.gauge(t, f"spec_strategy_rollingupdate_{name}", text)
        for doc in docs:
            value = ((doc["spec"].get("strategy") or {}).get("rollingUpdate") or {}).get(field)
            if value is not None:
                t.add(family, kind.head(doc), scaled(value, doc["spec"].get("replicas", 1), up=up))


def write_replica_sets(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("replicaset")
    kind.write(t, docs, CREATED, *_replica_fields("ReplicaSet"))
    text = "The number of terminating replicas per ReplicaSet."
    kind.write(t, docs, Field("status_terminating_replicas", text, "status.terminatingReplicas", None))
    _owners(t, kind, docs, "ReplicaSet")
    kind.write_labels(t, docs)


def write_replication_controllers(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("replicationcontroller")
    kind.write(t, docs, CREATED, *_replica_fields("ReplicationController"))
    text = "The number of available replicas per ReplicationController."
    kind.write(t, docs, Field("status_available_replicas", text, "status.availableReplicas"))
    _owners(t, kind, docs, "ReplicationController")


def _replica_fields(name: str) -> tuple[Field, ...]:
    labelled = f"The number of fully labeled replicas per {name}."
    observed = f"The generation observed by the {name} controller."
    return (
        Field("status_replicas", f"The number of replicas per {name}.", "status.replicas"),
        Field("status_fully_labeled_replicas", labelled, "status.fullyLabeledReplicas"),
        Field("status_ready_replicas", f"The number of ready replicas per {name}.", "status.readyReplicas"),
        Field("status_observed_generation", observed, "status.observedGeneration"),
        Field("spec_replicas", f"Number of desired pods for a {name}.", "spec.replicas", None),
        GENERATION,
    )


def _owners(t: Table, kind: Kind, docs: Sequence[Json], name: str) -> None:
    family = kind.gauge(t, "owner", f"Information about the {name}'s owner.")
    for doc in docs:
        for words in owner_labels(doc["metadata"]):
            t.add(family, kind.head(doc) + words, 1)


def write_stateful_sets(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("statefulset")
    kind.write(t, docs, *STATEFUL_SET_FIELDS)
    kept = kind.gauge(
        t,
        "persistentvolumeclaim_retention_policy",
        "Count of retention policy for StatefulSet template PVCs",
    )
    for doc in docs:
        if policy := doc["spec"].get("persistentVolumeClaimRetentionPolicy"):
            words = label("when_deleted", policy.get("whenDeleted", ""))
            t.add(kept, kind.head(doc) + words + label("when_scaled", policy.get("whenScaled", "")), 1)
    kind.write_labels(t, docs)
    used = "Indicates the version of the StatefulSet used to generate Pods in the sequence"
    for name, field, text in (
        ("status_current_revision", "currentRevision", f"{used} [0,currentReplicas)."),
        ("status_update_revision", "updateRevision", f"{used} [replicas-updatedReplicas,replicas)"),
    ):
        family = kind.gauge(t, name, text)
        for doc in docs:
            revision = (doc.get("status") or {}).get(field, "")
            t.add(family, kind.head(doc) + label("revision", revision), 1)


def write_daemon_sets(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("daemonset")
    kind.write(t, docs, *DAEMON_SET_FIELDS)
    kind.write_labels(t, docs)


WRITERS: Mapping[str, Callable[[Table, Sequence[Json]], None]] = {
    "Deployment": write_deployments,
    "ReplicaSet": write_replica_sets,
    "ReplicationController": write_replication_controllers,
    "StatefulSet": write_stateful_sets,
    "DaemonSet": write_daemon_sets,
    "Job": write_jobs,
    "CronJob": write_cron_jobs,
    "PodDisruptionBudget": write_budgets,
    "HorizontalPodAutoscaler": write_autoscalers,
    "ResourceQuota": write_quotas,
    "LimitRange": write_limit_ranges,
}
