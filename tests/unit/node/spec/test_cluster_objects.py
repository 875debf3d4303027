"""Pods of a cluster see the cluster's objects, and those of the directory see their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kubelite.kube.objects import CLUSTER
from kubelite.node.decide.unsupported import unsupported_fields
from kubelite.node.model.errors import MountError
from kubelite.node.model.schedule import NodeFacts
from kubelite.node.scheduling.filters import admit_pod
from kubelite.node.scheduling.ledger import Ledger, reservation_of
from kubelite.node.spec.cluster_objects import TOKEN, every_for, find_for
from kubelite.node.spec.env import Sources
from kubelite.node.spec.tokens import NoTokens
from kubelite.node.spec.volume_plans import payload
from kubelite.node.worker.content import sources_of
from kubelite.policies.token_volumes import uses_api
from manifests.types.core import Pod
from tests.unit.node.decide.pod_worlds import CONFIG

TOKENS = {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}


def _pod(*, of_cluster: bool, **spec: Any) -> Pod:
    annotations = {CLUSTER: "https://a:1"} if of_cluster else {}
    return Pod.parse(
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "annotations": annotations},
            "spec": {"containers": [{"name": "a", "image": "i"}], **spec},
        }
    )


def _find(kind: str, _namespace: str, name: str) -> dict[str, Any] | None:
    store: dict[tuple[str, str], dict[str, Any]] = {
        ("Secret", "key"): {"data": {"a": "ZGlyZWN0b3J5"}},
        ("cluster/Secret", "key"): {"data": {"a": "Y2x1c3Rlcg=="}},
        (f"cluster/{TOKEN}", "u1.api.3607"): {"token": "t0ken"},
    }
    return store.get((kind, name))


@pytest.mark.parametrize(("of_cluster", "seen"), [(False, b"directory"), (True, b"cluster")])
def test_a_secret_is_of_the_pods_own_side(of_cluster: bool, seen: bytes) -> None:
    pod = _pod(of_cluster=of_cluster, volumes=[{"name": "v", "secret": {"secretName": "key"}}])
    files = payload(pod, pod.spec.volumes[0], Sources(find_for(pod, _find), CONFIG))
    assert files["a"].content == seen


def _node(find: Any) -> Any:
    return SimpleNamespace(
        cri=SimpleNamespace(image=None), config=CONFIG, find=find, every=lambda _: (), tokens=NoTokens()
    )


def test_services_are_of_the_pods_own_side() -> None:
    kinds: list[str] = []

    def every(kind: str) -> list[dict[str, Any]]:
        kinds.append(kind)
        return []

    for of_cluster in (False, True):
        every_for(_pod(of_cluster=of_cluster), every)("Service")
    assert kinds == ["Service", "cluster/Service"]


def test_a_token_is_the_clusters() -> None:
    pod = _pod(of_cluster=True, volumes=[{"name": "v", "projected": TOKENS}])
    files = payload(pod, pod.spec.volumes[0], sources_of(_node(_find), pod))
    assert files["token"].content == b"t0ken"
    assert not unsupported_fields(pod)
    assert not uses_api(pod.to_json())  # the node's own API need not be served for it


def test_a_pod_waits_for_its_token() -> None:
    pod = _pod(of_cluster=True, volumes=[{"name": "v", "projected": TOKENS}])
    with pytest.raises(MountError, match="the cluster has not issued it yet"):
        payload(pod, pod.spec.volumes[0], sources_of(_node(lambda *_: None), pod))


@pytest.mark.parametrize(
    ("requests", "port", "reason"),
    [({}, None, ""), ({"cpu": "3"}, None, "OutOfcpu"), ({}, 80, "NodePorts"), ({"memory": "1Ki"}, 81, "")],
)
def test_a_pod_that_does_not_fit_is_rejected(requests: dict[str, str], port: int | None, reason: str) -> None:
    node = NodeFacts(
        "here", {}, (), unschedulable=True, allocatable={"cpu": 2000, "memory": 1 << 30, "pods": 10}
    )
    ports = [{"containerPort": 80, "hostPort": 80}]
    held = Pod.parse({"metadata": {"name": "held", "uid": "h"}, "spec": {"containers": [
        {"name": "a", "image": "i", "ports": ports}]}})  # fmt: skip
    container: dict[str, Any] = {"name": "a", "image": "i", "resources": {"requests": requests}}
    if port is not None:
        container["ports"] = [{"containerPort": 80, "hostPort": port}]
    pod = _pod(of_cluster=True, containers=[container], nodeSelector={"disk": "ssd"})
    found = admit_pod(reservation_of(pod), node, Ledger([reservation_of(held)]))
    assert (found.reason, found.rejected) == (reason, bool(reason))
