"""Workloads in the API: discovery, columns, scale, deletion with a propagation policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubelite.api.kube.deletion import outcome
from kubelite.api.kube.printers import table
from kubelite.api.kube.resources import RESOURCES
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import selector_text
from kubelite.kube.objects import SOURCE
from tests.unit.api.fake_node import FakeNode, pod_doc
from tests.unit.api.test_api import TABLE, Http

NOW = 1_790_000_000.0
CREATED = "2026-09-21T14:08:20Z"  # 300 s before NOW
TEMPLATE: Json = {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}}


def doc(kind: str, spec: Any, status: Any = None, **metadata: Any) -> Json:
    version = {"ReplicationController": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}.get(kind, "apps/v1")
    own = {
        "name": "web", "namespace": "default", "uid": f"uid-{kind}", "creationTimestamp": CREATED, **metadata,
    }  # fmt: skip
    return {"apiVersion": version, "kind": kind, "metadata": own, "spec": spec, "status": status or {}}


def spec(**fields: Any) -> Json:
    return {"selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE, **fields}


_DONE = {"type": "Complete", "status": "True"}
_JOB: Json = {"template": TEMPLATE, "selector": {"matchLabels": {"job-name": "web"}}}
_WIDE = ["a,b", "x:1,y:2"]


@pytest.mark.parametrize(
    ("found", "cells"),
    [
        (
            doc("Deployment", spec(replicas=3), {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}),
            ["web", "2/3", 3, 1, "5m", *_WIDE, "app=web"],
        ),
        (doc("ReplicaSet", spec(replicas=3), {"replicas": 2}), ["web", 3, 2, 0, "5m", *_WIDE, "app=web"]),
        (
            doc("ReplicationController", spec(replicas=1, selector={"b": "2", "a": "1"}), {"readyReplicas": 1}),
            ["web", 1, 0, 1, "5m", *_WIDE, "a=1,b=2"],
        ),
        (doc("StatefulSet", spec(replicas=2), {"readyReplicas": 1}), ["web", "1/2", "5m", *_WIDE]),
        (
            doc("DaemonSet", spec(), {"desiredNumberScheduled": 1, "numberReady": 1}),
            ["web", 1, 0, 1, 0, 0, "<none>", "5m", *_WIDE, "app=web"],
        ),
        (doc("Job", {**_JOB, "completions": 3}), ["web", "Running", "0/3", "", "5m", *_WIDE, "job-name=web"]),
        (
            doc("Job", {**_JOB, "parallelism": 4}, {"succeeded": 1, "startTime": CREATED, "conditions": [_DONE]}),
            ["web", "Complete", "1/1 of 4", "5m", "5m", *_WIDE, "job-name=web"],
        ),
        (
            doc("Job", _JOB, {"startTime": CREATED, "completionTime": "2026-09-21T14:08:27Z"}),
            ["web", "Running", "0/1", "7s", "5m", *_WIDE, "job-name=web"],
        ),
        (
            doc("CronJob", {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": TEMPLATE}}}),
            ["web", "* * * * *", "<none>", "False", 0, "<none>", "5m", *_WIDE, "<none>"],
        ),
    ],
)  # fmt: skip
def test_columns_are_those_of_kubernetes(found: Json, cells: list[Any]) -> None:
    printed = table(found["kind"], [found], now=NOW, resource_version=1)
    assert printed["rows"][0]["cells"] == cells
    assert len(printed["columnDefinitions"]) == len(cells)


def test_the_columns_of_a_revision() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "controller": True}
    found = {**doc("ControllerRevision", {}, ownerReferences=[owner]), "revision": 2}
    cells = table("ControllerRevision", [found], now=NOW, resource_version=1)["rows"][0]["cells"]
    assert cells == ["web", "statefulset.apps/db", 2, "5m"]


def test_a_selector_in_words() -> None:
    expressions = [
        {"key": "tier", "operator": "In", "values": ["b", "a"]},
        {"key": "old", "operator": "DoesNotExist"},
        {"key": "new", "operator": "Exists"},
    ]
    found = selector_text({"matchLabels": {"app": "web"}, "matchExpressions": expressions})
    assert found == "app=web,new,!old,tier in (a,b)"


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Http]:
    fake = FakeNode(tmp_path)
    client = Http(fake)

    async def fill() -> None:
        status = {"replicas": 2}
        await fake.store.create("Deployment", doc("Deployment", spec(replicas=3), status))
        sourced = doc("Job", _JOB, annotations={SOURCE: "/manifests/job.yaml"})
        await fake.store.create("Job", sourced)
        owned = pod_doc("web-1")
        owned["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "web", "controller": True}]
        await fake.store.create("Pod", owned)
        claim: Json = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {}}
        for name, noted in (("data-db-0", {}), ("mine", {SOURCE: "/manifests/mine.yaml"})):
            metadata = {
                "name": name,
                "namespace": "default",
                "uid": f"uid-{name}",
                "annotations": noted,
            }
            await fake.store.create("PersistentVolumeClaim", {**claim, "metadata": metadata})

    client.runner.run(fill())
    yield client
    client.runner.run(client.client.aclose())
    client.runner.run(fake.store.close())
    client.runner.close()


APPS = "/apis/apps/v1/namespaces/default"


def test_discovery_has_the_groups_with_short_names_and_scale(http: Http) -> None:
    groups = [group["name"] for group in http.get("/apis").json()["groups"]]
    assert groups[:3] == ["apps", "autoscaling", "batch"]
    served = {found["name"]: found for found in http.get("/apis/apps/v1").json()["resources"]}
    assert served["deployments"]["shortNames"] == ["deploy"]
    assert served["deployments"]["categories"] == ["all"]
    assert served["deployments/scale"]["kind"] == "Scale"
    assert served["deployments/scale"]["group"] == "autoscaling"
    assert "daemonsets/scale" not in served and "categories" not in served["controllerrevisions"]


def test_get_and_list_and_scale(http: Http) -> None:
    listed = http.get(f"{APPS}/deployments").json()
    assert listed["kind"] == "DeploymentList" and listed["apiVersion"] == "apps/v1"
    assert http.get("/apis/apps/v1/deployments", headers=TABLE).json()["rows"][0]["cells"][1] == "0/3"
    assert http.get(f"{APPS}/deployments/web/status").json()["status"] == {"replicas": 2}
    scale = http.get(f"{APPS}/deployments/web/scale").json()
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": "app=web"}
    assert http.get(f"{APPS}/deployments/none/scale").status_code == 404
    assert http.get("/apis/batch/v1/namespaces/default/jobs/web/scale").status_code == 404
    assert http.get(f"{APPS}/jobs").status_code == 404, "a kind is served in its own group only"


def test_a_deletion_follows_its_policy(http: Http) -> None:
    path = f"{APPS}/deployments/web"
    refused = http.request("DELETE", path, json={"propagationPolicy": "Sideways"})
    assert refused.status_code == 400 and "propagationPolicy must be one of" in refused.json()["message"]
    began = http.request("DELETE", path, json={"propagationPolicy": "Foreground"}).json()
    assert began["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert began["metadata"]["deletionTimestamp"]
    orphaned = http.request("DELETE", path, params={"propagationPolicy": "Orphan"}).json()
    assert orphaned["metadata"]["finalizers"] == ["orphan"]
    done = http.request("DELETE", path).json()
    assert (done["kind"], done["status"]) == ("Status", "Success"), "nothing is left of it"
    assert done["details"] == {"name": "web", "kind": "deployments", "uid": "uid-Deployment", "group": "apps"}
    assert http.get(path).status_code == 404


@pytest.mark.parametrize(
    ("plural", "answered"),
    [("pods", "Pod"), ("services", "Service"), ("serviceaccounts", "ServiceAccount"), ("secrets", "Status")],
)
def test_what_a_finished_deletion_is_answered_with(plural: str, answered: str) -> None:
    """The object for some kinds, a Status for the others, as the OpenAPI document of Kubernetes says."""
    resource = RESOURCES[plural]
    gone = {"kind": resource.kind, "metadata": {"name": "a", "uid": "1"}}
    again = {"kind": resource.kind, "metadata": {"name": "a", "uid": "2"}}
    for left in (None, again):
        assert outcome(resource, gone, left)["kind"] == answered
    ending = {"kind": resource.kind, "metadata": {"name": "a", "uid": "1", "deletionTimestamp": CREATED}}
    assert outcome(resource, gone, ending) == ending


def test_a_deletion_says_what_is_created_again(http: Http) -> None:
    done = http.request("DELETE", "/apis/batch/v1/namespaces/default/jobs/web?manifest=keep")
    assert "/manifests/job.yaml still defines job web, so it is recreated" in done.headers["Warning"]
    done = http.request("DELETE", "/api/v1/namespaces/default/pods/web-1")
    assert "pod web-1 belongs to replicaset web, which may replace it" in done.headers["Warning"]


def test_a_claim_that_no_manifest_defines_is_deleted(http: Http) -> None:
    """It is terminating until no pod uses it. One from a manifest is deleted with that."""
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    done = http.request("DELETE", f"{claims}/data-db-0").json()
    assert done["metadata"]["deletionTimestamp"]
    assert done["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    refused = http.request("DELETE", f"{claims}/mine?manifest=keep")
    assert refused.status_code == 405
    assert "delete it with `kubelite delete -f /manifests/mine.yaml`" in refused.json()["message"]
    assert "deletionTimestamp" not in http.get(f"{claims}/mine").json()["metadata"]


def test_the_columns_of_accounts_and_roles() -> None:
    metadata = {"name": "web", "creationTimestamp": CREATED}
    subjects = [
        {"kind": "ServiceAccount", "name": "web", "namespace": "shop"},
        {"kind": "User", "name": "jo"},
        {"kind": "Group", "name": "ops"},
    ]
    bound = {"metadata": metadata, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": subjects}
    for kind, found, cells in (
        ("ServiceAccount", {"metadata": metadata}, ["web", 0, "5m"]),
        ("ClusterRole", {"metadata": metadata}, ["web", CREATED]),
        ("RoleBinding", bound, ["web", "ClusterRole/view", "5m", "jo", "ops", "shop/web"]),
    ):
        assert table(kind, [found], now=NOW, resource_version=1)["rows"][0]["cells"] == cells


def test_a_namespace_of_a_manifest_has_its_labels_and_exists_without_objects(http: Http) -> None:
    labels = {"team": "a", "pod-security.kubernetes.io/enforce": "restricted"}
    shop = {"metadata": {"name": "shop", "uid": "uid-shop", "creationTimestamp": CREATED, "labels": labels}}
    http.runner.run(http.node.store.create("Namespace", shop))
    found = http.get("/api/v1/namespaces/shop").json()
    assert found["status"] == {"phase": "Active"} and found["metadata"]["creationTimestamp"] == CREATED
    assert found["metadata"]["labels"]["team"] == "a"
    assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged", (
        "the level that applies: no manifest declares another one"
    )
    assert [one["metadata"]["name"] for one in http.get("/api/v1/namespaces").json()["items"]] == [
        "default",
        "shop",
    ]
