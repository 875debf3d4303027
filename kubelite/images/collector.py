"""Garbage collection of unused images. It runs periodically; node/pressure/image_gc_policy.py chooses the images."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

from kubelite.images.service import NodeImages
from kubelite.node.pressure.image_gc_policy import Disk, GcPlan, ImageGcPolicy, ImageUse, plan_image_gc
from runtime.errors import ImageError, RuntimeFault
from runtime.images.store.names import last_used, pulled_at, touch
from state.errors import StoreError

log = logging.getLogger(__name__)
PERIOD = 300.0  # seconds; kubelet's ImageGCPeriod
Say = Callable[[str, str], None]  # emits a Warning event about the node: reason and message


class ImageCollector:
    """`run()` collects until cancelled; `once()` collects once."""

    def __init__(
        self,
        images: NodeImages,
        policy: ImageGcPolicy,
        say: Say,
        collected: Callable[[str], None],
        *,
        period: float = PERIOD,
        began: float,
    ) -> None:
        """`collected` is called for each removed image with the cause: "age" or "space"."""
        self._images = images
        self._collected = collected
        self._policy = policy
        self._say = say
        self._period = period
        self._began = began

    def reload(self, policy: ImageGcPolicy, period: float) -> None:
        """Use this policy from now on, and this interval (seconds) after the next round."""
        self._policy, self._period = policy, period

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            try:
                await self.once()
            except (RuntimeFault, StoreError, OSError) as error:
                self._say("ImageGCFailed", f"failed to collect unused images: {error}")

    async def once(self) -> int:
        """Collect once; return the bytes freed."""
        store = self._images.client.store
        if not store.list():
            return 0
        used = await self._images.in_use()
        await asyncio.to_thread(touch, store, used)
        now = time.time()
        plan = plan_image_gc(self._policy, self._disk(), self._uses(used), now=now, uptime=now - self._began)
        freed = await self._forget_builds(plan, now)
        if plan.to_free and freed:  # the space freed from builds may be enough
            plan = plan_image_gc(
                self._policy, self._disk(), self._uses(used), now=now, uptime=now - self._began
            )
        for identity in plan.old:
            freed += await self._remove(identity, "age", "unused for too long")
        found = 0
        for identity in plan.order:
            if found >= plan.to_free:
                break
            found += await self._remove(identity, "space", "the disk is filling up")
        if found < plan.to_free:
            self._say(
                "FreeDiskSpaceFailed",
                f"Failed to garbage collect required amount of images. Attempted to free {plan.to_free} bytes, "
                f"but only found {found} bytes eligible to free.",
            )
        return freed + found

    async def free_all(self) -> int:
        """Remove every unused image of any age, because the disk is short of space; return the bytes freed."""
        used = await self._images.in_use()
        unused = [image.id for image in self._uses(used) if not (image.in_use or image.pinned)]
        return sum([await self._remove(identity, "space", "the disk is short") for identity in unused])

    async def _forget_builds(self, plan: GcPlan, now: float) -> int:
        """Remove results of build steps before any image, because they can be recreated. The same minimum and maximum
        ages apply. Return the bytes freed."""
        ages = [self._policy.minimum_age] if plan.to_free else []
        ages += [self._policy.maximum_age] if self._policy.maximum_age > 0 else []
        if not ages or now - self._began <= min(ages):
            return 0
        return (await self._images.client.prune_cache(before=now - min(ages))).freed

    def _disk(self) -> Disk:
        found = os.statvfs(self._images.client.store.root)
        return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def _uses(self, used: set[str]) -> list[ImageUse]:
        store = self._images.client.store
        uses: dict[str, ImageUse] = {}
        for record in store.list():
            before = uses.get(record.id)
            came = max(pulled_at(record), before.came if before else 0.0)
            uses[record.id] = ImageUse(
                record.id,
                max(last_used(store, record), before.last_used if before else 0.0),
                came,
                in_use=record.id in used,
                pinned=not record.repo_digests,
            )
        return list(uses.values())

    async def _remove(self, identity: str, reason: str, why: str) -> int:
        """Remove an image; return the bytes freed, or 0 if a pod has started to use it meanwhile."""
        try:
            removed = await self._images.remove_unused(identity)
        except ImageError as error:
            log.warning("cannot remove image: %s", error, extra={"image": identity})
            return 0
        if removed is None:
            return 0
        self._collected(reason)
        names = ", ".join(removed.untagged) or identity
        log.info("removed image %s, %d bytes: %s", names, removed.freed, why)
        return removed.freed
