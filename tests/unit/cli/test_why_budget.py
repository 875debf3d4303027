"""`kubelite why pdb/web`: the words for a budget and its pods."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.cli.diagnosis.why_budget import explain, lines
from kubelite.kube.json import Json

NOW = 1_000_000.0


def pod(name: str, *, ready: bool = True, phase: str = "Running", **labels: str) -> Json:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    metadata: Json = {"name": name, "namespace": "default", "uid": name, "labels": labels or {"app": "web"}}
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase, "conditions": [condition]}}


def budget(
    healthy: int, desired: int, expected: int, reason: str = "", message: str = "", **spec: Any
) -> Json:
    allowed = max(healthy - desired, 0)
    condition = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "reason": reason or ("SufficientPods" if allowed else "InsufficientPods"),
        "message": message,
    }
    status = {
        "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": expected,
        "observedGeneration": 1, "conditions": [condition],
    }  # fmt: skip
    spec = {"selector": {"matchLabels": {"app": "web"}}, **(spec or {"minAvailable": desired})}
    return {
        "metadata": {"name": "web", "namespace": "default", "generation": 1},
        "spec": spec,
        "status": status,
    }


@pytest.mark.parametrize(
    ("doc", "pods", "status", "first", "advice"),
    [
        (
            budget(2, 1, 2), [pod("a"), pod("b")],
            "1 may be evicted now; 2 of 2 pods are healthy, 1 must be (minAvailable: 1)",
            "a is ready; it may be evicted", "",
        ),
        (
            budget(1, 1, 2), [pod("a"), pod("b", ready=False)],
            "0 may be evicted now; 1 of 2 pods are healthy, 1 must be (minAvailable: 1)",
            "a is ready; an eviction is refused: The disruption budget web needs 1 healthy pods and has 1 currently",
            "the pods that are not ready count as missing",
        ),
        (
            budget(2, 2, 2, maxUnavailable=0), [pod("a"), pod("b")],
            "0 may be evicted now; 2 of 2 pods are healthy, 2 must be (maxUnavailable: 0)",
            "a is ready; an eviction is refused: The disruption budget web needs 2 healthy pods and has 2 currently",
            "even with all pods healthy it allows none",
        ),
        (
            budget(0, 0, 0, "SyncFailed", "jobs.batch does not implement the scale subresource"), [pod("a")],
            "0 may be evicted now; 0 of 0 pods are healthy, 0 must be (minAvailable: 0)",
            "a is ready; an eviction is refused: The disruption budget web does not allow evicting pods currently "
            "because it failed sync: jobs.batch does not implement the scale subresource",
            "of pods that no workload with replicas controls",
        ),
        (
            budget(0, 1, 0), [pod("a", app="other"), pod("done", phase="Succeeded")],
            "0 may be evicted now; 0 of 0 pods are healthy, 1 must be (minAvailable: 1)",
            "", "no pod has the labels of spec.selector",
        ),
    ],
)  # fmt: skip
def test_a_budget_in_words(doc: Json, pods: list[Json], status: str, first: str, advice: str) -> None:
    found = explain(doc, pods, [doc], NOW)
    assert found["object"] == "PodDisruptionBudget default/web" and found["status"] == status
    assert "".join(found["pods"][:1]) == first
    assert len(found["advice"]) == bool(advice) and "".join(found["advice"]).startswith(advice)
    assert lines(found)[0] == f"PodDisruptionBudget default/web: {status}"


def test_a_pod_that_is_not_ready_names_the_next_command() -> None:
    doc = budget(1, 1, 2)
    (said,) = explain(doc, [pod("b", ready=False)], [doc], NOW)["pods"]
    assert said == "b is not ready: `kubelite why b`; it may be evicted"


def test_a_new_budget() -> None:
    doc = {"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {}}}
    assert explain(doc, [], [doc], NOW)["status"] == "it has not been looked at yet"
