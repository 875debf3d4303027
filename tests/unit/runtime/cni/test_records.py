"""The records of attachments, and the turns of calls."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from runtime.cni.conflist import Network
from runtime.cni.exclusion import Exclusion
from runtime.cni.records import Record, Records
from runtime.cni.requests import Pod
from runtime.errors import NetworkError


def record(uid: str) -> Record:
    pod = Pod(uid, f"id-{uid}", "/proc/1/ns/net", "eth0", "default", uid, {})
    return Record(pod, Network("pods", ("1.1.0",), ({"type": "bridge"},)), "1.1.0", "4:1")


def test_a_record_that_cannot_be_read_now_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(str(tmp_path / "cni"))
    records.put(record("a"))
    assert records.get("a") == record("a") and records.get("b") is None

    def shortage(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("builtins.open", shortage)
    with pytest.raises(NetworkError, match="Too many open files"):
        records.get("a")
    assert records.all() == {} and records.uids() == ["a"]


def test_a_record_that_cannot_be_written_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(str(tmp_path / "cni"))

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NetworkError, match="No space left"):
        records.put(record("a"))
    assert not list((tmp_path / "cni").iterdir())


async def test_what_runs_alone_waits_for_others_and_holds_later_ones_back() -> None:
    calls, seen = Exclusion(), list[str]()
    end = {name: asyncio.Event() for name in ("first", "gc", "later")}

    async def beside(name: str) -> None:
        async with calls.beside():
            seen.append(name)
            await end[name].wait()

    async def alone() -> None:
        async with calls.alone():
            seen.append("gc")
            await end["gc"].wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for work in (beside("first"), alone(), beside("later")):
            group.create_task(work)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen == ["first"]
        end["first"].set()
        while "gc" not in seen:
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert seen == ["first", "gc"]
        end["gc"].set()
        end["later"].set()
    assert seen == ["first", "gc", "later"]


async def test_who_gives_up_waiting_to_be_alone_lets_others_go_on() -> None:
    calls = Exclusion()
    async with calls.beside():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), calls.alone():
                raise AssertionError("unreachable")
    async with asyncio.timeout(10), calls.beside(), calls.beside():
        pass
    async with asyncio.timeout(10), calls.alone():
        pass
