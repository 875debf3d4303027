"""The daemon's lifecycle, as far as it needs no root: an aborted start, and background tasks on a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kubelite.daemon import lifecycle, relist
from kubelite.kube.background import in_background
from kubelite.settings import Settings
from kubelite.telemetry.metrics.meters import Meters
from kubelite.telemetry.tracing import logs
from runtime.errors import RuntimeFault
from state.errors import StorageFailed
from tests.waiting import SECONDS, until_async


def test_a_signal_ends_a_waiting_start(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    @contextlib.asynccontextmanager
    async def never_ready(_settings: Settings) -> AsyncIterator[None]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
            yield
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second signal
            await asyncio.sleep(0.05)
            told.append("undone")

    monkeypatch.setattr(lifecycle, "node", never_ready)
    asyncio.run(asyncio.wait_for(lifecycle._serve(Settings.load({}, {})), 5))
    assert told == ["undone"]


def test_a_signal_ends_a_running_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def ready(_settings: Settings) -> AsyncIterator[None]:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        yield
        await asyncio.sleep(0)

    monkeypatch.setattr(lifecycle, "node", ready)
    asyncio.run(asyncio.wait_for(lifecycle._serve(Settings.load({}, {})), 5))


@pytest.mark.parametrize("ready", [True, False])
def test_a_node_that_a_bug_stops_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ready: bool
) -> None:
    async def fail() -> None:
        raise KeyError("metadata")

    @contextlib.asynccontextmanager
    async def failing(_settings: Settings) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            in_background(stack, fail, "services")
            if not ready:
                await asyncio.wait_for(asyncio.Event().wait(), SECONDS)
            yield

    monkeypatch.setattr(lifecycle, "node", failing)
    monkeypatch.setattr(logs, "set_up", lambda _level, _form: None)
    try:
        assert lifecycle.serve(Settings.load({}, {})) == 1
    finally:
        gc.enable()  # a node that does not become ready leaves it off
    assert "kubelite: services failed: 'metadata'" in capsys.readouterr().err


@pytest.mark.parametrize("lost", [(), ("root",), ("run",), ("root", "run")])
def test_a_second_daemon_is_refused_without_the_pid_files(tmp_path: Path, lost: tuple[str, ...]) -> None:
    directories = [str(tmp_path / name) for name in ("root", "run")]
    for directory in directories:
        os.mkdir(directory, 0o755)
    with lifecycle.locked(*directories):
        for name in lost:
            (tmp_path / name / "kubelite.pid").unlink()
        for directory in directories:
            message = rf"another kubelite \(pid {os.getpid()}\) already uses {directory}"
            with pytest.raises(lifecycle.StartupError, match=message), lifecycle.locked(directory):
                pass
            assert os.stat(directory).st_mode & 0o777 == 0o711, "nobody else can open and lock it"
            assert lifecycle.lock_holder(directory) == os.getpid()
    with lifecycle.locked(*directories):
        pass


class FakeAgent(SimpleNamespace):
    """The node as background tasks see it. `fail`: the errors that its next calls raise."""

    def __init__(self, tmp_path: Path, **more: Any) -> None:
        (tmp_path / "pods").mkdir()
        settings = SimpleNamespace(relist_seconds=0.01, root=str(tmp_path), run_dir=str(tmp_path))
        store = SimpleNamespace(
            list=lambda _kind: [],
            get_uid=lambda _uid: None,
            pods_with_containers=lambda: (),
            resource_version=1,
            forget_changes=lambda _version: None,
        )
        nothing: dict[str, Any] = {"fail": [], "done": [], "running": set(), "meters": Meters()}
        super().__init__(settings=settings, store=store, **nothing, **more)
        self.network = SimpleNamespace(repair=self.repair)
        self.events = SimpleNamespace(expire=lambda: self.call("expire"))
        self.sources = SimpleNamespace(complete=True, states=lambda: ["a file"])
        self.cri = SimpleNamespace(
            running_sandboxes=lambda: self.running,
            stop_sandbox=lambda uid: self.call(f"stop {uid}"),
            remove_pod=lambda uid: self.call(f"remove {uid}"),
            attach_lost=lambda: self.call("attach"),
            rewrite_records=lambda _uids: self.call("rewrite"),
        )

    async def repair(self, *, inside: int) -> SimpleNamespace:
        await self.call("repair")
        return SimpleNamespace(repaired=[], left=[], failures=[])

    async def call(self, what: str) -> list[str]:
        if self.fail:
            raise self.fail.pop()
        self.done.append(what)
        if what.startswith("remove "):
            self.running.discard(what.removeprefix("remove "))
        return []


async def test_a_full_disk_does_not_end_the_node(tmp_path: Path) -> None:
    agent = FakeAgent(tmp_path)
    agent.fail = [StorageFailed("full"), RuntimeFault("no nft")]
    task = asyncio.create_task(relist.relist(agent, SimpleNamespace(add=lambda _uid: None)))  # type: ignore[arg-type]
    async with asyncio.timeout(SECONDS):
        while "expire" not in agent.done:
            assert not task.done()
            await asyncio.sleep(0.01)
    task.cancel()


async def test_removal_of_orphans_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relist, "REMOVE_AGAIN", 0.01)
    agent = FakeAgent(tmp_path)
    agent.running, agent.fail = {"u1"}, [StorageFailed("full")]
    unclaimed = {"u1": ("default", "web")}
    task = asyncio.create_task(relist.remove_orphans(agent, unclaimed, first=False))  # type: ignore[arg-type]
    await until_async(lambda: agent.done == ["stop u1", "remove u1"])
    agent.running = {"u2"}
    await until_async(lambda: agent.done == ["stop u1", "remove u1", "stop u2", "remove u2"])
    task.cancel()
    assert unclaimed == {}, "nobody may claim a pod that is being removed"


async def test_without_any_record_an_empty_directory_removes_no_pod(tmp_path: Path) -> None:
    agent = FakeAgent(tmp_path)
    agent.running = {"u1"}
    agent.sources.states = list
    task = asyncio.create_task(relist.remove_orphans(agent, {"u1": ("default", "web")}, first=True))  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    assert not task.done() and agent.done == []
    task.cancel()


_BIG = """
import ctypes
from kubelite.daemon import lifecycle

class Heap(ctypes.Structure):  # struct mallinfo2, mallinfo(3)
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

ask = ctypes.CDLL(None).mallinfo2
ask.restype = Heap
if {given_back}:
    lifecycle._give_back()
once = bytes(8 << 20)
del once
before = ask().hblkhd
again = bytes(1 << 20)
print(ask().hblkhd - before >= 1 << 20)
"""


@pytest.mark.parametrize("given_back", [True, False])
def test_freed_large_blocks_return_to_the_kernel(given_back: bool) -> None:
    """Large blocks are mapped individually even after a larger one was freed, which glibc does not do by default."""
    code = _BIG.format(given_back=given_back)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{given_back}\n"
