"""Label selectors as in manifests (meta/v1 LabelSelector: matchLabels and matchExpressions).

Source: Kubernetes apimachinery pkg/apis/meta/v1/helpers.go (LabelSelectorAsSelector), pkg/labels/selector.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubelite.kube.json import Json


def matches_labels(selector: Json | None, labels: Mapping[str, Any]) -> bool:
    """Whether labels match. No selector matches nothing; an empty selector matches everything."""
    if selector is None:
        return False
    return all(
        labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()
    ) and all(_holds(found, labels) for found in selector.get("matchExpressions") or ())


def selector_of(owner: Json) -> Json | None:
    """Return a workload's label selector. A ReplicationController's is a map of labels."""
    found = (owner.get("spec") or {}).get("selector")
    if owner["kind"] == "ReplicationController":
        return {"matchLabels": found} if found else None
    return found if isinstance(found, dict) else None


def selector_text(selector: Json) -> str:
    """Write a label selector as metav1.FormatLabelSelector does, `app=web,tier in (a,b),!old`; "" if it is empty."""
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for found in selector.get("matchExpressions") or ():
        key, values = found["key"], ",".join(sorted(found.get("values") or ()))
        operators = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "DoesNotExist": f"!{key}",
        }
        terms.append(operators.get(found["operator"], key))
    return ",".join(sorted(terms, key=lambda term: term.removeprefix("!")))  # by key


def labels_of(doc: Json) -> Mapping[str, Any]:
    found: Mapping[str, Any] = doc["metadata"].get("labels") or {}
    return found


def _holds(requirement: Json, labels: Mapping[str, Any]) -> bool:
    key, values = requirement["key"], requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False
