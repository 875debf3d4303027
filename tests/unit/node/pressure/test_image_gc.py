"""Which unused images are removed, and when."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelite.images.collector import ImageCollector
from kubelite.node.pressure.image_gc_policy import Disk, GcPlan, ImageGcPolicy, ImageUse, plan_image_gc
from runtime.images.store.store import ImageRecord, Removed

NOW = 100_000.0
FULL = Disk(1000, 50)  # 95 percent used
IMAGES = (
    ImageUse("recent", NOW - 130, NOW - 9000),
    ImageUse("oldest", NOW - 9000, NOW - 9000),
    ImageUse("used", NOW - 9000, NOW - 9000, in_use=True),
    ImageUse("ours", NOW - 9000, NOW - 9000, pinned=True),
    ImageUse("just-used", NOW - 100, NOW - 9000),
    ImageUse("just-came", NOW - 9000, NOW - 100),
    ImageUse("older-came-later", NOW - 9000, NOW - 8000),
)


def plan(policy: ImageGcPolicy, disk: Disk, uptime: float = 50_000.0) -> GcPlan:
    return plan_image_gc(policy, disk, IMAGES, now=NOW, uptime=uptime)


@pytest.mark.parametrize(
    ("policy", "disk", "expected"),
    [
        (ImageGcPolicy(), Disk(1000, 160), GcPlan()),
        (ImageGcPolicy(), Disk(1000, 150), GcPlan((), 50, ("oldest", "older-came-later", "recent"))),
        (ImageGcPolicy(), FULL, GcPlan((), 150, ("oldest", "older-came-later", "recent"))),
        (ImageGcPolicy(100, 80), Disk(1000, 0), GcPlan()),
        (ImageGcPolicy(minimum_age=1000), FULL, GcPlan((), 150, ("oldest", "older-came-later"))),
        (ImageGcPolicy(minimum_age=0), FULL, GcPlan((), 150, (
            "oldest", "older-came-later", "just-came", "recent", "just-used"))),
        (ImageGcPolicy(maximum_age=8500), Disk(1000, 900), GcPlan(("oldest", "older-came-later", "just-came"))),
        (ImageGcPolicy(maximum_age=8500), FULL, GcPlan(
            ("oldest", "older-came-later", "just-came"), 150, ("recent",))),
        (ImageGcPolicy(), Disk(0, 0), GcPlan()),
    ],
)  # fmt: skip
def test_the_image_gc_plan(policy: ImageGcPolicy, disk: Disk, expected: GcPlan) -> None:
    assert plan(policy, disk) == expected


def test_an_image_ages_only_while_it_is_observed() -> None:
    assert plan(ImageGcPolicy(maximum_age=8500), Disk(1000, 900), uptime=8500.0) == GcPlan()


_uses = st.builds(
    ImageUse,
    id=st.uuids().map(str),
    last_used=st.floats(0, NOW),
    came=st.floats(0, NOW),
    in_use=st.booleans(),
    pinned=st.booleans(),
)


@given(
    images=st.lists(_uses, max_size=12),
    high=st.integers(1, 100),
    low=st.integers(0, 99),
    available=st.integers(0, 1000),
    maximum=st.sampled_from([0.0, 10.0, 50_000.0]),
)
def test_images_in_use_or_pinned_are_never_removed(
    images: list[ImageUse], high: int, low: int, available: int, maximum: float
) -> None:
    policy = ImageGcPolicy(high, min(low, high - 1), 120.0, maximum)
    found = plan_image_gc(policy, Disk(1000, available), images, now=NOW, uptime=NOW)
    goes = [*found.old, *found.order]
    assert len(goes) == len(set(goes))
    by_id = {image.id: image for image in images}
    assert not any(by_id[i].in_use or by_id[i].pinned for i in goes)
    assert found.to_free >= 0 and (not found.order or 100 - available // 10 >= high - 1)
    ages = [by_id[i].last_used for i in found.order]
    assert ages == sorted(ages), "those unused for longest first"


@pytest.mark.parametrize(("policy", "first"), [(ImageGcPolicy(high=0, low=0, minimum_age=5.0), True),
                                               (ImageGcPolicy(high=100, minimum_age=5.0), False),
                                               (ImageGcPolicy(high=100, maximum_age=50.0), True)])  # fmt: skip
async def test_the_build_cache_is_removed_before_images(
    tmp_path: Path, policy: ImageGcPolicy, first: bool
) -> None:
    record = ImageRecord("sha256:image", "a:1", ("a@sha256:0",), 1, "", ())
    gone: list[str] = []

    class Client:
        store = SimpleNamespace(
            root=str(tmp_path), list=lambda: (record,), blob_path=lambda _: str(tmp_path / "blob")
        )

        async def prune_cache(self, *, before: float) -> Removed:
            age = policy.maximum_age or policy.minimum_age
            assert abs(time.time() - age - before) < 30
            gone.append("builds")
            return Removed(freed=1)

    async def nobody() -> set[str]:
        return set()

    async def remove_unused(identity: str) -> Removed:
        gone.append(identity)
        return Removed(freed=1)

    images: Any = SimpleNamespace(client=Client(), in_use=nobody, remove_unused=remove_unused)
    await ImageCollector(images, policy, lambda *_: None, lambda _: None, began=0.0).once()
    assert gone[:1] == (["builds"] if first else [])
