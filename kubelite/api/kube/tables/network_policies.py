"""The Table columns of NetworkPolicies, as Kubernetes' API server prints them.

Source: Kubernetes pkg/printers/internalversion/printers.go (printNetworkPolicy).
"""

from __future__ import annotations

from collections.abc import Callable

from kubelite.api.kube.columns import AGE, NAME, NONE, Cells, Column
from kubelite.kube.durations import age_of
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import selector_text


def policy_cells(doc: Json, now: float) -> Cells:
    metadata, selector = doc["metadata"], (doc.get("spec") or {}).get("podSelector") or {}
    return [
        metadata["name"],
        selector_text(selector) or NONE,
        age_of(metadata.get("creationTimestamp"), now),
    ]


PRINTERS: dict[str, tuple[tuple[Column, ...], Callable[[Json, float], Cells]]] = {
    "NetworkPolicy": ((NAME, Column("Pod-Selector"), AGE), policy_cells),
}
