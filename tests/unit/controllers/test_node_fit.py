"""Which pods of a DaemonSet the node suits: the cases of pkg/controller/daemon/daemon_controller_test.go
TestNodeShouldRunDaemonPod, and of its tests of taints."""

from __future__ import annotations

import pytest

from kubelite.controllers.decide.node_fit import Fit, bound_to, fit, target_of, with_tolerations
from kubelite.kube.json import Json

YES, NO, STAYS = Fit(True, True), Fit(False, False), Fit(False, True)


def required(key: str, operator: str, *values: str, field: bool = False) -> Json:
    one = {"key": key, "operator": operator, "values": list(values)}
    term = {"matchFields" if field else "matchExpressions": [one]}
    return {"affinity": {"nodeAffinity": _selector(term)}}


def _selector(*terms: Json) -> Json:
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}


def taint(key: str, effect: str, value: str = "") -> Json:
    return {"key": key, "effect": effect, **({"value": value} if value else {})}


def tolerate(**fields: str) -> Json:
    return {"tolerations": [fields]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, YES),
        ({"nodeName": "node"}, YES),
        ({"nodeName": "other-node"}, NO),  # ErrPodNotMatchHostName
        ({"nodeSelector": {"type": "production"}}, YES),
        ({"nodeSelector": {"type": "test"}}, NO),  # ErrNodeSelectorNotMatch
        (required("type", "In", "test"), NO),  # ErrPodAffinityNotMatch
        (required("type", "In", "production"), YES),
        (required("type", "NotIn", "production"), NO),
        (required("absent", "NotIn", "x"), YES),
        (required("type", "Exists"), YES),
        (required("type", "DoesNotExist"), NO),
        (required("cores", "Gt", "3"), YES),
        (required("cores", "Gt", "4"), NO),
        (required("cores", "Lt", "5"), YES),
        (required("type", "Lt", "5"), NO),  # not a number
        (required("metadata.name", "In", "node", field=True), YES),
        (required("metadata.name", "NotIn", "node", field=True), NO),
        ({"affinity": {"nodeAffinity": _selector({})}}, NO),  # an empty term matches nothing
        ({"affinity": {"nodeAffinity": _selector()}}, NO),
        # TestNameAndSelectorDaemonSetLaunchesPods, TestInconsistentNameSelectorDaemonSetDoesNothing
        ({"nodeName": "node", "nodeSelector": {"type": "production"}}, YES),
        ({"nodeName": "node", "nodeSelector": {"type": "test"}}, NO),
    ],
)
def test_fit_by_name_and_labels(spec: Json, expected: Fit) -> None:
    node = {"metadata": {"name": "node", "labels": {"type": "production", "cores": "4"}}, "spec": {}}
    assert fit(with_tolerations(spec), node) == expected


K8S = "node.kubernetes.io"


@pytest.mark.parametrize(
    ("taints", "spec", "expected"),
    [
        ([taint("k", "NoSchedule")], {}, STAYS),  # TestNoScheduleTaintedDoesntEvicitRunningIntolerantPod
        ([taint("k", "NoExecute")], {}, NO),  # TestNoExecuteTaintedDoesEvicitRunningIntolerantPod
        ([taint("k", "PreferNoSchedule")], {}, YES),
        ([taint("k", "NoSchedule", "v")], tolerate(key="k", value="v"), YES),
        ([taint("k", "NoSchedule", "v")], tolerate(key="k", value="w"), STAYS),
        ([taint("k", "NoSchedule", "v")], tolerate(key="k", operator="Exists", effect="NoExecute"), STAYS),
        ([taint("k", "NoExecute", "v")], tolerate(operator="Exists"), YES),
        ([taint("k", "NoSchedule", "5")], tolerate(key="k", operator="Gt", value="4"), YES),
        ([taint("k", "NoSchedule", "5")], tolerate(key="k", operator="Lt", value="4"), STAYS),
        ([taint(f"{K8S}/not-ready", "NoExecute")], {}, YES),  # TestNotReadyNodeDaemonLaunchesPod
        ([taint(f"{K8S}/unreachable", "NoExecute")], {}, YES),  # TestUnreachableNodeDaemonLaunchesPod
        # TestTaintPressureNodeDaemonLaunchesPod
        (
            [taint(f"{K8S}/{what}-pressure", "NoSchedule") for what in ("disk", "memory", "pid")],
            {},
            YES,
        ),
        ([taint(f"{K8S}/unschedulable", "NoSchedule")], {}, YES),  # ShouldRunDaemonPodOnUnschedulableNode
        # TestNetworkUnavailableNodeDaemonLaunchesPod
        ([taint(f"{K8S}/network-unavailable", "NoSchedule")], {"hostNetwork": True}, YES),
        ([taint(f"{K8S}/network-unavailable", "NoSchedule")], {}, STAYS),
    ],
)
def test_fit_by_taints(taints: list[Json], spec: Json, expected: Fit) -> None:
    node = {"metadata": {"name": "node"}, "spec": {"taints": taints, "unschedulable": True}}
    assert fit(with_tolerations(spec), node) == expected


def test_a_toleration_that_a_manifest_limits_has_no_limit() -> None:
    """pkg/apis/core/v1/helper AddOrUpdateTolerationInPodSpec."""
    given = {"key": f"{K8S}/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}
    spec = {"tolerations": [given, {"key": "mine", "operator": "Exists"}]}
    found = with_tolerations(spec)["tolerations"]
    assert "tolerationSeconds" not in found[0] and found[1] == {"key": "mine", "operator": "Exists"}
    assert len(found) == 7 and with_tolerations({"tolerations": found})["tolerations"] == found
    assert spec["tolerations"][0] is given, "the template is not changed in place"


def test_a_pod_is_bound_to_the_node() -> None:
    """daemon/util/daemonset_util_test.go TestReplaceDaemonSetPodNodeNameNodeAffinity, TestGetTargetNodeName."""
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}
    spec = {"affinity": {"podAffinity": {"a": 1}, "nodeAffinity": {**_selector({"x": 1}), **preferred}}}
    bound = bound_to(spec, "node")
    assert target_of({"spec": bound}) == "node"
    assert bound["affinity"]["podAffinity"] == {"a": 1}
    assert bound["affinity"]["nodeAffinity"].items() >= preferred.items()
    assert target_of({"spec": {**bound, "nodeName": "other"}}) == "other"
    assert target_of({"spec": required("metadata.name", "In", "a", "b", field=True)}) == ""
    assert target_of({"spec": {}}) == ""
