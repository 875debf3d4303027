"""Find a container's spec and status in a pod's document."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubelite.kube.json import Json

SPECS, STATUSES = ("containers", "initContainers", "ephemeralContainers"), (
    "containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses",
)  # fmt: skip


def state_of(document: Json, name: str) -> Json:
    found: Json = part_of(document.get("status") or {}, STATUSES, name).get("state") or {}
    return found


def part_of(part: Json, lists: tuple[str, ...], name: str) -> Json:
    return next((c for key in lists for c in part.get(key) or () if c.get("name") == name), {})
