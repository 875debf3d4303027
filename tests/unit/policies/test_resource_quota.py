"""ResourceQuota: usage, scopes and refusals. The cases are those of Kubernetes' pods_test.go (TestPodConstraintsFunc,
TestPodEvaluatorUsage, TestPodEvaluatorMatchingScopes) and persistent_volume_claims_test.go in pkg/quota/v1/evaluator,
and of plugin/pkg/admission/resourcequota/admission_test.go."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from kubelite.policies.resource_quota import excess, matches, usage, used
from tests.unit.policies.kit import claim, compute, container, pod, quota, resources

NOW = 1_800_000_000.0
DONGLE = {"example.com/dongle": "3"}
HUGE = {"hugepages-2Mi": "100Mi"}
DISK = resources({"ephemeral-storage": "32Mi"}, {"ephemeral-storage": "64Mi"})


def ended(phase: str) -> Json:
    return {**pod(given=resources(compute("1"), compute("2"))), "status": {"phase": phase}}


def terminating(since: float) -> Json:
    found = pod(given=resources(compute("1"), compute("2")))
    found["metadata"] |= {"deletionTimestamp": rfc3339(NOW - since), "deletionGracePeriodSeconds": 30}
    return found


def refused(quotas: list[Json], docs: list[Json], new: Json, old: Json | None = None) -> str:
    return excess(quotas, new, NOW, lambda one: used(one, docs, NOW), old)


CPU = {"cpu": "1", "requests.cpu": "1", "limits.cpu": "2"}


@pytest.mark.parametrize(
    ("case", "doc", "expected"),
    [
        ("container CPU", pod(given=resources(compute("1m"), compute("2m"))),
         {"cpu": "1m", "requests.cpu": "1m", "limits.cpu": "2m"}),
        ("container MEM", pod(given=resources(compute("", "1Mi"), compute("", "2Mi"))),
         {"memory": "1Mi", "requests.memory": "1Mi", "limits.memory": "2Mi"}),
        ("container local ephemeral storage", pod(given=DISK),
         {"ephemeral-storage": "32Mi", "requests.ephemeral-storage": "32Mi", "limits.ephemeral-storage": "64Mi"}),
        ("container hugepages", pod(given=resources(HUGE)),
         {"hugepages-2Mi": "100Mi", "requests.hugepages-2Mi": "100Mi"}),
        ("container extended resources", pod(given=resources(DONGLE, DONGLE)), {"requests.example.com/dongle": "3"}),
        ("init container CPU", pod(count=0, init=(resources(compute("1m"), compute("2m")),)),
         {"cpu": "1m", "requests.cpu": "1m", "limits.cpu": "2m"}),
        ("terminated generic count still appears", ended("Succeeded"), None),
        ("pod deletion timestamp exceeded", terminating(60), None),
        ("pod deletion timestamp not exceeded", terminating(0), CPU),
        ("count pod overhead as usage", pod(given=resources(compute("1"), compute("2")), overhead={"cpu": "1"}),
         {"cpu": "2", "requests.cpu": "2", "limits.cpu": "3"}),
    ],
)  # fmt: skip
def test_usage_of_pods(case: str, doc: Json, expected: dict[str, str] | None) -> None:
    found = {name: str(amount) for name, amount in usage(doc, NOW).items()}
    assert found == {"count/pods": "1", **({} if expected is None else {"pods": "1", **expected})}, case


def test_usage_of_claims_and_other_objects() -> None:
    found = {name: str(amount) for name, amount in usage(claim("10Gi", storageClassName="gold"), NOW).items()}
    assert found == {
        "count/persistentvolumeclaims": "1",
        "persistentvolumeclaims": "1",
        "requests.storage": "10Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        "gold.storageclass.storage.k8s.io/requests.storage": "10Gi",
    }
    for kind, names in (
        ("ConfigMap", {"count/configmaps", "configmaps"}),
        ("Deployment", {"count/deployments.apps"}),
        ("Node", set()),
    ):
        assert set(usage({"kind": kind, "metadata": {"name": "x"}}, NOW)) == names


def service(type_: str, *ports: Json, **spec: Any) -> Json:
    return {
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"type": type_, "ports": list(ports), **spec},
    }


@pytest.mark.parametrize(
    ("doc", "node_ports", "balancers"),
    [
        (service("ClusterIP", {"port": 80}), "0", "0"),
        (service("NodePort", {"port": 80}, {"port": 81}), "2", "0"),
        (service("LoadBalancer", {"port": 80}, {"port": 81}), "2", "1"),
        (
            service(
                "LoadBalancer",
                {"port": 80, "nodePort": 30080},
                {"port": 81},
                allocateLoadBalancerNodePorts=False,
            ),
            "1",
            "1",
        ),
    ],
)
def test_usage_of_services(doc: Json, node_ports: str, balancers: str) -> None:
    """services_test.go, TestServiceEvaluatorUsage."""
    assert {name: str(amount) for name, amount in usage(doc, NOW).items()} == {
        "count/services": "1",
        "services": "1",
        "services.nodeports": node_ports,
        "services.loadbalancers": balancers,
    }


LIMITED = resources({}, compute("1"))
ELSEWHERE = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["a"]}]}}


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [
        ("Terminating", pod(activeDeadlineSeconds=0), pod()),
        ("NotTerminating", pod(), pod(activeDeadlineSeconds=100)),
        ("BestEffort", pod(), pod(given=LIMITED)),
        ("NotBestEffort", pod(given=LIMITED), pod()),
        ("PriorityClass", pod(priorityClassName="class1"), pod()),
        ("CrossNamespacePodAffinity", pod(affinity=ELSEWHERE), pod(affinity={"podAffinity": {}})),
    ],
)
def test_scopes(scope: str, inside: Json, outside: Json) -> None:
    for found in (
        quota(scopes=[scope], pods="1"),
        quota(selector={"scopeName": scope, "operator": "Exists"}, pods="1"),
    ):
        assert matches(found, inside) and not matches(found, outside)


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ["class1"], True),
        ("In", ["class2"], False),
        ("NotIn", ["class1"], False),
        ("DoesNotExist", [], False),
    ],
)
def test_a_selector_of_priority_classes(operator: str, values: list[str], expected: bool) -> None:
    selector = {"scopeName": "PriorityClass", "operator": operator, "values": values}
    assert matches(quota(selector=selector, pods="1"), pod(priorityClassName="class1")) == expected


BARE = [container("foo", {}), container("bar", {})]
CPU_ONLY = resources(compute("1m"), compute("2m"))


@pytest.mark.parametrize(
    ("doc", "hard", "said"),
    [
        (pod(given=CPU_ONLY), {"memory": "1Gi"}, "memory for: foo-0"),
        (pod(count=0, init=(CPU_ONLY,)), {"memory": "1Gi"}, "memory for: init-0"),
        (pod(containers=BARE), {"memory": "1Gi", "cpu": "1"}, "cpu for: bar,foo; memory for: bar,foo"),
        (pod(containers=BARE, own=resources(compute("1"))), {"memory": "1Gi", "cpu": "1"}, ""),
        (pod(containers=BARE), {"pods": "1"}, ""),
    ],
)
def test_what_containers_must_specify(doc: Json, hard: dict[str, Any], said: str) -> None:
    wanted = f"failed quota: quota: must specify {said}" if said else ""
    assert refused([quota(**hard)], [], doc) == wanted


def test_an_object_that_does_not_fit() -> None:
    one = pod("one", given=resources(compute("100m", "1Gi"), compute("200m", "2Gi")))
    large = pod("large", given=resources(compute("3", "20Gi"), compute("3", "20Gi")))
    limits = quota(memory="10Gi", cpu="5", pods="10")
    said = "exceeded quota: quota, requested: memory=20Gi, used: memory=1Gi, limited: memory=10Gi"
    assert refused([limits], [one], large) == said
    assert refused([limits], [one], pod("two", given=resources(compute("1", "1Gi")))) == ""
    full = quota("full", pods="1", count__x="0")
    said = "exceeded quota: full, requested: pods=1, used: pods=1, limited: pods=1"
    assert refused([limits, full], [one], pod("two", given=resources(compute("1", "1Gi")))) == said
    assert refused([full], [{**one, "status": {"phase": "Failed"}}], pod("two")) == ""


def test_the_usage_of_a_quota() -> None:
    limits = quota(pods="10", requests__cpu="5", scopes=["NotBestEffort"])
    docs = [
        pod("one", given=resources(compute("100m"))),
        pod("two", given=resources(compute("1"))),
        pod("three"),
    ]
    assert {name: str(one) for name, one in used(limits, docs, NOW).items()} == {
        "pods": "2",
        "requests.cpu": "1100m",
    }


def test_an_edit_asks_for_what_it_adds() -> None:
    """CheckRequest with admission.Update: admission_test.go, TestAdmitHandlesOldObjects."""
    full = quota(requests__storage="10Gi", persistentvolumeclaims="1")
    old, larger = claim("8Gi"), claim("11Gi")
    said = (
        "exceeded quota: quota, requested: requests.storage=3Gi, used: requests.storage=8Gi, "
        "limited: requests.storage=10Gi"
    )
    assert refused([full], [old], larger, old) == said
    assert refused([full], [old], claim("10Gi"), old) == ""
    assert refused([quota(requests__storage="1Gi")], [old], claim("7Gi"), old) == ""


def test_an_edit_of_something_else_is_not_checked() -> None:
    """podEvaluator.Handles."""
    bare = pod(containers=BARE)
    other = pod(containers=[{**one, "image": "other"} for one in BARE])
    assert refused([quota(cpu="1")], [bare], other, bare) == ""
    assert refused([quota(cpu="1")], [bare], pod(containers=BARE, activeDeadlineSeconds=1), bare).startswith(
        "failed quota"
    )
