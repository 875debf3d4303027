"""kill -9 of the image worker at each system call of a pull, a load, a collection: each time the store is intact, and
the next worker finishes the work and cleans up."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.images.store.store import ImageStore
from runtime.images.store.verify import check_store, hash_file
from runtime.images.worker import perform
from tests.chaos.small_images import docker_archive, tar_of, tree_of
from tests.chaos.strike import NEVER, Strike
from tests.e2e.node import REPO
from tests.kernel.little_registry import LittleRegistry, little_registry

POINTS = int(os.environ.get("CHAOS_POINTS", "6"))
pytestmark = pytest.mark.timeout(60 * POINTS)
SHARED = tar_of({"etc/motd": b"hello" * 4000, "bin/tool": b"#!" * 5000}, links={"bin/other": "bin/tool"})


@pytest.fixture(scope="module")
def host() -> Iterator[LittleRegistry]:
    with little_registry() as server:
        server.add("1", [SHARED, tar_of({"srv/data": bytes(range(256)) * 500})])
        server.add("2", [SHARED, tar_of({f"srv/{n}": b"two" for n in range(20)})])
        yield server


class Place:
    """A store that is reset each time."""

    def __init__(self, path: Path, strike: Strike, before: list[dict[str, Any]]) -> None:
        self.root = path / "images"
        self._aside = path / "before"
        self._strike = strike
        for request in before:
            self.do(request)
        self.root.mkdir(exist_ok=True)
        shutil.copytree(self.root, self._aside, symlinks=True)
        self.whole: dict[str, dict[str, bytes]] = {}

    def do(self, request: dict[str, Any]) -> None:
        asyncio.run(perform({**request, "root": str(self.root)}, lambda _event: None))

    def struck(self, request: dict[str, Any], at: int) -> tuple[int, str]:
        """Run it in a process that is killed at its call `at`. Return the number of calls and the last one."""
        shutil.rmtree(self.root)
        shutil.copytree(self._aside, self.root, symlinks=True)
        order = self.root.with_name("request")
        order.write_text(json.dumps({**request, "root": str(self.root)}) + "\n")
        self._strike.arm(pid=-1, at=at)
        with order.open("rb") as source:
            done = subprocess.run(
                [sys.executable, "-m", "runtime.images.worker"],
                stdin=source, capture_output=True, cwd=REPO, env={**os.environ, **self._strike.environment},
                check=False, timeout=60,
            )  # fmt: skip
        found = self._strike.disarm()
        assert done.returncode == (-signal.SIGKILL if found[1] else 0), (found, done.stdout, done.stderr)
        return found

    def names(self) -> list[str]:
        return sorted(record.reference for record in self.store.list())

    @property
    def store(self) -> ImageStore:
        return ImageStore(str(self.root))

    def learn(self) -> None:
        """What is whole now."""
        layers = self.root / "layers"
        if layers.exists():
            self.whole |= {path.name: tree_of(path) for path in layers.iterdir()}

    def check(self, what: object) -> None:
        """All that stands under its name is whole."""
        strays = ("was left by a writer that died", "is a stray temporary file")
        problems = check_store(self.store, deep=True) if (self.root / "blobs/sha256").exists() else []
        assert all(any(stray in problem for stray in strays) for problem in problems), (what, problems)
        for blob in self.root.glob("blobs/sha256/*"):
            assert hash_file(str(blob)) == f"sha256:{blob.name}", (what, blob)
        for layer in self.root.glob("layers/*"):
            assert tree_of(layer) == self.whole[layer.name], (what, layer)


@pytest.mark.parametrize(
    "what", ["a first pull", "a pull beside another", "a load", "a collection", "a removal"]
)
def test_kill_9_at_every_call(tmp_path: Path, cc: str, host: LittleRegistry, what: str) -> None:
    assert cc
    one, two = ({"op": "pull", "reference": f"{host.host}/app:{tag}"} for tag in "12")
    archive = str(docker_archive(tmp_path / "archive.tar"))
    stories: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
        "a first pull": ([], one),
        "a pull beside another": ([one], two),
        "a load": ([one], {"op": "load", "path": archive}),
        "a collection": ([one, two], {"op": "prune", "all": True}),
        "a removal": ([one, two], {"op": "remove", "reference": two["reference"]}),
    }
    before, request = stories[what]
    with Strike.ready(tmp_path) as strike:
        place = Place(tmp_path, strike, before)
        place.learn()
        count, _ = place.struck(request, NEVER)
        place.learn()
        after = place.names()
        for at in sorted({1 + (count - 1) * n // max(1, POINTS - 1) for n in range(POINTS)}):
            blow = place.struck(request, at)
            place.check((at, blow))
            if place.names() != after or request["op"] != "remove":  # a removed image cannot be removed again
                place.do(request)
            else:
                place.do({"op": "prune"})
            place.check(("again", at, blow))
            assert place.names() == after and os.listdir(place.root / "ingest") == [], (at, blow)
            needed = {Path(layer).name for record in place.store.list() for layer in record.layers}
            assert set(os.listdir(place.root / "layers")) == needed, (at, blow)
