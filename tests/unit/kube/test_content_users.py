"""Which pods a deleted ConfigMap or Secret is missed by."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.kube.content_users import users_of


def using(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}], **spec}}


def container(**fields: Any) -> dict[str, Any]:
    return using(containers=[{"name": "a", **fields}])


@pytest.mark.parametrize(
    ("kind", "pod"),
    [
        ("ConfigMap", using(volumes=[{"name": "v", "configMap": {"name": "x"}}])),
        ("Secret", using(volumes=[{"name": "v", "secret": {"secretName": "x"}}])),
        ("ConfigMap", using(volumes=[{"name": "v", "projected": {"sources": [{"configMap": {"name": "x"}}]}}])),
        ("Secret", using(volumes=[{"name": "v", "projected": {"sources": [{"secret": {"name": "x"}}]}}])),
        ("ConfigMap", container(envFrom=[{"configMapRef": {"name": "x"}}])),
        ("Secret", container(envFrom=[{"secretRef": {"name": "x"}}])),
        ("ConfigMap", container(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "k"}}}])),
        ("Secret", container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "k"}}}])),
        ("Secret", using(initContainers=[{"name": "i", "envFrom": [{"secretRef": {"name": "x"}}]}])),
        ("Secret", using(imagePullSecrets=[{"name": "x"}])),
    ],
)  # fmt: skip
def test_each_way_to_use_an_object(kind: str, pod: dict[str, Any]) -> None:
    assert users_of(kind, "x", [pod]) == ["web"]
    assert users_of(kind, "y", [pod]) == []
    assert users_of({"ConfigMap": "Secret", "Secret": "ConfigMap"}[kind], "x", [pod]) == []
    terminating = {**pod, "metadata": {"name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert users_of(kind, "x", [terminating]) == []


@pytest.mark.parametrize(
    "pod",
    [
        using(volumes=[{"name": "v", "secret": {"secretName": "x", "optional": True}}]),
        container(envFrom=[{"secretRef": {"name": "x", "optional": True}}]),
    ],
)
def test_an_optional_reference_does_not_count(pod: dict[str, Any]) -> None:
    assert users_of("Secret", "x", [pod]) == []
