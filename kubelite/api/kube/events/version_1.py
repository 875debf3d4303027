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
    """Return an event as this group has it. `eventTime` is required there. A cluster shows null for core events, which
    the Python client refuses; here it is the time of the first occurrence."""
    found = {_NEW_NAMES.get(key, key): value for key, value in doc.items()}
    time = doc.get("eventTime") or _micro(
        doc.get("firstTimestamp") or doc["metadata"].get("creationTimestamp")
    )
    return {**found, "eventTime": time, "apiVersion": GROUP_VERSION}


def _micro(time: str | None) -> str | None:
    """Return an RFC 3339 time of whole seconds as a MicroTime."""
    return f"{time[:-1]}.000000Z" if time and time.endswith("Z") and "." not in time else time


def as_core(doc: Json) -> Json:
    """Return a core event, by which rows of Tables are printed."""
    return {_NAMES.get(key, key): value for key, value in doc.items()} | {"apiVersion": "v1"}
