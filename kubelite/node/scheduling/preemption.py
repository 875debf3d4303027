"""Pure: which pods to preempt so that a pod of higher priority fits (Kubernetes pkg/scheduler/framework/preemption and
pkg/scheduler/framework/plugins/defaultpreemption).

Only pods of lower priority are preempted, and as few as possible: the calculation removes all of them, then adds them
back one by one, the most important first, as long as the new pod still fits.
"""

from __future__ import annotations

from collections.abc import Callable

from kubelite.node.model.schedule import Reservation
from kubelite.node.scheduling.ledger import Ledger


def lower(reservation: Reservation, ledger: Ledger) -> list[Reservation]:
    """The pods that may be preempted, the most important first: by priority, then by earlier start (Kubernetes
    pkg/scheduler/util, MoreImportantPod)."""
    found = [other for other in ledger if other.priority < reservation.priority and not other.terminating]
    return sorted(found, key=lambda other: (-other.priority, other.since or "~", other.uid))


def victims(
    reservation: Reservation, ledger: Ledger, fits: Callable[[Ledger], bool]
) -> tuple[Reservation, ...]:
    """The pods to preempt for a pod that does not fit now; () if preemption would not help. `ledger` excludes
    terminating pods. `fits(ledger)`: whether the pod would fit beside these reservations."""
    candidates = lower(reservation, ledger)
    gone = {other.uid for other in candidates}
    left = ledger.where(lambda other: other.uid not in gone)
    if not candidates or not fits(left):
        return ()
    chosen = []
    for other in candidates:
        left.add(other)
        if not fits(left):
            left.remove(other.uid)
            chosen.append(other)
    return tuple(chosen)
