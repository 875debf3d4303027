"""Programs whose writes are recorded: `python -m tests.chaos.power_writer store|migration|manifests|images|…`.

After each step a mark records the current content, and whether a power cut may still undo it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubelite.node.storage.claims import provision
from kubelite.sources import edits
from runtime.images.client import ImageClient
from state import schema
from state.errors import AlreadyExists, NotFound
from state.store import ContainerRow, Store
from tests.chaos import newer
from tests.chaos.powercut import mark
from tests.chaos.small_images import tar_of
from tests.kernel.little_registry import little_registry
from tests.programs import PACKED_BUSYBOX

STEPS = 60
#: Size of an occasional large document, so that SQLite checkpoints its log several times.
LARGE = 400_000


def content(store: Store) -> dict[str, str]:
    """What a store holds: object or row → its newest version."""
    found = {
        f"{kind} {record.name}": str(record.doc["value"])
        for kind in ("Pod", "Event")
        for record in store.list(kind)
    }
    rows = [row for uid in store.pods_with_containers() for row in store.containers(uid)]
    return found | {f"row {row.id}": str(row.doc["value"]) for row in rows}


@dataclass(slots=True)
class _Hand:
    """Draws random steps."""

    store: Store
    rng: random.Random
    step: int = 0

    async def one(self) -> bool:
        """Do a step. Return whether it is on the disk now. A step that changes nothing writes nothing."""
        before = self.store.resource_version, content(self.store)
        return await self._one() and (self.store.resource_version, content(self.store)) != before

    async def _one(self) -> bool:
        durable = self.rng.random() < 0.6
        value = f"{self.step}:{'x' * (LARGE if self.rng.random() < 0.15 else self.rng.randrange(3000))}"
        uid = f"u{self.rng.randrange(8)}"
        kind, doc = "Pod", {"metadata": {"name": uid, "uid": uid}, "value": value}
        known = self.store.get_uid(uid) is not None
        match self.rng.randrange(5):
            case 0 if known:
                await self.store.delete(uid)
                return True
            case 1:
                row = ContainerRow(f"c-{uid}", uid, "main", self.step, "running", 0.0, {"value": value})
                await self.store.put_containers({row.id: row}, durable=durable)
            case 2:
                await self.store.forget_containers(uid, durable=durable)
            case _ if known:
                with contextlib.suppress(NotFound):  # a concurrent step removed it
                    await self.store.update(kind, doc, durable=durable)
            case _:
                with contextlib.suppress(AlreadyExists):
                    await self.store.create(kind, doc, durable=durable)
        return durable


async def write_store(directory: Path, seed: int) -> None:
    """Open the store, write, close, and repeat."""
    rng = random.Random(seed)
    hand = _Hand(None, rng)  # type: ignore[arg-type]
    for _ in range(2):
        hand.store = Store.open(str(directory / "state.db"))
        for _ in range(STEPS // 2):
            hand.step += 1
            if rng.random() < 0.2:  # several at once share a commit
                durable = all(await asyncio.gather(*(hand.one() for _ in range(3))))
                mark({"content": content(hand.store), "durable": durable, "together": True})
            else:
                durable = await hand.one()
                mark({"content": content(hand.store), "durable": durable, "together": False})
        await hand.store.close()
        mark({"content": content(hand.store), "durable": True, "together": False})


async def migrate_store(directory: Path, seed: int) -> None:
    """Write with this version, then open and write with a newer one."""
    hand = _Hand(Store.open(str(directory / "state.db")), random.Random(seed))
    for version in ("this", "newer"):
        if version == "newer":
            for name, value in newer.changes().items():
                setattr(schema, name, value)
            hand.store = Store.open(str(directory / "state.db"))
            mark({"content": content(hand.store), "durable": True, "together": False})
        for _ in range(6):
            hand.step += 1
            durable = await hand.one()
            mark({"content": content(hand.store), "durable": durable, "together": False})
        await hand.store.close()
        mark({"content": content(hand.store), "durable": True, "together": False})


def write_manifests(directory: Path) -> None:
    files: dict[str, str] = {}
    steps: list[dict[str, str | None]] = [
        {"a.yaml": "first\n" * 400},
        {"b.yaml": "second\n", "team/c.yaml": "third\n"},
        {"a.yaml": "fourth\n" * 300},
        {"b.yaml": None, "a.yaml": "fifth\n"},
        {"team/c.yaml": None},
    ]
    for step in steps:
        writes = {str(directory / name): text for name, text in step.items()}
        edits.execute(edits.Plan(writes, ()), str(directory))
        for name, text in step.items():
            files.pop(name, None)
            files |= {name: text} if text is not None else {}
        mark({"content": files})


async def write_images(directory: Path, archive: str) -> None:
    """Pack an image, load one, remove one."""
    client = ImageClient(str(directory / "images"))
    names: list[str] = []

    async def then(work: Any, now: list[str]) -> None:
        await work
        mark({"names": now})

    busybox = PACKED_BUSYBOX
    names.append("localhost/packed:1")
    await then(client.pack([busybox], names[0]), names)
    await then(client.load(archive), [*names, "localhost/loaded:1"])
    await then(client.remove(names[0]), ["localhost/loaded:1"])
    await client.close()


async def write_pulls(directory: Path) -> None:
    """Pull two images that share a layer; pull one again after its tag has moved; collect unnamed images, then all of
    them."""
    client = ImageClient(str(directory / "images"))
    base = {"etc/motd": b"hello" * 4000, "bin/tool": b"#!" * 50_000}
    shared, own = tar_of(base, links={"bin/other": "bin/tool"}), tar_of({"srv/data": bytes(range(256)) * 500})
    with little_registry() as registry:
        registry.add("1", [shared, own])
        registry.add("2", [shared, tar_of({"etc/motd": b"two"})])
        one, two = (f"{registry.host}/app:{tag}" for tag in "12")
        await client.pull(one)
        mark({"names": [one]})
        await client.pull(two)
        mark({"names": [one, two]})
        registry.add("1", [shared, tar_of({"srv/data": b"newer" * 20_000})])
        await client.pull(one)
        mark({"names": ["", one, two]})
        await client.prune()
        mark({"names": [one, two]})
        await client.prune(every=True)
        mark({"names": []})
    await client.close()


def write_claim(root: Path) -> None:
    """Create the claim of an ephemeral volume, and change its policy."""
    about = {"policy": "Delete", "size": 1 << 20, "owner": "the-pod"}
    for policy in ("Delete", "Retain"):
        provision(str(root / "default" / "data"), {**about, "policy": policy})
        mark(policy)


def main() -> None:
    what, *arguments, directory = sys.argv[1:]
    match what:
        case "store":
            asyncio.run(write_store(Path(directory), int(arguments[0])))
        case "migration":
            asyncio.run(migrate_store(Path(directory), int(arguments[0])))
        case "manifests":
            write_manifests(Path(directory))
        case "images":
            asyncio.run(write_images(Path(directory), arguments[0]))
        case "pulls":
            asyncio.run(write_pulls(Path(directory)))
        case "claim":
            write_claim(Path(directory))
        case _:
            raise SystemExit(json.dumps({"unknown": what}))


if __name__ == "__main__":
    main()
