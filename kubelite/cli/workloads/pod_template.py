"""Where the pod template of each kind is. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubelite.kube.json import Json

#: kind → path of the pod's spec in its document
POD_SPECS: dict[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    **dict.fromkeys(
        ("Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "DaemonSet", "Job"),
        ("spec", "template", "spec"),
    ),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}


def at(doc: Json, path: tuple[str, ...]) -> Any:
    """Return the value at a path, None if there is none."""
    found: Any = doc
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return found
