"""Pure: which pods to preempt so that a pod of higher priority fits (Kubernetes pkg/scheduler/framework/preemption and
pkg/scheduler/framework/plugins/defaultpreemption).

Only pods of lower priority are preempted, and as few as possible: the calculation removes all of them, then adds them
back one by one, as long as the new pod still fits. The pods whose PodDisruptionBudget does not allow another disruption
are added back first, and of these and the others the most important. A budget does not prevent a preemption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kubelite.kube.json import Json
from kubelite.kube.label_selectors import matches_labels
from kubelite.node.model.schedule import Reservation
from kubelite.node.scheduling.ledger import Ledger

BUDGET = "PodDisruptionBudget"


def lower(reservation: Reservation, ledger: Ledger) -> list[Reservation]:
    """The pods that may be preempted, the most important first: by priority, then by earlier start (Kubernetes
    pkg/scheduler/util, MoreImportantPod)."""
    found = [other for other in ledger if other.priority < reservation.priority and not other.terminating]
    return sorted(found, key=lambda other: (-other.priority, other.since or "~", other.uid))


def victims(
    reservation: Reservation,
    ledger: Ledger,
    fits: Callable[[Ledger], bool],
    budgets: Sequence[Json] = (),
) -> tuple[Reservation, ...]:
    """The pods to preempt for a pod that does not fit now, the most important first; () if preemption would not help.
    `ledger` excludes terminating pods. `fits(ledger)`: whether the pod would fit beside these reservations. `budgets`:
    the documents of all PodDisruptionBudgets (Kubernetes defaultpreemption, SelectVictimsOnNode)."""
    candidates = lower(reservation, ledger)
    gone = {other.uid for other in candidates}
    left = ledger.where(lambda other: other.uid not in gone)
    if not candidates or not fits(left):
        return ()
    guarded = violating(candidates, budgets) if budgets else frozenset()
    chosen = set()
    for other in sorted(candidates, key=lambda other: other.uid not in guarded):
        left.add(other)
        if not fits(left):
            left.remove(other.uid)
            chosen.add(other.uid)
    return tuple(other for other in candidates if other.uid in chosen)


def violating(pods: Sequence[Reservation], budgets: Sequence[Json]) -> frozenset[str]:
    """The uids of the pods whose preemption violates a budget, if all of these pods are preempted in their order
    (Kubernetes defaultpreemption, filterPodsWithPDBViolation). A budget without a selector, or with an empty one,
    selects no pod here."""
    allowed = [(budget.get("status") or {}).get("disruptionsAllowed", 0) for budget in budgets]
    found = set()
    for pod in pods:
        for index, budget in enumerate(budgets):
            if not _selects(budget, pod):
                continue
            allowed[index] -= 1
            if allowed[index] < 0:
                found.add(pod.uid)
    return frozenset(found)


def _selects(budget: Json, pod: Reservation) -> bool:
    """Whether a budget counts the disruption of a pod. One that the Eviction API has begun is counted already."""
    selector = budget["spec"].get("selector") or {}
    empty = not (selector.get("matchLabels") or selector.get("matchExpressions"))
    if empty or not pod.labels or budget["metadata"].get("namespace") != pod.namespace:
        return False
    begun = (budget.get("status") or {}).get("disruptedPods") or {}
    return pod.name not in begun and matches_labels(selector, pod.labels)
