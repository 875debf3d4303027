"""The collection of unused images: looks every few minutes, decides in `node.image_gc`, removes one after the other."""

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
PERIOD = 300.0  # seconds, kubelet's ImageGCPeriod
Say = Callable[[str, str], None]  # reason and message of a Warning event about the node


class ImageCollector:
    """`run()` until cancelled; `once()` is one look."""

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
        """`collected`: told of each image that went, why: "age" or "space"."""
        self._images = images
        self._collected = collected
        self._policy = policy
        self._say = say
        self._period = period
        self._began = began

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            try:
                await self.once()
            except (RuntimeFault, StoreError, OSError) as error:
                self._say("ImageGCFailed", f"failed to collect unused images: {error}")

    async def once(self) -> int:
        """One look; the bytes that came free."""
        store = self._images.client.store
        if not store.list():
            return 0
        used = await self._images.in_use()
        await asyncio.to_thread(touch, store, used)
        now = time.time()
        plan = plan_image_gc(self._policy, self._disk(), self._uses(used), now=now, uptime=now - self._began)
        freed = await self._forget_builds(plan, now)
        if plan.to_free and freed:  # what builds had left may have been enough
            plan = plan_image_gc(
                self._policy, self._disk(), self._uses(used), now=now, uptime=now - self._began
            )
        for identity in plan.old:
            freed += await self._remove(identity, "age", "nobody has used it for long")
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
        """The disk is short: every image that is not in use goes, whatever its age; the bytes that came free."""
        used = await self._images.in_use()
        unused = [image.id for image in self._uses(used) if not (image.in_use or image.pinned)]
        return sum([await self._remove(identity, "space", "the disk is short") for identity in unused])

    async def _forget_builds(self, plan: GcPlan, now: float) -> int:
        """Results of build steps can be made again: they go before any image, by the same ages."""
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
        """The bytes that came free; 0 when a pod has come meanwhile that uses it."""
        try:
            removed = await self._images.remove_unused(identity)
        except ImageError as error:
            log.warning("image is not removed: %s", error, extra={"image": identity})
            return 0
        if removed is None:
            return 0
        self._collected(reason)
        names = ", ".join(removed.untagged) or identity
        log.info("removed image %s, %d bytes: %s", names, removed.freed, why)
        return removed.freed
