"""Whether a pod may be evicted, by the PodDisruptionBudgets that select it.

Source: Kubernetes pkg/registry/core/pod/storage/eviction.go (Create, checkAndDecrement). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubelite.controllers.decide.disruption import ALLOWED, set_condition
from kubelite.controllers.decide.pods import has_ended, is_ready, phase
from kubelite.controllers.references import is_terminating
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels
from kubelite.kube.times import rfc3339

REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
SEVERAL = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


@dataclass(frozen=True, slots=True)
class Verdict:
    """`code`: 0 if the pod may be evicted, else the HTTP status of the answer: 429 (try again later) or 500. `message`
    and `cause`: why not, as an API server says it. `budget`: the document of the budget with its next status, which is
    written before the pod is deleted; None if no budget changes. `unobserved`: the controller has not looked at the
    budget since it changed."""

    code: int = 0
    message: str = ""
    cause: str = ""
    budget: Json | None = None
    unobserved: bool = False


def judge(pod: Json, budgets: Iterable[Json], now: float) -> Verdict:
    """Judge the eviction of a pod. `budgets`: the PodDisruptionBudgets of its namespace; `now`: Unix seconds."""
    if has_ended(pod) or phase(pod) == "Pending" or is_terminating(pod):
        return Verdict()
    labels = labels_of(pod)
    found = [budget for budget in budgets if matches_labels(budget["spec"].get("selector"), labels)]
    if len(found) > 1:
        return Verdict(500, SEVERAL)
    if not found or (not is_ready(pod) and _need_not_count(found[0])):
        return Verdict()
    return _spend(found[0], pod["metadata"]["name"], now)


def _need_not_count(budget: Json) -> bool:
    """Whether a pod that is not ready may be evicted whatever is allowed: the policy says so, or enough others are
    healthy (unhealthyPodEvictionPolicy)."""
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy", 0)
    return bool(desired > 0 and status.get("currentHealthy", 0) >= desired)


def _spend(budget: Json, pod: str, now: float) -> Verdict:
    """Take one of the allowed disruptions (checkAndDecrement)."""
    name, status = budget["metadata"]["name"], budget.get("status") or {}
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 1):
        cause = f"The disruption budget {name} is still being processed by the server."
        return Verdict(429, REFUSED, cause, unobserved=True)
    allowed = status.get("disruptionsAllowed", 0)
    if allowed <= 0:
        return Verdict(429, REFUSED, _cause(name, status))
    disrupted = {**(status.get("disruptedPods") or {}), pod: rfc3339(now)}
    spent = {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": disrupted}
    if allowed == 1:
        condition: Json = {
            "type": ALLOWED,
            "status": "False",
            "observedGeneration": status["observedGeneration"],
            "reason": "InsufficientPods",
            "message": "",
        }
        spent["conditions"] = set_condition(budget, condition, now)
    return Verdict(budget={**budget, "status": spent})


def _cause(name: str, status: Json) -> str:
    desired, healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
    condition: Json = next(
        (found for found in status.get("conditions") or () if found["type"] == ALLOWED), {}
    )
    said = condition.get("message") if condition.get("status") == "False" else ""
    now = f"The disruption budget {name} does not allow evicting pods currently"
    if said and condition.get("reason") == "SyncFailed":
        return f"{now} because it failed sync: {said}"
    if healthy <= desired:
        return f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
    return f"{now} ({condition.get('reason')}): {said}" if said else now
