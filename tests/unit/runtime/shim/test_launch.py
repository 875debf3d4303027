"""A container is created and started in one go: what is on the wire, and what is left of it where either goes wrong."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.errors import NotFoundError, RuntimeFault, SpecError, StartError
from runtime.shim.client import ShimClient, ShimGone
from runtime.shim.protocol import MAX_PACKET, CreateContainer
from tests.waiting import until_async as until

REQUEST = CreateContainer("c1", "main", 0, "/bundle", None, "")
RECORD = {"id": "c1", "name": "main", "attempt": 0, "status": "running"}
CREATED = {"container": {**RECORD, "status": "created"}, "times": "a"}
STARTED = {"container": RECORD, "times": "b"}


class Line:
    """A client, and the other end of its socket in the test's hand."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs.setblocking(False)
        self.client = ShimClient("/none", ours, None, None)
        self.unhandled: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: self.unhandled.append(what))

    def asked(self) -> list[tuple[int, str]]:
        """Number and operation of every request that has arrived and was not read yet."""
        found: list[tuple[int, str]] = []
        while True:
            try:
                packet = json.loads(self.theirs.recv(MAX_PACKET))
            except BlockingIOError:
                return found
            found.append((packet["id"], packet["op"]))

    def say(self, number: int, ok: dict[str, Any]) -> None:
        self.theirs.send(json.dumps({"id": number, "ok": ok}).encode())

    def refuse(self, number: int, reason: str) -> None:
        error = {"reason": reason, "message": "no", "retriable": False}
        self.theirs.send(json.dumps({"id": number, "error": error}).encode())

    async def launch(self) -> Any:
        with self.client.launch(REQUEST) as launch:
            times = await launch.created()
            return times, *await launch.started()

    async def works(self) -> None:
        """The connection is as good as before."""
        state = asyncio.ensure_future(self.client.call("state"))
        await asyncio.sleep(0)
        [(number, operation)] = self.asked()
        assert operation == "state"
        self.say(number, {"sandbox": {}})
        assert await state == {"sandbox": {}}


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    found = Line()
    yield found
    found.client.close()
    found.theirs.close()
    gc.collect()
    await asyncio.sleep(0)
    assert found.unhandled == []


async def test_start_is_sent_before_create_is_answered(line: Line) -> None:
    launched = asyncio.ensure_future(line.launch())
    await asyncio.sleep(0)
    assert line.asked() == [(1, "create"), (2, "start")]
    line.say(1, CREATED)
    line.say(2, STARTED)
    times, record, more = await launched
    assert (times, record.id, record.status, more) == ("a", "c1", "running", "b")


async def test_if_create_fails_the_refused_start_is_ignored(line: Line) -> None:
    launched = asyncio.ensure_future(line.launch())
    await asyncio.sleep(0)
    line.refuse(1, "InvalidSpec")
    with pytest.raises(SpecError):
        await launched
    assert line.asked() == [(1, "create"), (2, "start")]
    line.refuse(2, "NotFound")
    await line.works()


async def test_both_refusals_at_once_are_one_error(line: Line) -> None:
    launched = asyncio.ensure_future(line.launch())
    await asyncio.sleep(0)
    line.asked()
    line.refuse(1, "StartError")
    line.refuse(2, "InvalidState")
    with pytest.raises(StartError):
        await launched
    await line.works()


async def test_a_failed_start_has_its_reason(line: Line) -> None:
    launched = asyncio.ensure_future(line.launch())
    await asyncio.sleep(0)
    line.asked()
    line.say(1, CREATED)
    line.refuse(2, "NotFound")
    with pytest.raises(NotFoundError):
        await launched
    await line.works()


async def test_a_shim_that_hangs_up_ends_both(line: Line) -> None:
    launched = asyncio.ensure_future(line.launch())
    await asyncio.sleep(0)
    line.theirs.close()
    with pytest.raises(ShimGone):
        await launched
    with pytest.raises(ShimGone), line.client.launch(REQUEST):
        raise AssertionError("there is nobody to ask")


async def test_a_cancelled_launch_waits_for_neither(line: Line) -> None:
    launched = asyncio.ensure_future(line.launch())
    await asyncio.sleep(0)
    assert line.asked() == [(1, "create"), (2, "start")]
    launched.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launched
    line.say(1, CREATED)
    line.say(2, STARTED)
    await line.works()


async def test_an_oversized_request_starts_nothing(line: Line) -> None:
    big = CreateContainer("c1", "main", 0, "/bundle", None, "", labels={"a": "x" * MAX_PACKET})
    with pytest.raises(SpecError), line.client.launch(big):
        raise AssertionError("it was not sent")
    await line.works()


async def test_received_descriptors_are_closed_once(line: Line) -> None:
    before = set(os.listdir("/proc/self/fd"))
    launched = asyncio.ensure_future(line.launch())
    await asyncio.sleep(0)
    line.asked()
    socket.send_fds(line.theirs, [json.dumps({"id": 1, "ok": CREATED}).encode()], [0])
    error = {"reason": "NotFound", "message": "no", "retriable": False}
    socket.send_fds(line.theirs, [json.dumps({"id": 2, "error": error}).encode()], [0])
    with pytest.raises(RuntimeFault):
        await launched
    await until(lambda: set(os.listdir("/proc/self/fd")) == before)
