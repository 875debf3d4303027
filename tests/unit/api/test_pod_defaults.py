"""What clients find in a pod in a cluster, and so here. Expected values: a pod as kube-apiserver 1.34 returns it."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.api.kube.pod_defaults import with_defaults
from kubelite.api.kube.resources import RESOURCES, complete
from tests.unit.api.fake_node import pod_doc

NOT_READY = {
    "key": "node.kubernetes.io/not-ready",
    "operator": "Exists",
    "effect": "NoExecute",
    "tolerationSeconds": 300,
}
UNREACHABLE = {**NOT_READY, "key": "node.kubernetes.io/unreachable"}


def test_a_pod_has_the_defaults_of_an_api_server() -> None:
    doc = pod_doc("web", initContainers=[{"name": "first", "image": "busybox", "resources": {"limits": {}}}])
    del doc["status"]["containerStatuses"][0]["lastState"]
    spec, status = (complete(RESOURCES["pods"], doc)[key] for key in ("spec", "status"))
    assert spec["priority"] == 0 and spec["preemptionPolicy"] == "PreemptLowerPriority"
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert spec["tolerations"] == [NOT_READY, UNREACHABLE]
    assert spec["containers"][0]["resources"] == {}
    assert spec["initContainers"][0]["resources"] == {"limits": {}}
    assert status["containerStatuses"][0]["lastState"] == {}
    assert "running" in status["containerStatuses"][0]["state"]
    assert all(condition["lastProbeTime"] is None for condition in status["conditions"])
    assert spec["nodeName"] == "here"
    assert "tolerations" not in doc["spec"], "the stored pod stays as it is"


def test_what_the_manifest_says_stays() -> None:
    given: dict[str, Any] = {"priority": 7, "preemptionPolicy": "Never", "serviceAccountName": "mine"}
    found = with_defaults(pod_doc("web", **given))["spec"]
    assert {key: found[key] for key in given} == given
    assert found["serviceAccount"] == "mine"
    assert (
        with_defaults(pod_doc("web", priorityClassName="system-node-critical"))["spec"]["priority"]
        == 2000001000
    )


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({"operator": "Exists"}, []),
        ({"operator": "Exists", "effect": "NoExecute"}, []),
        ({"operator": "Exists", "effect": "NoSchedule"}, [NOT_READY, UNREACHABLE]),
        ({**NOT_READY, "tolerationSeconds": 5}, [UNREACHABLE]),
        ({"key": "mine", "operator": "Exists"}, [NOT_READY, UNREACHABLE]),
    ],
)
def test_default_tolerations(given: dict[str, Any], added: list[dict[str, Any]]) -> None:
    """Kubernetes plugin/pkg/admission/defaulttolerationseconds/admission.go."""
    assert with_defaults(pod_doc("web", tolerations=[given]))["spec"]["tolerations"] == [given, *added]


def test_a_pod_that_is_not_scheduled_has_no_node() -> None:
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
    doc = pod_doc("web", status={"phase": "Pending", "conditions": conditions})
    assert "nodeName" not in with_defaults(doc)["spec"]
    assert doc["spec"]["nodeName"] == "here"
