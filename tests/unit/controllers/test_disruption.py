"""pkg/controller/disruption/disruption_test.go, pkg/registry/core/pod/storage/eviction_test.go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from kubelite.controllers.decide import disruption, evictions
from kubelite.controllers.model import Event, Plan, SetStatus, View
from kubelite.controllers.references import owner_reference
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

NOW = 1_790_000_000.0
LABELS = {"foo": "bar"}
READY: list[Json] = [{"type": "Ready", "status": "True"}]


def pdb(*, status: Json | None = None, **spec: Any) -> Json:
    metadata = {"name": "foobar", "namespace": "default", "uid": "pdb", "generation": 1}
    kind = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget"}
    return {
        **kind,
        "metadata": metadata,
        "spec": {"selector": {"matchLabels": LABELS}, **spec},
        "status": status or {},
    }


def workload(kind: str, replicas: int, name: str = "web", owner: Json | None = None) -> Json:
    references = {"ownerReferences": [owner_reference(owner)]} if owner else {}
    metadata = {"name": name, "uid": f"{kind}-{name}", **references}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": {"replicas": replicas}}


def pod(name: str, owner: Json | None = None, *, ready: bool = True, **metadata: Any) -> Json:
    references = {"ownerReferences": [owner_reference(owner)]} if owner else {}
    status = {"phase": "Running", "conditions": READY if ready else []}
    own = {"name": name, "uid": name, "labels": LABELS, **references, **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": own, "spec": {}, "status": status}


def pods(count: int, owner: Json | None = None, *, ready: int | None = None) -> list[Json]:
    return [pod(f"p{i}", owner, ready=ready is None or i < ready) for i in range(count)]


def plan_for(budget: Json, found: Iterable[Json], *owners: Json) -> Plan:
    objects: dict[str, Sequence[Json]] = {"Pod": tuple(found)}
    for owner in owners:
        objects[owner["kind"]] = (*objects.get(owner["kind"], ()), owner)
    return disruption.decide(View(budget, NOW, objects))


def status_of(plan: Plan) -> Json:
    return next(effect.status for effect in plan.effects if isinstance(effect, SetStatus))


def counts(plan: Plan) -> tuple[int, ...]:
    """Return disruptionsAllowed, currentHealthy, desiredHealthy and expectedPods, as VerifyPdbStatus checks them."""
    keys = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    return tuple(status_of(plan)[key] for key in keys)


def reasons(plan: Plan) -> list[str]:
    return [effect.reason for effect in plan.effects if isinstance(effect, Event)]


RS7, RS10, SS3, RC3 = (
    workload("ReplicaSet", 7),
    workload("ReplicaSet", 10),
    workload("StatefulSet", 3),
    workload("ReplicationController", 3),
)


@pytest.mark.parametrize(
    ("budget", "found", "owners", "expected"),
    [
        (pdb(minAvailable=3, selector={}), [], [], (0, 0, 3, 0)),  # TestNoSelector
        (pdb(minAvailable=3, selector={}), pods(1), [], (0, 1, 3, 1)),
        (pdb(minAvailable=3, selector=None), pods(1), [], (0, 0, 3, 0)),
        (pdb(minAvailable=3), pods(4), [], (1, 4, 3, 4)),  # TestUnavailable
        (pdb(minAvailable=3), pods(4, ready=3), [], (0, 3, 3, 4)),
        (pdb(maxUnavailable=1), pods(1), [], (0, 1, 0, 0)),  # TestIntegerMaxUnavailable
        (pdb(maxUnavailable=2), pods(1, RS7), [RS7], (0, 1, 5, 7)),  # TestIntegerMaxUnavailableWithScaling
        (
            pdb(maxUnavailable="30%"),
            pods(1, RS7),
            [RS7],
            (0, 1, 4, 7),
        ),  # TestPercentageMaxUnavailableWithScaling
        (pdb(minAvailable="20%"), pods(1, RS10), [RS10], (0, 1, 2, 10)),  # TestReplicaSet
        (pdb(minAvailable="34%"), [], [RC3], (0, 0, 0, 0)),  # TestReplicationController
        (pdb(minAvailable="34%"), pods(2, RC3), [RC3], (0, 2, 2, 3)),
        (pdb(minAvailable="34%"), pods(3, RC3), [RC3], (1, 3, 2, 3)),
        (pdb(minAvailable="34%"), [*pods(3, RC3), pod("rogue")], [RC3], (2, 4, 2, 3)),
        (pdb(minAvailable="34%"), pods(3, SS3), [SS3], (1, 3, 2, 3)),  # TestStatefulSetController
    ],
)
def test_counts(budget: Json, found: list[Json], owners: list[Json], expected: tuple[int, ...]) -> None:
    assert counts(plan_for(budget, found, *owners)) == expected


@pytest.mark.parametrize(("down", "expected"), [(0, (2, 9, 7, 22)), (1, (1, 8, 7, 22)), (2, (0, 7, 7, 22))])
def test_two_controllers(down: int, expected: tuple[int, ...]) -> None:
    """TestTwoControllers: the scale of a Deployment counts, not that of its ReplicaSet."""
    rc, deployment = workload("ReplicationController", 11), workload("Deployment", 11)
    rs = workload("ReplicaSet", 4, owner=deployment)
    found = [pod(f"a{i}", rc, ready=i < 5) for i in range(11)]
    found += [pod(f"b{i}", rs, ready=i < 4 - down) for i in range(11)]
    assert counts(plan_for(pdb(minAvailable="28%"), found, rc, deployment, rs)) == expected


def test_a_replica_set_that_lost_its_deployment_counts_itself() -> None:
    rs = workload("ReplicaSet", 4, owner=workload("Deployment", 11))
    assert counts(plan_for(pdb(maxUnavailable=1), pods(4, rs), rs)) == (1, 4, 3, 4)


def test_events() -> None:
    assert reasons(plan_for(pdb(minAvailable="28%"), [])) == ["NoPods"]
    plan = plan_for(pdb(minAvailable="28%"), pods(1))  # TestNakedPod, TestStatusForUnmanagedPod
    assert reasons(plan) == ["UnmanagedPods"] and status_of(plan)["disruptionsAllowed"] == 0
    (event,) = (effect for effect in plan.effects if isinstance(effect, Event))
    assert "(selector: foo=bar)" in event.message


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        (workload("ReplicaSet", 1), 'found no controllers for pod "p0"'),
        (workload("DaemonSet", 1), "daemonsets.apps does not implement the scale subresource"),
    ],
)
def test_an_unknown_scale_allows_nothing(owner: Json, message: str) -> None:
    """TestUnsupportedControllerPod, failSafe."""
    before = {"disruptionsAllowed": 3, "currentHealthy": 4, "desiredHealthy": 1, "expectedPods": 4}
    plan = plan_for(pdb(minAvailable="28%", status=before), pods(1, owner))
    assert reasons(plan) == ["CalculateExpectedPodCountFailed"]
    assert counts(plan) == (0, 4, 1, 4)
    (condition,) = status_of(plan)["conditions"]
    assert (condition["status"], condition["reason"], condition["message"]) == (
        "False",
        "SyncFailed",
        message,
    )
    again = plan_for(pdb(minAvailable="28%", status=status_of(plan)), pods(1, owner))
    assert again == Plan(), "it is told once"


def test_announced_deletions() -> None:
    """An announced deletion counts until it begins or expires (TestUpdateDisruptedPods)."""
    announced = {
        "p1": rfc3339(NOW),  # its deletion has begun
        "p2": rfc3339(NOW - 180),  # expired
        "p3": rfc3339(NOW - 60),  # remains
        "notthere": rfc3339(NOW),
    }
    found = [pod("p1", deletionTimestamp=rfc3339(NOW)), pod("p2"), pod("p3")]
    plan = plan_for(pdb(minAvailable=1, status={"disruptedPods": announced}), found)
    assert counts(plan) == (0, 1, 1, 3)
    assert status_of(plan)["disruptedPods"] == {"p3": announced["p3"]}
    assert reasons(plan) == ["NotDeleted"]
    assert plan.again == 61


def test_conditions_of_others_stay() -> None:
    """TestKeepExistingPDBConditionDuringSync; the transition time changes with the status alone."""
    other: Json = {"type": "ExistingTestCondition", "status": "True", "lastTransitionTime": rfc3339(NOW - 9)}
    first = status_of(plan_for(pdb(minAvailable=3, status={"conditions": [other]}), []))
    assert [found["type"] for found in first["conditions"]] == ["ExistingTestCondition", "DisruptionAllowed"]
    assert first["conditions"][1]["reason"] == "InsufficientPods"
    earlier = {**first["conditions"][1], "lastTransitionTime": rfc3339(NOW - 50)}
    second = plan_for(pdb(minAvailable=3, status={**first, "conditions": [earlier]}), pods(3))
    assert status_of(second)["conditions"] == [earlier]
    third = status_of(plan_for(pdb(minAvailable=3, status=status_of(second)), pods(4)))
    assert third["conditions"][0]["reason"] == "SufficientPods"
    assert third["conditions"][0]["lastTransitionTime"] == rfc3339(NOW)
    assert plan_for(pdb(minAvailable=3, status=third), pods(4)) == Plan()


def settled(allowed: int, healthy: int = 3, desired: int = 3, **status: Any) -> Json:
    return {
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": 3,
        "observedGeneration": 1,
        **status,
    }


@pytest.mark.parametrize(
    ("found", "budget", "code", "cause"),
    [
        (pod("p"), pdb(minAvailable=1, status=settled(1)), 0, ""),
        (pod("p"), pdb(minAvailable=3, status=settled(0)), 429, "needs 3 healthy pods and has 3 currently"),
        (
            pod("p"),
            pdb(minAvailable=1, status=settled(1, observedGeneration=0)),
            429,
            "is still being processed by the server.",
        ),
        (
            pod("p"),
            pdb(
                minAvailable="1%",
                status=settled(
                    0,
                    5,
                    3,
                    conditions=[
                        {
                            "type": "DisruptionAllowed",
                            "status": "False",
                            "reason": "SyncFailed",
                            "message": "why",
                        }
                    ],
                ),
            ),
            429,
            "because it failed sync: why",
        ),
        (pod("p", labels={"foo": "x"}), pdb(minAvailable=3, status=settled(0)), 0, ""),
        ({**pod("p"), "status": {"phase": "Pending"}}, pdb(minAvailable=3, status=settled(0)), 0, ""),
        ({**pod("p"), "status": {"phase": "Failed"}}, pdb(minAvailable=3, status=settled(0)), 0, ""),
        (pod("p", deletionTimestamp="x"), pdb(minAvailable=3, status=settled(0)), 0, ""),
        # a pod that is not ready: TestEvictionWithUnhealthyPodEvictionPolicy…
        (pod("p", ready=False), pdb(minAvailable=3, status=settled(0)), 0, ""),
        (
            pod("p", ready=False),
            pdb(minAvailable=3, status=settled(0, 2)),
            429,
            "needs 3 healthy pods and has 2",
        ),
        (pod("p", ready=False), pdb(minAvailable=0, status=settled(0, 0, 0)), 429, "needs 0 healthy pods"),
        (
            pod("p", ready=False),
            pdb(minAvailable=3, unhealthyPodEvictionPolicy="AlwaysAllow", status=settled(0, 2)),
            0,
            "",
        ),
        (
            pod("p"),
            pdb(minAvailable=3, unhealthyPodEvictionPolicy="AlwaysAllow", status=settled(0)),
            429,
            "needs 3 healthy pods",
        ),
    ],
)
def test_evictions(found: Json, budget: Json, code: int, cause: str) -> None:
    verdict = evictions.judge(found, [budget], NOW)
    assert verdict.code == code
    assert cause in verdict.cause and bool(verdict.cause) is bool(cause)
    assert (verdict.message == evictions.REFUSED) is (code == 429)


def test_a_second_budget_is_an_error() -> None:
    verdict = evictions.judge(pod("p"), [pdb(status=settled(1)), pdb(status=settled(1))], NOW)
    assert (verdict.code, verdict.message) == (500, evictions.SEVERAL)


def test_an_eviction_is_announced_in_the_budget() -> None:
    verdict = evictions.judge(pod("p0"), [pdb(minAvailable=2, status=settled(1, 3, 2))], NOW)
    assert verdict.budget is not None
    status = verdict.budget["status"]
    assert status["disruptionsAllowed"] == 0 and status["disruptedPods"] == {"p0": rfc3339(NOW)}
    assert status["conditions"][0]["reason"] == "InsufficientPods"
    assert evictions.judge(pod("p1"), [verdict.budget], NOW).code == 429
    plan = plan_for(verdict.budget, pods(3))
    assert counts(plan) == (0, 2, 2, 3), "the controller counts it as gone, too"
