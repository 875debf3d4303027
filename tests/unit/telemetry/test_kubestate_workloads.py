"""kube_deployment_*, kube_job_* and the like: names, labels and values as kube-state-metrics has them.

Sources: kubernetes/kube-state-metrics internal/store/deployment.go, replicaset.go, statefulset.go, daemonset.go,
job.go, cronjob.go, poddisruptionbudget.go, horizontalpodautoscaler.go.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from kubelite.kube.objects import WORKLOADS
from kubelite.telemetry.metrics.exposition import render
from kubelite.telemetry.metrics.kubestate.workloads import WRITERS, write_workloads
from kubelite.telemetry.metrics.pages import POLICIES

AT = "2026-01-02T03:04:05Z"
UNIX = 1767323045


def doc(kind: str, spec: dict[str, Any], status: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "shop", "creationTimestamp": AT, "generation": 3, **meta}
    return {"kind": kind, "metadata": metadata, "spec": spec, "status": status or {}}


def page(*docs: dict[str, Any]) -> set[str]:
    objects: dict[str, list[dict[str, Any]]] = {}
    for one in docs:
        objects.setdefault(one["kind"], []).append(one)
    text = render(lambda page: write_workloads(page, objects), openmetrics=False, compressed=False).decode()
    return {line for line in text.splitlines() if not line.startswith("#")}


def test_a_deployment() -> None:
    status = {
        "replicas": 4, "readyReplicas": 3, "updatedReplicas": 1, "availableReplicas": 3, "unavailableReplicas": 1,
        "observedGeneration": 2,
        "conditions": [
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
            {"type": "Available", "status": "True", "reason": "Invented"},
        ],
    }  # fmt: skip
    spec = {
        "replicas": 3,
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
    }
    found = page(doc("Deployment", spec, status, labels={"app": "web"}))
    web = 'namespace="shop",deployment="web"'
    reached = {
        "created": UNIX, "metadata_generation": 3, "spec_paused": 0, "spec_replicas": 3,
        "spec_strategy_rollingupdate_max_surge": 1, "spec_strategy_rollingupdate_max_unavailable": 0,
        "status_observed_generation": 2, "status_replicas": 4, "status_replicas_available": 3,
        "status_replicas_ready": 3, "status_replicas_unavailable": 1, "status_replicas_updated": 1,
    }  # fmt: skip
    assert {f"kube_deployment_{name}{{{web}}} {value}" for name, value in reached.items()} <= found
    stuck = (
        f'kube_deployment_status_condition{{{web},reason="ProgressDeadlineExceeded",condition="Progressing"'
    )
    assert {f'{stuck},status="false"}} 1', f'{stuck},status="true"}} 0'} <= found
    assert any('reason="unknown",condition="Available",status="true"} 1' in line for line in found)
    assert f'kube_deployment_owner{{{web},owner_kind="",owner_name=""}} 1' in found
    assert f'kube_deployment_labels{{{web},label_app="web"}} 1' in found
    assert not any("deletion_timestamp" in line or "terminating_replicas" in line for line in found)


def test_a_replica_set_names_its_owner_and_a_new_one_has_zeros() -> None:
    owner = {"kind": "Deployment", "name": "web", "controller": True}
    found = page(doc("ReplicaSet", {"replicas": 0}, ownerReferences=[owner]))
    web = 'namespace="shop",replicaset="web"'
    owner_words = 'owner_kind="Deployment",owner_name="web",owner_is_controller="true"'
    assert f"kube_replicaset_owner{{{web},{owner_words}}} 1" in found
    assert f"kube_replicaset_status_ready_replicas{{{web}}} 0" in found
    assert f"kube_replicaset_spec_replicas{{{web}}} 0" in found


def test_stateful_set_and_daemon_set() -> None:
    spec = {
        "replicas": 2,
        "ordinals": {"start": 5},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"},
    }
    found = page(
        doc("StatefulSet", spec, {"currentRevision": "web-1", "updateRevision": "web-2", "readyReplicas": 2}),
        doc("DaemonSet", {}, {"desiredNumberScheduled": 1, "numberUnavailable": 1}),
    )
    web = 'namespace="shop",statefulset="web"'
    assert f"kube_statefulset_replicas{{{web}}} 2" in found
    assert f"kube_statefulset_ordinals_start{{{web}}} 5" in found
    assert f'kube_statefulset_status_update_revision{{{web},revision="web-2"}} 1' in found
    policy = 'when_deleted="Retain",when_scaled="Delete"'
    assert f"kube_statefulset_persistentvolumeclaim_retention_policy{{{web},{policy}}} 1" in found
    web = 'namespace="shop",daemonset="web"'
    assert f"kube_daemonset_status_desired_number_scheduled{{{web}}} 1" in found
    assert f"kube_daemonset_status_number_available{{{web}}} 0" in found
    assert f"kube_daemonset_status_number_unavailable{{{web}}} 1" in found


def test_jobs_say_how_they_end() -> None:
    failed = {
        "failed": 4,
        "startTime": AT,
        "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}],
    }
    complete = {"succeeded": 1, "completionTime": AT, "conditions": [{"type": "Complete", "status": "True"}]}
    found = page(
        doc("Job", {"completions": 2, "parallelism": 1}, failed),
        doc("Job", {}, complete, name="done"),
        doc("Job", {}, {"failed": 2}, name="tries"),
        doc(
            "Job", {"suspend": True}, {"conditions": [{"type": "Suspended", "status": "True"}]}, name="waits"
        ),
    )
    web = 'namespace="shop",job_name="web"'
    assert f'kube_job_status_failed{{{web},reason="BackoffLimitExceeded"}} 1' in found
    assert f'kube_job_status_failed{{{web},reason="DeadlineExceeded"}} 0' in found
    assert f'kube_job_failed{{{web},condition="true"}} 1' in found
    assert f"kube_job_status_start_time{{{web}}} {UNIX}" in found
    assert 'kube_job_status_failed{namespace="shop",job_name="tries",reason=""} 2' in found
    assert 'kube_job_status_failed{namespace="shop",job_name="done"} 0' in found
    assert 'kube_job_complete{namespace="shop",job_name="done",condition="true"} 1' in found
    assert 'kube_job_status_suspended{namespace="shop",job_name="waits"} 1' in found


def test_cron_jobs_say_when_they_are_due() -> None:
    spec = {"schedule": "0 4 * * *", "concurrencyPolicy": "Allow", "timeZone": "Etc/UTC", "suspend": False}
    found = page(
        doc("CronJob", spec, {"active": [{}, {}]}, resourceVersion="17"),
        doc("CronJob", {**spec, "suspend": True}, name="off"),
        doc("CronJob", {**spec, "timeZone": "Nowhere/Else"}, name="odd"),
    )
    web = 'namespace="shop",cronjob="web"'
    words = 'schedule="0 4 * * *",concurrency_policy="Allow",timezone="Etc/UTC"'
    assert f"kube_cronjob_info{{{web},{words}}} 1" in found
    assert f"kube_cronjob_status_active{{{web}}} 2" in found
    assert f"kube_cronjob_next_schedule_time{{{web}}} {UNIX + 3355}" in found
    assert f"kube_cronjob_metadata_resource_version{{{web}}} 17" in found
    assert 'kube_cronjob_spec_suspend{namespace="shop",cronjob="off"} 1' in found
    assert 'kube_cronjob_schedule_invalid{namespace="shop",cronjob="odd"} 1' in found
    assert sum("next_schedule_time" in line for line in found) == 1


def test_budgets_and_autoscalers() -> None:
    target = {"type": "Utilization", "averageUtilization": 80}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "maxReplicas": 10,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        "behavior": {"scaleUp": {"tolerance": "50m"}},
    }
    current = {"averageUtilization": 30, "averageValue": "150m"}
    status = {
        "currentReplicas": 2,
        "desiredReplicas": 3,
        "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": current}},
            {"type": "Pods"},
        ],
        "conditions": [{"type": "ScalingLimited", "status": "False"}],
    }
    found = page(
        doc("PodDisruptionBudget", {}, {"disruptionsAllowed": 1, "expectedPods": 3}),
        doc("HorizontalPodAutoscaler", spec, status),
        doc("ResourceQuota", {}, {"hard": {"requests.cpu": "1"}, "used": {"requests.cpu": "250m"}}),
    )
    of_quota = 'kube_resourcequota{namespace="shop",resourcequota="web",resource="requests.cpu"'
    assert f'{of_quota},type="hard"}} 1' in found and f'{of_quota},type="used"}} 0.25' in found
    assert (
        'kube_poddisruptionbudget_status_pod_disruptions_allowed{namespace="shop",poddisruptionbudget="web"} 1'
        in found
    )
    head = 'namespace="shop",horizontalpodautoscaler="web"'
    of = 'scaletargetref_api_version="apps/v1",scaletargetref_kind="Deployment",scaletargetref_name="web"'
    prefix = "kube_horizontalpodautoscaler"
    assert f"{prefix}_info{{{head},{of}}} 1" in found
    assert f"{prefix}_spec_min_replicas{{{head}}} 1" in found
    assert f"{prefix}_status_desired_replicas{{{head}}} 3" in found
    cpu = 'metric_name="cpu",metric_target_type'
    assert f'{prefix}_spec_target_metric{{{head},{cpu}="utilization",container=""}} 80' in found
    assert f'{prefix}_status_target_metric{{{head},{cpu}="average",container=""}} 0.15' in found
    assert f"{prefix}_spec_behavior_scale_up_tolerance{{{head}}} 0.05" in found
    assert f'{prefix}_status_condition{{{head},condition="ScalingLimited",status="false"}} 1' in found


def test_limit_ranges() -> None:
    """internal/store/limitrange_test.go: each constraint of each resource and type."""
    limits = [
        {"type": "Container", "max": {"cpu": "1"}, "defaultRequest": {"cpu": "100m", "memory": "1Mi"}},
        {"type": "Pod", "maxLimitRequestRatio": {"memory": "1500m"}},
    ]
    found = page(doc("LimitRange", {"limits": limits}))
    of = 'kube_limitrange{namespace="shop",limitrange="web"'
    rows = {line for line in found if line.startswith(of)}
    assert rows == {
        f'{of},resource="cpu",type="Container",constraint="max"}} 1',
        f'{of},resource="cpu",type="Container",constraint="defaultRequest"}} 0.1',
        f'{of},resource="memory",type="Container",constraint="defaultRequest"}} 1048576',
        f'{of},resource="memory",type="Pod",constraint="maxLimitRequestRatio"}} 1.5',
    }


def test_objects_with_nothing_but_a_name_break_no_page() -> None:
    bare = {
        "CronJob": {"schedule": "@daily"},
        "HorizontalPodAutoscaler": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}},
        "LimitRange": {"limits": [{"type": "Pod", "min": {"cpu": "1"}}]},
    }
    for kind in WRITERS:
        assert page({"kind": kind, "metadata": {"name": "web"}, "spec": bare.get(kind, {})})


def test_a_scrape_reads_every_kind_that_has_families() -> None:
    assert {*WORKLOADS, *POLICIES} == set(WRITERS)


def test_a_node_without_workloads_does_not_load_them() -> None:
    code = "import sys, kubelite.telemetry.metrics.pages; print([m for m in sys.modules if 'kubestate.workloads' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
