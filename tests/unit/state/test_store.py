"""The store: reads from memory, awaited writes, the resourceVersion, watches, and durability."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from state.database import TOGETHER
from state.errors import AlreadyExists, Conflict, Expired, NotFound, StorageFailed
from state.store import ContainerRow, Store
from tests.unit.state.store_kit import commits_of
from tests.waiting import SECONDS


def pod(name: str, uid: str = "", **spec: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid or f"uid-{name}"},
        "spec": spec,
    }


def row(identity: str, uid: str, attempt: int = 0) -> ContainerRow:
    return ContainerRow(identity, uid, "main", attempt, "running", 1.0, {"id": identity})


async def test_create_get_update_delete(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    created = await store.create("Pod", pod("web", image="a"))
    assert created.doc["metadata"]["resourceVersion"] == str(created.resource_version) == "1"
    with pytest.raises(AlreadyExists):
        await store.create("Pod", pod("web", uid="another"))
    changed = await store.update("Pod", pod("web", image="b"), expect=1)
    assert changed.resource_version == 2
    assert changed.uid == "uid-web"
    with pytest.raises(Conflict):
        await store.update("Pod", pod("web", image="c"), expect=1)
    assert (await store.update("Pod", pod("web", image="b"))).resource_version == 2, "no change, no write"
    assert (await store.update_status("uid-web", {"phase": "Running"})).doc["status"] == {"phase": "Running"}  # type: ignore[union-attr]
    await store.delete("uid-web")
    assert store.get("Pod", "default", "web") is None
    assert await store.delete("uid-web") is None
    with pytest.raises(NotFound):
        await store.update("Pod", pod("web"))
    await store.close()


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    store = Store.open(path)
    await store.create("Pod", pod("web"))
    await store.create("Pod", pod("gone"))
    await store.delete("uid-gone")
    await store.put_containers({"c1": row("c1", "uid-web"), "c2": row("c2", "uid-web", 1)})
    await store.put_containers({"c1": None})
    await store.close()
    again = Store.open(path)
    assert [r.name for r in again.list("Pod")] == ["web"]
    assert [c.id for c in again.containers("uid-web")] == ["c2"]
    assert again.resource_version == 3, "a deletion counts, also after a restart"
    await again.close()


async def test_objects_that_are_read_share_their_keys(tmp_path: Path) -> None:
    """Beyond the number that is decoded together, too, as far as it goes."""
    path = str(tmp_path / "state.db")
    store = Store.open(path)
    count = TOGETHER + 3
    await asyncio.gather(*(store.create("Pod", pod(f"p{i:04}", terminationGrace=i)) for i in range(count)))
    await store.close()
    again = Store.open(path)
    found = [record.doc["spec"] for record in again.list("Pod")]
    assert [spec["terminationGrace"] for spec in found] == list(range(count))
    assert len({id(key) for spec in found for key in spec}) <= 2
    await again.close()


@pytest.mark.parametrize("damage", ["{", "{},{}", "", "null]"])
async def test_one_document_that_is_not_json_sets_the_file_aside(tmp_path: Path, damage: str) -> None:
    path = str(tmp_path / "state.db")
    store = Store.open(path)
    await asyncio.gather(*(store.create("Pod", pod(f"p{i}")) for i in range(3)))
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE objects SET doc = ? WHERE name = 'p1'", (damage,))
        connection.commit()
    again = Store.open(path)
    assert again.set_aside and again.list("Pod") == []
    await again.close()


async def test_names_and_uids_can_be_reused_in_one_commit(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    store = Store.open(path)
    await store.create("Pod", pod("a", uid="first"))
    await store.create("Pod", pod("b", uid="second"))
    await asyncio.gather(
        store.delete("first"),
        store.create("Pod", pod("a", uid="third")),  # another object with the name
        store.delete("second"),
        store.create("ConfigMap", pod("c", uid="second")),  # another name and kind with the uid
    )
    for look in range(2):
        assert [(r.name, r.uid) for r in store.list("Pod")] == [("a", "third")], look
        assert [(r.name, r.uid) for r in store.list("ConfigMap")] == [("c", "second")], look
        await store.close()
        store = Store.open(path)
    await store.close()


async def test_a_burst_shares_commits_and_keeps_order(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    commits = commits_of(store)
    results = await asyncio.gather(*(store.create("Pod", pod(f"p{i}")) for i in range(200)))
    assert [r.resource_version for r in results] == list(range(1, 201))
    assert len(commits) <= 3
    clash = await asyncio.gather(
        *(store.create("Pod", pod("same", uid=f"u{i}")) for i in range(5)), return_exceptions=True
    )
    assert sum(isinstance(r, AlreadyExists) for r in clash) == 4
    await store.close()


async def test_watch_from_now_and_from_a_version(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    first = await store.create("Pod", pod("a"))
    async with store.watch("Pod") as live, store.watch(since=first.resource_version) as resumed:
        await store.create("ConfigMap", {"metadata": {"name": "c", "namespace": "default", "uid": "c"}})
        await store.update("Pod", pod("a", image="x"))
        await store.delete("uid-a")
        assert [(await live.next(1)).type for _ in range(2)] == ["MODIFIED", "DELETED"]  # type: ignore[union-attr]
        assert [(await resumed.next(1)).record.kind for _ in range(3)] == ["ConfigMap", "Pod", "Pod"]  # type: ignore[union-attr]
        assert await live.next(0.01) is None
    with store_history_cut(store), pytest.raises(Expired):
        store.watch(since=1)
    await store.close()


async def test_a_watch_of_several_kinds_gives_what_is_published_at_once(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    watch = store.watch(("Pod", "Secret"))
    for kind in ("Pod", "ConfigMap", "Secret"):
        await store.create(kind, {"metadata": {"name": "web", "uid": kind}})
    assert [change.record.kind for change in watch.take()] == ["Pod", "Secret"]
    assert watch.take() == []
    watch.close()
    assert watch.take() == [] and [change async for change in watch] == []
    await store.close()


async def test_a_watcher_that_does_not_read_is_disconnected(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    slow, own = store.watch("Pod", limit=2), store.watch("Pod")
    for number in range(2):
        await store.create("Pod", pod(f"p{number}"))
    assert (await slow.next(1)).record.name == "p0"  # type: ignore[union-attr]
    for number in range(2, 5):
        await store.create("Pod", pod(f"p{number}"))
    with pytest.raises(Expired, match="too many changes"):
        await slow.next(1)
    assert [(await own.next(1)).record.name for _ in range(5)] == [f"p{number}" for number in range(5)]  # type: ignore[union-attr]
    own.close()
    assert not store._watches, "nothing is kept for it any more"
    slow.close()
    await store.close()


class store_history_cut:
    def __init__(self, store: Store) -> None:
        self.store = store

    def __enter__(self) -> None:
        self.store._history.popleft()
        self.store._history.popleft()

    def __exit__(self, *_: object) -> None: ...


async def test_a_list_is_consistent_during_writes(tmp_path: Path) -> None:
    """Other threads read, too (metrics)."""
    store = Store.open(str(tmp_path / "state.db"))
    record = await store.create("Pod", pod("a"))

    class Sly:
        @property
        def namespace(self) -> str:
            store._kinds["Pod"]["more"] = record
            return "other"

    store._kinds["Pod"]["sly"] = Sly()  # type: ignore[assignment]
    assert store.list("Pod", "default") == [record]
    assert len(store._kinds["Pod"]) == 3
    await store.close()


async def test_modify_sees_the_newest_document(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    await store.create("Pod", pod("n", count=0))

    def more(doc: dict[str, Any]) -> dict[str, Any]:
        return {**doc, "spec": {"count": doc["spec"]["count"] + 1}}

    await asyncio.gather(*(store.modify("uid-n", more) for _ in range(50)))
    assert store.get_uid("uid-n").doc["spec"]["count"] == 50  # type: ignore[union-attr]
    assert await store.modify("nobody", more) is None
    await store.close()


async def test_changes_can_be_forgotten_up_to_a_version(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    for name in "abc":
        await store.create("Pod", pod(name))
    store.forget_changes(2)
    with pytest.raises(Expired, match=r"too old resource version: 1 \(2\)"):
        store.watch("Pod", since=1)
    async with store.watch("Pod", since=2) as watch:
        assert [change.record.name for change in watch.take()] == ["c"]
    store.forget_changes(3)
    with pytest.raises(Expired):
        store.watch("Pod", since=2)
    async with store.watch("Pod", since=3) as watch:
        await store.create("Pod", pod("d"))
        assert [change.record.name for change in watch.take()] == ["d"]
    assert [record.name for record in store.list("Pod")] == ["a", "b", "c", "d"]
    await store.close()


async def test_several_objects_are_changed_together_or_not_at_all(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    for name in "ab":
        await store.create("Pod", pod(name, count=0))

    def more(doc: dict[str, Any]) -> dict[str, Any]:
        return {**doc, "spec": {"count": doc["spec"]["count"] + 1}}

    def fail(_doc: dict[str, Any]) -> None:
        raise Conflict("changed meanwhile")

    def counts() -> list[int]:
        return [record.doc["spec"]["count"] for record in store.list("Pod")]

    async with store.watch("Pod") as watch:
        await store.modify_all([("uid-a", more), ("uid-b", more), ("uid-a", more)])
        assert [change.record.name for change in watch.take()] == ["a", "b"], "each once"
        assert counts() == [2, 1]
        with pytest.raises(Conflict):
            await store.modify_all([("uid-a", more), ("uid-b", fail)])
        with pytest.raises(NotFound):
            await store.modify_all([("uid-a", more), ("nobody", more)])
        await store.modify_all([("uid-a", lambda _doc: None)])
        assert watch.take() == [] and counts() == [2, 1]
    await store.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "overwritten"])
async def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    store = Store.open(str(path))
    for i in range(50):
        await store.create("Pod", pod(f"p{i}", text="x" * 400))
    await store.close()
    data = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"not a database at all" * 100)
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data[:4096] + os.urandom(8192) + data[12288:])
    again = Store.open(str(path))
    assert again.set_aside.startswith(f"{path}.damaged-")
    assert Path(again.set_aside).exists()
    assert again.list("Pod") == []
    await again.create("Pod", pod("new"))
    await again.close()


async def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    await store.create("Pod", pod("a"))
    while store._database.reserve.release():
        pass
    connection = store._database.connection
    assert connection is not None
    driver = connection.connection.driver_connection
    assert driver is not None
    (limit,) = driver.execute("PRAGMA page_count").fetchone()
    driver.execute(f"PRAGMA max_page_count={limit}")
    with pytest.raises(StorageFailed, match="full"):
        await store.create("Pod", pod("big", text="x" * 100_000))
    assert store.get("Pod", "default", "big") is None
    assert store.resource_version == 1
    assert (await store.create("Pod", pod("big", text="x" * 100_000))).resource_version == 2
    await store.close()


def test_a_full_disk_at_the_start_damages_nothing(tmp_path: Path) -> None:
    async def fill() -> None:
        store = Store.open(str(tmp_path / "state.db"))
        await store.create("Pod", pod("a"))
        await store.close()

    asyncio.run(fill())
    program = f"""
import resource, signal
from state.errors import StorageFailed
from state.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    Store.open({str(tmp_path / "state.db")!r})
except StorageFailed:
    print("refused")
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "refused\n"
    store = Store.open(str(tmp_path / "state.db"))
    assert [record.name for record in store.list("Pod")] == ["a"]
    asyncio.run(store.close())


async def test_an_unstorable_object_fails_only_its_caller(tmp_path: Path) -> None:
    """A name that is not UTF-8 (os.fsdecode of a file name)."""
    store = Store.open(str(tmp_path / "state.db"))
    bad = store.create("Event", pod("a\udcff", "uid-bad"))
    async with asyncio.timeout(SECONDS):
        results = await asyncio.gather(
            store.create("Pod", pod("a")), bad, store.create("Pod", pod("b")), return_exceptions=True
        )
    assert [type(result).__name__ for result in results] == ["Record", "StorageFailed", "Record"]
    assert [record.name for record in store.list("Pod")] == ["a", "b"] and store.list("Event") == []
    await store.close()


async def test_the_file_is_private(tmp_path: Path) -> None:
    """The file contains Secrets."""
    path = tmp_path / "state.db"
    path.touch(mode=0o644)
    path.chmod(0o644)  # as an older version left it
    store = Store.open(str(path))
    await store.create("Secret", pod("a"))
    assert {name: oct(os.stat(tmp_path / name).st_mode & 0o777) for name in os.listdir(tmp_path)} == {
        "state.db": "0o600",
        "state.db.reserve": "0o600",
        "state.db-wal": "0o600",
        "state.db-shm": "0o600",
    }
    await store.close()


async def test_writes_that_need_not_be_durable_or_prompt_are_batched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    batches: list[tuple[int, int, int]] = []  # changes, rows, PRAGMA synchronous
    commit = store._commit

    def spy(batch: Any) -> None:
        commit(batch)
        assert store._database.connection is not None
        driver = store._database.connection.connection.driver_connection
        assert driver is not None
        (level,) = driver.execute("PRAGMA synchronous").fetchone()
        batches.append((len(batch.changes), len(batch.containers), level))

    monkeypatch.setattr(store, "_commit", spy)
    await store.create("Pod", pod("a"), durable=False)
    slow = asyncio.create_task(store.put_containers({"c1": row("c1", "uid-a")}, durable=False, delay=30))
    await asyncio.sleep(0)
    await store.update_status("uid-a", {"phase": "Running"})
    await asyncio.wait_for(slow, 1)
    await store.create("Pod", pod("b"), durable=False, delay=0.001)
    assert batches == [(1, 0, 1), (1, 1, 2), (1, 0, 1)]
    await asyncio.gather(store.sync(), store.sync())
    assert batches[3:] == [(0, 0, 2)], "the disk is waited for, once"
    await store.sync()
    assert len(batches) == 4, "nothing since then"
    last = asyncio.create_task(store.create("Pod", pod("c"), delay=30))
    await asyncio.sleep(0)
    await store.close()
    assert last.done() and store.get("Pod", "default", "c")


async def test_forgotten_containers_include_unwritten_rows(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    await store.put_containers({"c1": row("c1", "uid-a"), "d1": row("d1", "uid-b")})
    late = asyncio.create_task(store.put_containers({"c2": row("c2", "uid-a")}, delay=30))
    await asyncio.sleep(0)
    await store.forget_containers("uid-a")
    await late
    await store.close()
    again = Store.open(str(tmp_path / "state.db"))
    assert again.pods_with_containers() == ("uid-b",)
    await again.close()


async def test_a_write_that_lacked_memory_fails_and_the_next_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_arguments: object) -> None:
        raise MemoryError

    store = Store.open(str(tmp_path / "state.db"))
    with monkeypatch.context() as shortage:
        shortage.setattr("state.store.Batch", short)
        with pytest.raises(StorageFailed, match="not enough memory"):
            await asyncio.wait_for(store.put_containers({"c1": row("c1", "uid-a")}), 10)
    await store.put_containers({"c2": row("c2", "uid-a")})
    assert [one.id for one in store.containers("uid-a")] == ["c2"]
    await store.close()


def test_an_unusable_path_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="cannot open the state file"):
        Store.open(str(tmp_path / "missing" / "state.db"))


KILLED = """
import asyncio, os, signal, sys
from state.store import Store
from tests.waiting import SECONDS
async def main():
    store = Store.open(sys.argv[1])
    for i in range(10_000):
        await store.create("Pod", {"metadata": {"name": f"p{i}", "namespace": "d", "uid": f"u{i}"}})
        print(i, flush=True)
asyncio.run(main())
"""


def test_acknowledged_writes_survive_kill_9(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    ) as child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(40)]
        child.kill()
        acknowledged += [int(line) for line in child.stdout.read().split("\n") if line.strip()]
    store = Store.open(path)
    names = {r.name for r in store.list("Pod")}
    assert {f"p{i}" for i in acknowledged} <= names
    assert store.set_aside == ""


def test_a_newer_file_opens(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    Store.open(path)
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version=99")
    raw.execute("ALTER TABLE objects ADD COLUMN later TEXT DEFAULT ''")
    raw.commit()
    raw.close()
    assert Store.open(path).list("Pod") == []
