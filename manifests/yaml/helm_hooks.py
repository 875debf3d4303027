"""Helm's hooks in the output of `helm template`: which of them belong to the installation of a chart. Pure.

`helm install` creates an object with the annotation `helm.sh/hook` at the events that it names, and at no other time
(Helm pkg/releaseutil/manifest_sorter.go). `kubectl apply` knows nothing of that: it creates all of them at once, the
tests and the Jobs that clean up after the chart included. Files in the manifest directory are an installation. What
Helm creates at other events is ignored, and the caller says so; the rest are ordinary objects.
"""

from typing import Any

from manifests.problems import Path

HOOK = "helm.sh/hook"
FIELD: Path = ("metadata", "annotations", HOOK)
_INSTALL = frozenset({"pre-install", "post-install"})
_COMMANDS = {
    "test": "test",
    "test-success": "test",
    "pre-delete": "uninstall",
    "post-delete": "uninstall",
    "pre-upgrade": "upgrade",
    "post-upgrade": "upgrade",
    "pre-rollback": "rollback",
    "post-rollback": "rollback",
}


def passed_over(data: Any) -> str:
    """Return why an object is not part of an installation, as a sentence; "" if it is."""
    events = _events(data)
    if not events or (_INSTALL & events and not _unknown(events)):
        return ""
    if unknown := _unknown(events):
        return f"Helm has no hook {', '.join(unknown)}, and does not create this object: this document is ignored"
    commands = " and ".join(f"`helm {name}`" for name in sorted({_COMMANDS[event] for event in events}))
    return f"Helm creates this object only for {commands}: this document is ignored"


def at_install(data: Any) -> str:
    """Return how a Job or Pod that Helm runs before or after an installation is run, as a sentence; "" for others."""
    if data.get("kind") not in ("Job", "Pod") or not (events := sorted(_INSTALL & _events(data))):
        return ""
    return (
        f"its Helm hook {','.join(events)} is run once, like any other object: beside the others, without the hook's "
        "weight, and it is not deleted afterwards"
    )


def _events(data: Any) -> frozenset[str]:
    metadata = data.get("metadata") if isinstance(data, dict) else None
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    value = annotations.get(HOOK) if isinstance(annotations, dict) else None
    if not isinstance(value, str) or not value.strip():
        return frozenset()
    return frozenset(event.strip().lower() for event in value.split(","))


def _unknown(events: frozenset[str]) -> list[str]:
    return sorted(events - _INSTALL - _COMMANDS.keys())
