"""Where the pod template of each kind is, which of its containers are meant, and patches of them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubelite.cli.errors import CliError
from kubelite.cli.names import qualified

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


def containers(doc: Json, pattern: str, *, init: bool = False) -> dict[str, list[Json]]:
    """Return the containers of an object whose names match a pattern with `*`, by their field; `init`: init containers,
    too. Raises CliError if none does, or if the kind has no containers."""
    from fnmatch import fnmatchcase

    kind, name = doc["kind"], doc["metadata"]["name"]
    if kind not in POD_SPECS:
        raise CliError(f"error: {qualified(kind)}/{name} has no pod template")
    spec: Json = at(doc, POD_SPECS[kind]) or {}
    found = {
        field: [one for one in spec.get(field) or () if fnmatchcase(one["name"], pattern)]
        for field in (("containers", "initContainers") if init else ("containers",))
    }
    if not any(found.values()):
        raise CliError(f'error: {qualified(kind)}/{name} has no container named "{pattern}"')
    return {field: listed for field, listed in found.items() if listed}


def patch_of(kind: str, spec: Json) -> Json:
    """Return the patch of an object of which this is the pod's spec."""
    for part in reversed(POD_SPECS[kind]):
        spec = {part: spec}
    return spec


def at(doc: Json, path: tuple[str, ...]) -> Any:
    """Return the value at a path, None if there is none."""
    found: Any = doc
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return found
