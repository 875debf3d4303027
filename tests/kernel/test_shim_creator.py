"""The child of a shim that creates a container: what it takes is given back, and its death leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runtime.errors import SpecError, StartError, StateError
from runtime.shim.client import ShimGone, reap_dead
from runtime.shim.warm.immortal import supported
from tests.kernel.shim_kit import Node, Pod, node
from tests.programs import BUSYBOX
from tests.waiting import until_async as until

__all__ = ["node"]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
]

# KiB that the first container may add to a shim: 150 when this was written, 600 when the shim created it itself.
GROWTH = 300


def private_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_(?:Dirty|Clean): +(\d+)", text, re.MULTILINE))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waits_in_hook(spec: dict[str, Any]) -> None:
    """Creating it lasts until its hook is killed."""
    spec["hooks"] = {"createRuntime": [{"path": BUSYBOX, "args": ["sleep", "1000"]}]}


class Creating(NamedTuple):
    """A container that is being created: pids of the child that creates it, of its hook and of the container's init."""

    maker: int
    hook: int
    init: int
    answer: asyncio.Future[str]

    @classmethod
    async def begin(cls, pod: Pod) -> Creating:
        answer = asyncio.ensure_future(pod.client.create(pod.request("true", change=waits_in_hook)))

        def found() -> Creating | None:
            ours = children(pod.record.pid)
            hooks = {maker: hook for maker in ours for hook in children(maker) if b"sleep" in words(hook)}
            inits = [pid for pid in ours if pid not in hooks]
            return cls(*next(iter(hooks.items())), inits[0], answer) if hooks and inits else None

        made: Creating = await until(found, "the hook")
        return made

    async def ended(self) -> None:
        """Nothing kills a hook whose runtime has died."""
        os.kill(self.hook, signal.SIGKILL)
        pids = (self.maker, self.hook, self.init)
        await until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def words(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


@pytest.mark.skipif(not supported(), reason="immortal objects came with Python 3.12")
def test_what_creating_takes_is_given_back(node: Node) -> None:
    async def story(node: Node) -> None:
        await node.pod()  # the next shim is a spare, forked after the rehearsal
        await until(lambda: node.forkserver.spare)
        pod = await node.pod()
        before = private_kib(pod.record.pid)
        await pod.start("sleep", "1000")
        await until(lambda: len(children(pod.record.pid)) == 1)
        grown = private_kib(pod.record.pid) - before
        assert grown < GROWTH, f"{grown} KiB"

    node.run(story)


def test_the_init_is_the_shims_child_and_dies_with_it(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        await pod.start("sleep", "1000")
        await until(lambda: len(children(pod.record.pid)) == 1)
        (init,) = children(pod.record.pid)
        assert words(init)[:2] == [b"sleep", b"1000"]
        os.kill(pod.record.pid, signal.SIGKILL)
        await until(lambda: not os.path.exists(f"/proc/{init}"))
        await reap_dead(pod.config.run_dir)

    node.run(story)


def test_a_killed_child_leaves_nothing(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        now = await Creating.begin(pod)
        os.kill(now.maker, signal.SIGKILL)
        with pytest.raises(StateError, match="the process that creates it was killed"):
            await now.answer
        await now.ended()
        assert not [path for path in node.cgroups() if not path.endswith(f"pod{pod.config.uid}")]
        assert (await pod.run("sh", "-c", "exit 5")).exit_code == 5  # the sandbox goes on

    node.run(story)


def test_a_shim_that_dies_takes_the_child_and_the_init_with_it(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        now = await Creating.begin(pod)
        os.kill(pod.record.pid, signal.SIGKILL)
        with pytest.raises(ShimGone):
            await now.answer
        await now.ended()
        await reap_dead(pod.config.run_dir)

    node.run(story)


def test_errors_come_back_as_they_were(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        with pytest.raises(SpecError, match=r"process\.cwd"):
            await pod.create("true", process={"cwd": "not/absolute"})
        with pytest.raises(SpecError, match=r"linux\.cgroupsPath is missing"):
            await pod.create("true", change=lambda spec: spec["linux"].pop("cgroupsPath"))
        with pytest.raises(SpecError, match=r"config\.json cannot be read: No such file"):
            request = pod.request("true")
            os.unlink(f"{request.bundle}/config.json")
            await pod.client.create(request)
        await until(lambda: children(pod.record.pid) == [])

    node.run(story)


@pytest.mark.parametrize("length", [140_000, 250_000], ids=["above the packet", "above the socket's buffer"])
def test_a_program_with_a_very_long_name_leaves_nothing(node: Node, length: int) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        descriptors = f"/proc/{pod.record.pid}/fd"
        before = len(os.listdir(descriptors))
        container = await pod.create("x" * length)
        with pytest.raises(StartError, match="executable file not found"):
            await pod.client.start(container)
        await pod.client.delete(container)
        await until(lambda: children(pod.record.pid) == [])
        assert len(os.listdir(descriptors)) == before
        with pytest.raises(SpecError, match="cwd"):
            await pod.create("true", process={"cwd": "x" * length})

    node.run(story)


def test_an_exec_gets_what_config_json_says(node: Node) -> None:
    """The shim keeps nothing of config.json. It reads it again for the first exec."""

    def confined(spec: dict[str, Any]) -> None:
        spec["process"]["noNewPrivileges"] = True
        spec["process"]["capabilities"] = {"bounding": ["CAP_CHOWN"], "effective": [], "permitted": []}
        denied = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
        spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied]}

    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sleep", "1000", change=confined)
        script = "grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/self/status"
        for _ in range(2):
            session = await pod.exec(container, "busybox", "sh", "-c", script)
            with os.fdopen(os.dup(session.stdout), "rb") as file:
                assert await pod.exec_exit(session.exec_id) == 0
                said = dict(line.split(b":\t") for line in file.read().splitlines())
            assert said == {b"NoNewPrivs": b"1", b"Seccomp": b"2", b"CapBnd": b"0000000000000001"}

    node.run(story)
