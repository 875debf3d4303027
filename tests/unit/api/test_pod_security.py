"""Pod Security admission at the API: what apply and debug refuse, warn of and record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.kube.pod_security import Level, Levels, PodSecurity
from tests.unit.api.fake_node import FakeNode
from tests.unit.api.test_api import Http

HOST = """\
apiVersion: v1
kind: Pod
metadata: {name: web%s}
spec: {hostNetwork: true, containers: [{name: c, image: i}]}
"""
PLAIN = HOST.replace("hostNetwork: true, ", "")


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Http]:
    node = FakeNode(tmp_path)
    node.pod_security = PodSecurity(Levels.of(Level.BASELINE, warn=Level.RESTRICTED), {"system": Levels()})
    client = Http(node)
    yield client
    client.runner.run(node.store.close())
    client.runner.close()


def test_apply(http: Http) -> None:
    refused = http.post("/kubelite/v1/apply", params={"file": "p.yaml"}, content=HOST % "")
    assert refused.status_code == 403 and refused.json()["reason"] == "Forbidden"
    assert refused.json()["message"] == (
        'pods "web" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
    )
    assert not list(Path(http.node.manifests_dir).rglob("*.yaml"))
    warned = http.post("/kubelite/v1/apply", params={"file": "p.yaml"}, content=PLAIN % "")
    assert warned.status_code == 200
    assert warned.headers["warning"].startswith(
        '299 - "would violate PodSecurity \\"restricted:latest\\": allow'
    )


def test_the_namespace_counts(http: Http) -> None:
    for options, text in (
        ({"file": "a.yaml", "namespace": "system"}, HOST % ""),
        ({"file": "b.yaml"}, HOST % ", namespace: system"),
    ):
        assert http.post("/kubelite/v1/apply", params=options, content=text).status_code == 200
    many = (HOST % ", namespace: system") + "---\n" + (HOST % "2")
    assert http.post("/kubelite/v1/apply", params={"file": "c.yaml"}, content=many).status_code == 403
    assert http.post("/kubelite/v1/apply", params={"dryRun": "true"}, content=HOST % "").status_code == 403


def test_a_namespace_shows_its_levels(http: Http) -> None:
    (default,) = http.get("/api/v1/namespaces").json()["items"]
    assert default["metadata"]["labels"] == {
        "kubernetes.io/metadata.name": "default",
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "restricted",
    }


DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web%s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {hostNetwork: true, containers: [{name: c, image: i}]}
"""


def test_a_workload_is_warned_of_and_not_refused(http: Http) -> None:
    """ValidatePodController (pod-security-admission/admission/admission.go) never enforces."""
    applied = http.post("/kubelite/v1/apply", params={"file": "d.yaml"}, content=DEPLOYMENT % "")
    assert applied.status_code == 200
    assert applied.headers["warning"].startswith(
        '299 - "would violate PodSecurity \\"restricted:latest\\": host namespaces (hostNetwork=true), allow'
    )


def test_the_labels_of_a_namespace_count_in_the_same_text(http: Http) -> None:
    space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {pod-security.kubernetes.io/%s}}\n---\n"
    pod = HOST % ", namespace: web"
    for label, code in (
        ("enforce: privileged", 200),
        ("enforce: restricted", 403),
        ("warn: privileged", 403),
        ("enforce: all", 422),
    ):
        found = http.post("/kubelite/v1/apply", params={"file": "n.yaml"}, content=space % label + pod)
        assert found.status_code == code, (label, found.text)


def test_pods_that_violate_a_stricter_label_are_named(http: Http) -> None:
    """Words of EvaluatePodsInNamespace (pod-security-admission/admission/admission.go)."""
    http.node.pod_security = PodSecurity()
    for name in ("b", "a", "c"):
        spec = {"hostNetwork": name != "c", "containers": [{"name": "c", "image": "i"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "web", "uid": name}}
        http.runner.run(http.node.store.create("Pod", {**pod, "spec": spec}))
    space = (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {pod-security.kubernetes.io/%s}}\n"
    )
    for label, said in (
        ("warn: baseline", ""),
        (
            "enforce: baseline",
            '299 - "existing pods in namespace \\"web\\" violate the new PodSecurity enforce level '
            '\\"baseline:latest\\"; a (and 1 other pod): host namespaces"',
        ),
    ):
        applied = http.post("/kubelite/v1/apply", params={"file": "n.yaml"}, content=space % label)
        assert applied.status_code == 200 and applied.headers.get("warning", "") == said
