"""Removal and start of the same image at the same time, and the limits on pulls."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kubelite.images.service import NodeImages
from kubelite.node.cri.observed import ObservedImages
from kubelite.node.model.cri import ObservedImage, ObservedPod
from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.pull_limits import Bucket, PullLimits
from runtime.images.store.content import prepare
from runtime.images.store.deletion import remove_image
from state.store import Store
from tests.kernel.images_support import member, tar, write_layout

NAME = "docker.io/library/app:1"


async def nothing() -> None:
    """The default for `meanwhile`."""


class Client(ImageClient):
    """The real client with a worker in this process; `meanwhile` runs after the request is sent."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.meanwhile: Callable[[], Awaitable[None]] = nothing
        self.refuse = False
        self.worked: list[str] = []

    async def _work(self, request: dict[str, Any], _progress: Any) -> dict[str, Any]:
        self.worked.append(request["op"])
        if request["op"] == "pull":
            raise ImageError("the registry is away")
        await self.meanwhile()
        if self.refuse:
            raise ImageError("no")
        removed = remove_image(self.store, request["reference"], in_use=request["in_use"])
        return {"untagged": removed.untagged, "deleted": removed.deleted, "freed": removed.freed}


class Cri:
    """The node, as far as a removal needs it."""

    def __init__(self, client: ImageClient) -> None:
        self._seen = ObservedImages(client)
        self.meanwhile: Callable[[], Awaitable[None]] = nothing

    def image(self, reference: str) -> ObservedImage | None:
        return self._seen.get(reference)

    async def observe(self, uid: str) -> ObservedPod:
        await self.meanwhile()
        return ObservedPod(uid)


class World:
    def __init__(self, path: Path) -> None:
        layer = tar((member("x"), b"x"))
        root = path / "images"
        prepare(str(root))
        write_layout(root, [layer], NAME)
        (root / "layers" / hashlib.sha256(layer).hexdigest()).mkdir(parents=True)
        self.store = Store.open(str(path / "state.db"))
        self.client = Client(str(root))
        self.cri = Cri(self.client)
        self.images = NodeImages(str(path), self.store, self.cri, self.client)  # type: ignore[arg-type]
        (self.record,) = self.client.store.list()

    async def pod(self, name: str, image: str = "app:1") -> None:
        spec = {"containers": [{"name": "main", "image": image}]}
        await self.store.create("Pod", {"metadata": {"name": name, "uid": name}, "spec": spec})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(world: World, story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        try:
            await story()
        finally:
            await world.store.close()

    asyncio.run(whole())


def test_a_pod_created_during_the_usage_check_keeps_its_image(world: World) -> None:
    async def story() -> None:
        await world.pod("other", "another:1")

        async def arrives() -> None:
            world.cri.meanwhile = nothing
            await world.pod("late")

        world.cri.meanwhile = arrives
        assert await world.images.remove_unused(world.record.id) is None
        assert world.client.worked == [] and world.cri.image("app:1") is not None
        with pytest.raises(ImageError, match="in use"):
            await world.images.remove(NAME, force=False)

    run(world, story)


@pytest.mark.parametrize("by", ["the collector", "rmi"])
def test_a_pod_created_during_the_removal_does_not_see_the_image(world: World, by: str) -> None:
    async def story() -> None:
        pulls: list[asyncio.Task[Any]] = []

        async def arrives() -> None:
            await world.pod("late")
            assert world.cri.image("app:1") is None, "no start may count on it"
            pulls.append(asyncio.create_task(world.client.pull("app:1")))
            for _ in range(20):
                await asyncio.sleep(0)
            assert world.client.worked == ["remove"], "nor is it pulled before it is gone"

        world.client.meanwhile = arrives
        if by == "rmi":
            assert (await world.images.remove(NAME, force=False))["deleted"] == (world.record.id,)
        else:
            removed = await world.images.remove_unused(world.record.id)
            assert removed is not None and removed.deleted == (world.record.id,)
        with pytest.raises(ImageError, match="the registry is away"):
            await pulls[0]
        assert world.client.worked == ["remove", "pull"]

    run(world, story)


def test_an_image_is_visible_again_after_a_failed_removal(world: World) -> None:
    async def story() -> None:
        world.client.refuse = True
        with pytest.raises(ImageError):
            await world.images.remove_unused(world.record.id)
        assert world.cri.image("app:1") is not None
        await world.pod("web")
        assert await world.images.remove_unused(world.record.id) is None

    run(world, story)


@pytest.mark.parametrize(
    ("rate", "burst", "at", "waits"),
    [
        (0.0, 1, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),  # no limit
        (2.0, 1, [0.0, 0.0, 0.0], [0.0, 0.5, 1.0]),  # in the order in which they came
        (2.0, 3, [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5]),
        (1.0, 2, [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]),  # a token has been added meanwhile
        (1.0, 2, [0.0, 0.0, 9.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.0, 1.0]),  # at most `burst` tokens are stored
    ],
)
def test_pulls_are_limited_in_rate(rate: float, burst: int, at: list[float], waits: list[float]) -> None:
    bucket = Bucket(rate, burst)
    assert [bucket.take(1000.0 + now) for now in at] == waits


def test_pulls_are_limited_in_number() -> None:
    async def story() -> int:
        limits, now, most = PullLimits(2, Bucket(0, 1)), 0, 0

        async def one() -> None:
            nonlocal now, most
            async with limits.pull():
                now, most = now + 1, max(most, now + 1)
                await asyncio.sleep(0)
                now -= 1

        await asyncio.gather(*(one() for _ in range(7)))
        return most

    assert asyncio.run(story()) == 2
