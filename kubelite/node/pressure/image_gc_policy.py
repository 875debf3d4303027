"""Pure: which images to remove when the disk fills up, or when they have been unused for long (docs/explanation/
scheduling.md; kubelet's image_gc_manager.go).

Images in use are never removed. Images that no registry can provide again (loaded, packed or built here) count as
pinned and are not removed either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageGcPolicy:
    """Thresholds in per cent of the disk, ages in seconds. `high` 100 and `maximum_age` 0 mean never."""

    high: int = 85
    low: int = 80
    minimum_age: float = 120.0
    maximum_age: float = 0.0


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the image store's file system."""

    capacity: int
    available: int

    @property
    def used_percent(self) -> int:
        return 100 - self.available * 100 // self.capacity if self.capacity else 0


@dataclass(frozen=True, slots=True)
class ImageUse:
    """One image with all its names. Times in Unix seconds."""

    id: str
    last_used: float
    came: float  # when it was pulled, loaded or built
    in_use: bool = False
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class GcPlan:
    """Remove `old` in any case, then `order` one by one until `to_free` bytes have been freed."""

    old: tuple[str, ...] = ()
    to_free: int = 0
    order: tuple[str, ...] = ()


def plan_image_gc(
    policy: ImageGcPolicy, disk: Disk, images: Iterable[ImageUse], *, now: float, uptime: float
) -> GcPlan:
    """Choose the images to remove. `uptime`: seconds for which this node has recorded the use of images; earlier use is
    unknown."""
    ordered = sorted((i for i in images if not (i.in_use or i.pinned)), key=lambda i: (i.last_used, i.came))
    old: list[str] = []
    if policy.maximum_age > 0 and uptime > policy.maximum_age:
        old = [image.id for image in ordered if now - image.last_used > policy.maximum_age]
    if policy.high >= 100 or disk.used_percent < policy.high:
        return GcPlan(tuple(old))
    to_free = disk.capacity * (100 - policy.low) // 100 - disk.available
    order = [
        image.id
        for image in ordered
        if image.id not in old
        and now - image.last_used >= policy.minimum_age
        and now - image.came >= policy.minimum_age
    ]
    return GcPlan(tuple(old), max(to_free, 0), tuple(order))
