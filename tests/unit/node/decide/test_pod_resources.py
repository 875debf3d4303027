"""Requests and limits as cgroup values; hashes; unsupported fields."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.node.decide.unsupported import unsupported_fields
from kubelite.node.model import resources
from kubelite.node.spec.hashes import container_hash, sandbox_hash
from kubelite.node.spec.oom_score import oom_score_adj
from manifests.types.annotations import SECCOMP, SECCOMP_POD
from tests.unit.node.decide.pod_worlds import CONFIG, UID, container, make_pod


def asks(limits: dict[str, str] | None = None, **requests: str) -> dict[str, Any]:
    return {"resources": {"limits": limits or {}, "requests": requests}}


GUARANTEED = asks({"cpu": "1", "memory": "1Gi"})


@pytest.mark.parametrize(
    ("containers", "spec", "qos"),
    [
        ([{}], {}, "BestEffort"),
        ([GUARANTEED], {}, "Guaranteed"),
        ([GUARANTEED, {}], {}, "Burstable"),
        ([GUARANTEED, GUARANTEED], {}, "Guaranteed"),
        ([asks({"cpu": "1"})], {}, "Burstable"),
        ([asks({"cpu": "1", "memory": "1Gi"}, cpu="500m")], {}, "Burstable"),
        ([asks(memory="1Gi")], {}, "Burstable"),
        ([GUARANTEED], {"initContainers": [container("i")]}, "Burstable"),
        ([{}], GUARANTEED, "Guaranteed"),
    ],
)
def test_qos_class(containers: list[dict[str, Any]], spec: dict[str, Any], qos: str) -> None:
    pod = make_pod(*(container(f"c{n}", **more) for n, more in enumerate(containers)), **spec)
    assert resources.qos_class(pod) == qos
    parent = {"Guaranteed": "", "Burstable": "/burstable", "BestEffort": "/besteffort"}[qos]
    assert resources.pod_cgroup(pod, CONFIG) == f"/kubelite{parent}/pod{UID}"


@pytest.mark.parametrize(
    ("more", "adj"),
    [
        ({}, 1000),
        (GUARANTEED, -997),
        (asks(memory="4Gi"), 500),
        (asks(memory="8Gi"), 3),
        (asks(memory="1Mi"), 999),
        (asks(cpu="1"), 999),
    ],
)
def test_oom_score_adj(more: dict[str, Any], adj: int) -> None:
    pod = make_pod(container("a", **more))
    assert oom_score_adj(pod, pod.spec.containers[0], 8 << 30) == adj


def test_a_sidecar_has_no_higher_oom_score_than_its_main_containers() -> None:
    pod = make_pod(
        container("a", **asks(memory="4Gi")), initContainers=[container("s", restartPolicy="Always")]
    )
    assert oom_score_adj(pod, pod.spec.init_containers[0], 8 << 30) == 500


@pytest.mark.parametrize(
    ("milli", "shares", "quota"),
    [(0, 2, 1000), (1, 2, 1000), (100, 102, 10000), (1000, 1024, 100000), (10**6, 262144, 100000000)],
)
def test_cpu(milli: int, shares: int, quota: int) -> None:
    assert resources.cpu_shares(milli) == shares
    assert resources.cpu_quota(milli) == quota


def test_a_limit_without_request_is_also_the_request() -> None:
    pod = make_pod(container("a", **asks({"cpu": "500m"})))
    assert resources.container_resources(pod.spec.containers[0])["cpu"] == {
        "shares": 512,
        "period": 100000,
        "quota": 50000,
    }


def test_the_pods_own_cgroup() -> None:
    both = make_pod(
        container("a", **asks({"cpu": "1", "memory": "1Gi"})), container("b", **asks({"cpu": "500m"}))
    )
    found = resources.pod_resources(both, CONFIG)
    assert found["cpu"]["quota"] == 150000
    assert found["memory"]["limit"] == -1, "one container has no memory limit, so the pod has none"
    init = make_pod(container("a", **asks(cpu="100m")), initContainers=[container("i", **asks(cpu="2"))])
    assert resources.pod_resources(init, CONFIG)["cpu"]["shares"] == 2048


def test_hashes_depend_on_values_not_on_spelling() -> None:
    plain = make_pod("a")
    explicit = make_pod(container("a", command=[], env=[]), volumes=[])
    assert container_hash(plain, plain.spec.containers[0]) == container_hash(
        explicit, explicit.spec.containers[0]
    )
    assert sandbox_hash(plain) == sandbox_hash(make_pod("a", hostNetwork=False, hostname="web"))
    assert sandbox_hash(plain) != sandbox_hash(make_pod("a", hostNetwork=True))
    mounted = container("a", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    one = make_pod(mounted, volumes=[{"name": "v", "hostPath": {"path": "/a"}}])
    two = make_pod(mounted, volumes=[{"name": "v", "hostPath": {"path": "/b"}}])
    assert container_hash(one, one.spec.containers[0]) != container_hash(two, two.spec.containers[0])


@pytest.mark.parametrize(
    ("one", "spec", "path", "blocks"),
    [
        (
            {"volumeDevices": [{"name": "d", "devicePath": "/d"}]},
            {"hostUsers": False},
            "spec.containers[0].volumeDevices",
            True,
        ),
        ({}, {"hostUsers": False, "hostNetwork": True}, "spec.hostUsers", True),
        (
            {},
            {"volumes": [{"name": "v", "glusterfs": {"endpoints": "s", "path": "/"}}]},
            "spec.volumes[0].glusterfs",
            True,
        ),
        ({}, {"schedulingGroup": {"podGroupName": "g"}}, "spec.schedulingGroup", False),
        ({}, {"schedulerName": "mine"}, "spec.schedulerName", False),
        ({}, {"priorityClassName": "high"}, "spec.priorityClassName", False),
        (
            {"securityContext": {"windowsOptions": {"hostProcess": True}}},
            {},
            "spec.containers[0].securityContext.windowsOptions",
            True,
        ),
    ],
)
def test_unsupported_fields_are_named(
    one: dict[str, Any], spec: dict[str, Any], path: str, blocks: bool
) -> None:
    found = unsupported_fields(make_pod(container("a", **one), **spec))
    assert [(field.path, field.blocks) for field in found] == [(path, blocks)]


def test_seccomp_annotations_without_the_field_are_reported() -> None:
    profile = {"seccompProfile": {"type": "RuntimeDefault"}}
    keys = (SECCOMP_POD, f"{SECCOMP}a", f"{SECCOMP}b")
    for shared, named in (({}, keys[:2]), ({"securityContext": profile}, keys[1:2])):
        pod = make_pod("a", container("b", securityContext=profile), **shared)
        pod.metadata.annotations = dict.fromkeys(keys, "localhost/x")
        said = [(field.path, field.blocks) for field in unsupported_fields(pod)]
        assert said == [(f"metadata.annotations[{key}]", False) for key in named]


def test_an_ordinary_pod_has_nothing_unsupported() -> None:
    pod = make_pod(
        container(
            "a",
            ports=[{"containerPort": 80, "hostPort": 80}],
            env=[{"name": "A", "value": "1"}],
            **GUARANTEED,
        ),
        volumes=[{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x"}}],
        securityContext={"seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 1},
    )
    assert unsupported_fields(pod) == []
