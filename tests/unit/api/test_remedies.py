"""What a refused write of kubectl says: kubelite's command for it, or that the kind is not supported."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubelite.api.kube.remedies import remedy
from kubelite.api.kube.resources import not_served
from tests.unit.api.test_api import Http, http, node
from tests.unit.cli.workload_docs import workload

__all__ = ["http", "node"]

STAMP = {"kubectl.kubernetes.io/restartedAt": "2026-12-01T00:00:00Z"}
ORDER = {"$setElementOrder/containers": [{"name": "app"}]}
IMAGES = {**ORDER, "containers": [{"name": "app", "image": "nginx:3"}]}
LIMITS = {"containers": [{"name": "app", "image": "x", "resources": {}}]}


@pytest.mark.parametrize(
    ("plural", "patch", "command"),
    [
        ("deployments", {"spec": {"replicas": 3}}, "scale deployment/web --replicas=3"),
        ("statefulsets", {"kind": "Scale", "spec": {"replicas": 0}}, "scale statefulset/web --replicas=0"),
        ("deployments", {"spec": {"template": {"spec": IMAGES}}}, "set image deployment/web app=nginx:3"),
        ("pods", {"spec": IMAGES}, "set image pod/web app=nginx:3"),
        ("daemonsets", {"spec": {"template": {"metadata": {"annotations": STAMP}}}}, "rollout restart daemonset/web"),
        ("deployments", {"spec": {"paused": True}}, "rollout pause deployment/web"),
        ("deployments", {"spec": {"paused": None}}, "rollout resume deployment/web"),
        ("deployments", [{"op": "replace", "path": "/spec/template", "value": {}}], "rollout undo deployment/web"),
        ("deployments", {"spec": {"replicas": "3"}}, ""),
        ("deployments", {"spec": {"replicas": 3, "paused": True}}, ""),
        ("deployments", {"spec": {"template": {"spec": LIMITS}}}, ""),
        ("deployments", {"metadata": {"labels": {}}}, ""),
        ("pods", {"metadata": {"labels": {"a": "b", "c": None}}}, "label pod/web a=b c- --overwrite"),
        ("jobs", {"metadata": {"annotations": {"a": "b c"}}}, "annotate job/web 'a=b c' --overwrite"),
        ("jobs", {"metadata": {"annotations": {"a": None}}}, "annotate job/web a-"),
        ("jobs", {"metadata": {"annotations": {"a": "1"}, "labels": {"a": "1"}}}, ""),
        ("jobs", {"metadata": {"labels": [1]}}, ""),
        ("jobs", {"metadata": None}, ""),
        ("deployments", [1, {"path": ["/spec/template"]}], ""),
        ("deployments", 7, ""),
        ("configmaps", {"spec": {"replicas": 3}}, ""),
    ],
)  # fmt: skip
def test_the_command_for_a_patch(plural: str, patch: Any, command: str) -> None:
    body = json.dumps(patch).encode()
    assert remedy(plural, "web", "default", body) == (f"kubelite {command}" if command else "")
    assert remedy(plural, "web", "shop", body) == (f"kubelite {command} -n shop" if command else "")
    assert remedy(plural, "web", "default", b"{") == ""


def test_a_refused_scale_names_the_command(http: Http) -> None:
    doc = workload("Deployment", annotations={"kubelite.io/source": "/m/web.yaml"}, replicas=1)
    http.runner.run(http.node.store.create("Deployment", doc))
    path = "/apis/apps/v1/namespaces/default/deployments/web"
    for method in ("PATCH", "PUT"):
        answer = http.request(method, f"{path}/scale", json={"spec": {"replicas": 3}})
        assert answer.status_code == 405
        command = "kubelite scale deployment/web --replicas=3"
        said = f"{method} is not supported: use `{command}`, which changes /m/web.yaml"
        assert answer.json()["message"] == said
    assert http.get(f"{path}/scale").json()["kind"] == "Scale"
    whole = http.request("PUT", path, json={"spec": {"replicas": 3}})
    assert "`kubelite edit deployments web`" in whole.json()["message"]


@pytest.mark.parametrize("body", ["application/vnd.kubernetes.protobuf", "application/json"])
def test_a_kind_that_does_not_exist_here_is_said_first(http: Http, body: str) -> None:
    path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    answer = http.post(path, content=b"{}", headers={"content-type": body})
    assert answer.status_code == 404
    said = "networkpolicies of networking.k8s.io/v1 are not supported: kubelite runs no such kind"
    assert answer.json()["message"].startswith(said)
    access = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    can_i = http.post(access, content=b"{}", headers={"content-type": body})
    assert can_i.status_code == 405 and "no RBAC" in can_i.json()["message"]
    known = http.post("/api/v1/namespaces/default/pods", content=b"{}", headers={"content-type": body})
    assert known.status_code == (405 if body == "application/json" else 415)


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/api/v1/namespaces/default/podtemplates", False),
        ("/api/v1/namespaces/default/podtemplates/web", False),
        ("/apis/apps/v1/namespaces/default/deployments/web/scale", True),
        ("/apis/apps/v1beta1/namespaces/default/deployments", False),
        ("/api/v1/namespaces/default", True),
        ("/api/v1/nodes/n", True),
        ("/apis/storage.k8s.io/v1/csidrivers/x", False),
        ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", True),
        ("/apis/apps", True),
        ("/kubelite/v1/apply", True),
        ("/", True),
    ],
)
def test_which_paths_have_no_objects(path: str, served: bool) -> None:
    assert (not_served(path) == "") == served
