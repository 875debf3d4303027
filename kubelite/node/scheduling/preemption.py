"""PURE: which pods go so that one of higher priority fits (K pkg/scheduler/framework/preemption, defaultpreemption).

Only pods of lower priority ever go, and as few as will do: all of them are thought away, then given back one by one,
the most important first, as long as the new pod still fits.
"""

from __future__ import annotations

from collections.abc import Callable

from kubelite.node.model.schedule import Reservation
from kubelite.node.scheduling.ledger import Ledger


def lower(claim: Reservation, ledger: Ledger) -> list[Reservation]:
    """Who may have to go, the most important first: by priority, then who began earlier (K util.MoreImportantPod)."""
    found = [other for other in ledger if other.priority < claim.priority and not other.ending]
    return sorted(found, key=lambda other: (-other.priority, other.since or "~", other.uid))


def victims(claim: Reservation, ledger: Ledger, fits: Callable[[Ledger], bool]) -> tuple[Reservation, ...]:
    """Who goes for the pod, which does not fit as it is; () where nobody's going would help. `ledger`: without those
    that are going already. `fits(ledger)`: whether the pod would fit beside these."""
    candidates = lower(claim, ledger)
    gone = {other.uid for other in candidates}
    left = ledger.where(lambda other: other.uid not in gone)
    if not candidates or not fits(left):
        return ()
    going = []
    for other in candidates:
        left.enter(other)
        if not fits(left):
            left.strike(other.uid)
            going.append(other)
    return tuple(going)
