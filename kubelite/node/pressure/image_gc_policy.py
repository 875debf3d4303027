"""PURE: which images go when the disk fills up, or when nobody has used them for long (C8; kubelet's image_gc_manager).

Never one that is in use, and never one that no registry can give again (loaded, packed or built here): those are as
good as pinned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageGcPolicy:
    """Per cent of the disk and seconds; a high threshold of 100 and a maximum age of 0 mean never."""

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
    """One image, all its names together. Times in Unix seconds."""

    id: str
    last_used: float
    came: float
    in_use: bool = False
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class GcPlan:
    """`old` goes whatever the disk says; then `order`, one after the other, until `to_free` bytes have come free."""

    old: tuple[str, ...] = ()
    to_free: int = 0
    order: tuple[str, ...] = ()


def plan_image_gc(
    policy: ImageGcPolicy, disk: Disk, images: Iterable[ImageUse], *, now: float, uptime: float
) -> GcPlan:
    """`uptime`: since when this node has been watching, in seconds: an image is not old for lack of a look at it."""
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
