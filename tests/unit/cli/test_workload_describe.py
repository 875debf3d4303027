"""`kubelite describe` of workloads prints what kubectl prints."""

from __future__ import annotations

import os
import subprocess

import pytest

from kubelite.cli.describe.workloads import Owned, describe_deployment, describe_workload, new_set
from kubelite.kube.json import Json
from tests.programs import missing
from tests.unit.api.fake_node import NOW
from tests.unit.api.server import Served
from tests.unit.cli.kit import ok, server
from tests.unit.cli.workload_docs import owned, pod, template, workload

__all__ = ["server"]

REVISION = "deployment.kubernetes.io/revision"
CONDITIONS = [
    {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
    {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
]
DOCS: dict[str, Json] = {
    "Deployment": workload(
        "Deployment",
        replicas=3,
        strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
        status={"replicas": 3, "updatedReplicas": 2, "availableReplicas": 1, "unavailableReplicas": 2,
                "conditions": CONDITIONS},
        annotations={REVISION: "2"},
    ),
    "ReplicaSet": workload(
        "ReplicaSet", replicas=2, status={"replicas": 1, "conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}]},
        selector={"matchExpressions": [
            {"key": "tier", "operator": "NotIn", "values": ["b", "a"]},
            {"key": "old", "operator": "DoesNotExist"}], "matchLabels": {"app": "web"}},
    ),
    "ReplicationController": workload("ReplicationController", replicas=1, status={"replicas": 1}),
    "StatefulSet": workload(
        "StatefulSet", replicas=2, serviceName="db",
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
        volumeClaimTemplates=[{
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                     "resources": {"requests": {"storage": "1Gi"}}}}],
        status={"replicas": 1},
    ),
    "DaemonSet": workload(
        "DaemonSet", template=template(nodeSelector={"disk": "ssd"}, tolerations=[{"operator": "Exists"}]),
        updateStrategy={"type": "OnDelete"},
        status={"desiredNumberScheduled": 1, "currentNumberScheduled": 1, "updatedNumberScheduled": 1,
                "numberAvailable": 0, "numberMisscheduled": 0},
    ),
    "Job": workload(
        "Job", parallelism=2, completions=5, completionMode="Indexed", suspend=False, backoffLimit=6,
        activeDeadlineSeconds=60, ttlSecondsAfterFinished=9,
        status={"active": 1, "ready": 1, "succeeded": 4, "failed": 2, "completedIndexes": "0-3",
                "startTime": "2026-05-01T12:00:00Z", "completionTime": "2026-05-01T12:03:20Z"},
    ),
    "CronJob": workload(
        "CronJob", schedule="*/5 * * * *", concurrencyPolicy="Forbid", suspend=False,
        successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1, startingDeadlineSeconds=20,
        jobTemplate={"spec": {"template": template(), "completions": 2}},
        status={"lastScheduleTime": NOW, "active": [{"name": "web-1"}, {"name": "web-2"}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(DOCS))
def test_describe_prints_what_kubectl_prints(server: Served, kind: str) -> None:
    if missing("kubectl"):
        pytest.skip("needs kubectl (kubernetes-client)")
    store, doc = server.node.store, DOCS[kind]
    server.run(store.create(kind, doc))
    for name, phase in (("web-a", "Running"), ("web-b", "Pending"), ("web-c", "Failed")):
        server.run(store.create("Pod", pod(name, doc, phase=phase)))
    if kind == "Deployment":
        for one in sets_of(doc):
            server.run(store.create("ReplicaSet", one))
    environ = {**os.environ, "KUBECONFIG": "/dev/null", "HOME": str(server.root)}
    command = ["kubectl", "-s", f"http://127.0.0.1:{server.port}", "describe", kind.lower(), "web"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    ours = ok(server, "describe", kind, "web")
    if kind == "DaemonSet":  # kubectl prints the namespace since 1.33
        ours = ours.replace("Namespace:      default\n", "") if "Namespace" not in done.stdout else ours
    assert ours == done.stdout


def sets_of(deployment: Json) -> list[Json]:
    sets = []
    for number, replicas in ((1, 1), (2, 2), (3, 0)):
        made = workload("ReplicaSet", f"web-{number}", replicas=replicas, status={"replicas": replicas})
        made["metadata"]["annotations"] = {REVISION: str(number)}
        if number != 2:
            made["spec"]["template"] = template(f"other:{number}")
        sets.append(owned(made, deployment))
    return sets


def test_the_replica_sets_of_a_deployment() -> None:
    deployment = DOCS["Deployment"]
    sets = sets_of(deployment)
    assert new_set(deployment, sets) is sets[1]
    *_, old, new = describe_deployment(deployment, Owned(sets=sets))
    assert old == "OldReplicaSets:\tweb-1 (1/1 replicas created), web-3 (0/0 replicas created)"
    assert new == "NewReplicaSet:\tweb-2 (2/2 replicas created)"
    bare = workload("Deployment")
    assert new_set(bare, sets) is None
    assert not any("ReplicaSet" in line for line in describe_deployment(bare, Owned()))


def test_a_long_list_of_indexes_is_cut() -> None:
    done = ",".join(str(2 * index) for index in range(99))
    job = workload("Job", completionMode="Indexed", status={"completedIndexes": done})
    text = describe_workload(job, Owned(), None, 0.0)
    (line,) = [line for line in text.splitlines() if line.startswith("Completed Indexes:")]
    assert line.endswith(",...") and len(line) < 90
