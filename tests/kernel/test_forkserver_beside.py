"""Other processes of the node that the forkserver forks: they are the daemon's children, and not like shims."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault
from runtime.network.client import NetworkClient
from runtime.shim.warm import forkserver_client
from runtime.shim.warm.forkserver_client import Forkserver
from tests.kernel.netlab import Lab, lab
from tests.waiting import until_async as until

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SAMPLE = """
import json, os, signal, socket, sys

def main(fd, greeting):
    with socket.socket(fileno=fd) as connection:
        connection.send(json.dumps({
            "greeting": greeting,
            "parent": os.getppid(),
            "cgroup": open("/proc/self/cgroup").read(),
            "oom": open("/proc/self/oom_score_adj").read(),
            "title": open("/proc/self/cmdline").read().rstrip(chr(0)),
            "comm": open("/proc/self/comm").read(),
            "fds": [int(n) for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")],
            "own": fd,
            "ignored": [n for n in (2, 15, 17) if signal.getsignal(n) != signal.SIG_DFL],
        }).encode())
        connection.recv(1)
    return 7
"""


def program(place: Path, module: str = "sample") -> dict[str, Any]:
    (place / "sample.py").write_text(SAMPLE)
    return {"module": module, "path": [str(place)], "title": "a-sample of mine", "arguments": [{"to": "you"}]}


async def ended(pid: int) -> int:
    """The exit code of a child."""
    return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1])


def test_it_is_as_if_the_daemon_had_started_it(tmp_path: Path) -> None:
    before = [Path(f"/proc/self/{name}").read_text() for name in ("cgroup", "oom_score_adj")]
    shims = f"/kubelite-test-{os.getpid()}/shims"

    async def story() -> None:
        forkserver = Forkserver(shim_cgroup=shims)
        await forkserver.start()
        try:
            await until(lambda: forkserver.spare)  # it is in the cgroup of the shims
            assert shims in Path(f"/proc/{forkserver.pid}/cgroup").read_text()
            ours, theirs = socket.socketpair()
            with ours, theirs:
                pid = await forkserver.fork(program(tmp_path), theirs)
                theirs.close()
                ours.settimeout(20)
                said = json.loads(await asyncio.to_thread(ours.recv, 1 << 16))
            assert said["greeting"] == {"to": "you"}
            assert said["parent"] == os.getpid()
            assert [said["cgroup"], said["oom"]] == before
            assert said["title"] == "a-sample of mine"
            assert said["comm"] == "a-sample\n"
            assert said["fds"] == [0, 1, 2, said["own"]]
            assert said["ignored"] == []
            assert await ended(pid) == 7
            os.kill(forkserver.pid, 0)  # which goes on
        finally:
            await forkserver.close()

    asyncio.run(story())
    open_cgroup(os.path.dirname(shims)).remove()


def test_a_program_that_cannot_start_ends_alone(tmp_path: Path) -> None:
    async def story() -> None:
        forkserver = Forkserver()
        await forkserver.start()
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                pid = await forkserver.fork(program(tmp_path, "no_such_module"), theirs)
                theirs.close()
                assert await asyncio.to_thread(ours.recv, 1) == b""
            assert await ended(pid) == 1
            os.kill(forkserver.pid, 0)
            os.kill(forkserver.pid, signal.SIGKILL)
        finally:
            await forkserver.close()

    asyncio.run(story())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        yield made


def names(pid: int) -> tuple[str, str]:
    return Path(f"/proc/{pid}/comm").read_text(), Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")


def test_the_network_helper_is_a_fork_and_so_is_the_next(world: Lab) -> None:
    async def scenario() -> None:
        forkserver = Forkserver()
        await forkserver.start()
        client = await NetworkClient.start(world.config(), forkserver.fork)
        try:
            first = client.helper_pid
            assert names(first) == ("kubelite-net\n", "kubelite-net runtime.network.helper")
            os.kill(first, signal.SIGKILL)
            assert await client.list() == []
            assert client.helper_pid != first
            assert names(client.helper_pid)[1] == "kubelite-net runtime.network.helper"
            pod = world.namespace()
            await client.add("pod", pod.path)
            assert await client.audit() == []
            await client.delete("pod")
            await client.teardown()
        finally:
            await client.close()
            await forkserver.close()

    world.play(scenario)


@pytest.mark.parametrize("dies", [False, True], ids=["cannot fork", "dies in its set-up"])
def test_a_helper_that_cannot_be_forked_is_an_interpreter_of_its_own(world: Lab, dies: bool) -> None:
    asked: list[int] = []

    async def fork(_program: dict[str, Any], _connection: socket.socket) -> int:
        asked.append(1)
        if not dies:
            raise RuntimeFault("the forkserver died", reason="ForkserverGone")
        return os.posix_spawn("/bin/true", ["true"], {})  # noqa: ASYNC221

    async def scenario() -> None:
        client = await NetworkClient.start(world.config(), fork)
        try:
            assert len(asked) == 1
            assert "runtime.network.helper" in names(client.helper_pid)[1]
            assert names(client.helper_pid)[1] != "kubelite-net runtime.network.helper"
            assert await client.list() == []
            await client.teardown()
        finally:
            await client.close()

    world.play(scenario)


def children() -> set[int]:
    """Also those that are zombies."""
    files = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in files for pid in file.read_text().split()}


def test_a_helper_that_is_forked_too_late_goes(
    world: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forkserver hangs, a helper is started by itself, and then the forkserver goes on and forks one as well."""

    async def scenario() -> None:
        before = children()
        forkserver = Forkserver()
        await forkserver.start()
        client = await NetworkClient.start(world.config(), forkserver.fork)
        try:
            os.kill(forkserver.pid, signal.SIGSTOP)
            os.kill(client.helper_pid, signal.SIGKILL)
            with monkeypatch.context() as patch:
                patch.setattr(forkserver_client, "_FORK_SECONDS", 0.5)
                assert await client.list() == []
            own = client.helper_pid
            os.kill(forkserver.pid, signal.SIGCONT)
            ours, theirs = socket.socketpair()
            with ours, theirs:  # once this is forked, the late one is
                marker = await forkserver.fork(program(tmp_path, "no_such_module"), theirs)
            assert await ended(marker) == 1
            await until(lambda: children() - before == {own, forkserver.pid})
            os.kill(own, signal.SIGKILL)
            async with asyncio.timeout(10):  # its end is noticed: nobody else has its end of the connection
                assert await client.list() == []
            await client.teardown()
        finally:
            await client.close()
            await forkserver.close()

    world.play(scenario)
