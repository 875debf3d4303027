"""Tasks of the node: which errors pass, and which stop the node."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal

import pytest

from kubelite.kube import background
from kubelite.kube.errors import Forbidden, is_expected, is_shortage
from runtime.errors import NetworkError, StateError
from state.errors import NotFound, StorageFailed
from tests.waiting import SECONDS


def _from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


SHORTAGES = [
    *(OSError(number, "short") for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)),
    *(OSError(number, "disk") for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)),
    _from(StateError("no shim listens"), OSError(errno.EMFILE, "short")),
    StorageFailed("the disk is full"),
    MemoryError(),
]
EXPECTED = [
    Forbidden("exceeded quota", "spec"),
    NetworkError("no nft"),
    NotFound("gone"),
    OSError(errno.EINVAL, "no"),
]
BUGS = [KeyError("metadata"), AssertionError("never"), AttributeError("None")]


def outcome(error: Exception, monkeypatch: pytest.MonkeyPatch, **how: object) -> int:
    """Do work that fails twice, and return how often it was begun."""
    monkeypatch.setattr(background, "FIRST", 0.0)
    attempts = 0

    async def work() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise error

    asyncio.run(background.again(work, "work", **how))  # type: ignore[arg-type]
    return attempts


@pytest.mark.parametrize("error", SHORTAGES, ids=repr)
def test_every_task_begins_anew_after_a_shortage(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_shortage(error) and is_expected(error)
    assert outcome(error, monkeypatch) == 3


@pytest.mark.parametrize("error", EXPECTED, ids=repr)
def test_a_feature_begins_anew_after_what_others_refuse(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome(error, monkeypatch, passes=is_expected) == 3
    with pytest.raises(type(error)):
        outcome(error, monkeypatch)


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_a_bug_stops_the_node(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(error)):
        outcome(error, monkeypatch, passes=is_expected)


@pytest.mark.parametrize("error", [*SHORTAGES, *EXPECTED], ids=repr)
async def test_a_task_ends_although_its_cleanup_fails(error: Exception) -> None:
    began = asyncio.Event()

    async def work() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            raise error

    async with asyncio.timeout(SECONDS), contextlib.AsyncExitStack() as stack:
        background.in_background(stack, work, "work", passes=is_expected)
        await began.wait()


async def _stopped_by(error: Exception) -> None:
    """Run a task that fails within a task of the node, until the signal comes."""
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, signalled.set)

    async def fail() -> None:
        raise error

    async def outer() -> None:
        async with contextlib.AsyncExitStack() as inside:
            background.in_background(inside, fail, "inner", passes=is_expected)
            await asyncio.Event().wait()

    try:
        async with contextlib.AsyncExitStack() as stack:
            background.in_background(stack, outer, "outer")
            async with asyncio.timeout(SECONDS):
                await signalled.wait()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@pytest.mark.parametrize("error", BUGS, ids=repr)
async def test_the_failure_of_a_task_outlives_the_signal_that_it_sends(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(background.TaskFailed, match="outer failed: inner failed"):
        await _stopped_by(error)
    (said,) = (record for record in caplog.records if record.levelname == "CRITICAL")
    assert said.exc_info is not None and said.exc_info[1] is error, "once, with its traceback"


@pytest.mark.parametrize("error", [*SHORTAGES, *EXPECTED, FileNotFoundError(errno.ENOENT, "a bug")], ids=repr)
def test_an_error_that_may_come_from_a_bug_is_logged_with_its_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcome(error, monkeypatch, passes=is_expected)
    assert [record.exc_info is not None for record in caplog.records] == [not is_shortage(error)] * 2
