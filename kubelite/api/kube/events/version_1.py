"""Events as events.k8s.io/v1 shows them. The node stores core events.

Both are the same objects with other names of fields. Source: Kubernetes pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

from kubelite.kube.json import Json

GROUP_VERSION = "events.k8s.io/v1"
#: Field of events.k8s.io/v1 → field of a core event.
_NAMES = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_NEW_NAMES = {core: new for new, core in _NAMES.items()}


def as_v1(doc: Json) -> Json:
    found = {_NEW_NAMES.get(key, key): value for key, value in doc.items()}
    return {"eventTime": None, **found, "apiVersion": GROUP_VERSION}


def as_core(doc: Json) -> Json:
    """Return a core event, by which rows of Tables are printed."""
    return {_NAMES.get(key, key): value for key, value in doc.items()} | {"apiVersion": "v1"}
