"""A shim's streams on a real kernel: exec, terminals, attach, stdin, logs and their rotation, a full disk, a flood."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import NotFoundError, StartError, StateError
from runtime.shim.client import ShimClient
from tests.kernel.shim_kit import Node, node
from tests.programs import BUSYBOX
from tests.waiting import until_async as until

__all__ = ["node"]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
]


def test_exec_with_pipes(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sleep", "100")
        session = await pod.exec(container, "sh", "-c", "cat; echo problem >&2; exit 4")
        os.write(session.stdin, b"through\n")
        os.close(session.stdin)
        session.stdin = -1
        assert await asyncio.to_thread(os.read, session.stdout, 100) == b"through\n"
        assert await asyncio.to_thread(os.read, session.stderr, 100) == b"problem\n"
        assert await pod.exec_exit(session.exec_id) == 4
        assert os.read(session.stdout, 100) == b""
        session.close()
        quiet = await pod.exec(container, "sh", "-c", "cat; echo done", stdin=False)
        assert quiet.stdin == -1
        assert await asyncio.to_thread(os.read, quiet.stdout, 100) == b"done\n"
        assert await pod.exec_exit(quiet.exec_id) == 0
        quiet.close()
        killed = await pod.exec(container, "sh", "-c", "kill -9 $$")
        assert await pod.exec_exit(killed.exec_id) == 137
        killed.close()
        with pytest.raises(StartError):
            await pod.exec(container, "nothing-here")

    node.run(story)


def test_exec_with_a_terminal(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sleep", "100")
        command = "stty size; tty; trap 'stty size; exit 6' WINCH; while :; do sleep 0.05; done"
        session = await pod.exec(container, "sh", "-c", command, tty=True, width=100, height=30)
        seen = b""
        while b"/dev/" not in seen or not seen.endswith(b"\n"):
            seen += await asyncio.to_thread(os.read, session.master, 100)
        assert seen == b"30 100\r\n/dev/pts/0\r\n"
        await asyncio.sleep(0.1)  # the trap is set
        await pod.client.resize(session.exec_id, 120, 40)
        assert await asyncio.to_thread(os.read, session.master, 100) == b"40 120\r\n"
        assert await pod.exec_exit(session.exec_id) == 6
        with pytest.raises(NotFoundError):
            await pod.client.resize(session.exec_id, 1, 1)
        session.close()

    node.run(story)


def test_ctrl_c_reaches_the_exec(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sleep", "100")
        session = await pod.exec(container, "sh", "-c", "echo up; exec sleep 100", tty=True)
        assert await asyncio.to_thread(os.read, session.master, 100) == b"up\r\n"
        os.write(session.master, b"\x03")
        assert await pod.exec_exit(session.exec_id) == 130
        session.close()

    node.run(story)


def test_a_client_that_leaves_hangs_up_its_terminal_and_nothing_else(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sleep", "100")
        other = await ShimClient.connect(pod.config.run_dir)
        subscribed, pod.client = pod.client, other
        session = await pod.exec(container, "sh", "-c", "echo up; sleep 100", tty=True)
        assert await asyncio.to_thread(os.read, session.master, 100) == b"up\r\n"
        session.close()
        other.close()
        pod.client = subscribed
        assert await pod.exec_exit(session.exec_id) == 128 + signal.SIGHUP
        assert (await pod.client.state()).containers[0]["status"] == "running"

    node.run(story)


@pytest.mark.parametrize("ends", [True, False])
def test_an_exec_without_a_terminal_ends_with_its_client_if_asked(node: Node, ends: bool) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sleep", "100")
        other = await ShimClient.connect(pod.config.run_dir)
        subscribed, pod.client = pod.client, other
        command = "trap '' HUP PIPE; echo up; sleep 1; exit 3"
        session = await pod.exec(container, "sh", "-c", command, stdin=False, ends_with_client=ends)
        assert await asyncio.to_thread(os.read, session.stdout, 100) == b"up\n"
        session.close()
        other.close()
        pod.client = subscribed
        assert await pod.exec_exit(session.exec_id) == (128 + signal.SIGKILL if ends else 3)

    node.run(story)


def test_container_with_a_terminal_and_attach(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start(
            "sh", "-c", "test -t 0 && test -t 1; echo tty=$?; read x; echo got $x", tty=True
        )
        await until(lambda: pod.log(container))
        (terminal,) = await pod.client.attach(container)
        os.write(terminal, b"input\n")
        os.close(terminal)
        assert (await pod.ended(container)).exit_code == 0
        assert [text for _, _, text in pod.log(container)] == ["tty=0", "input", "got input"]

    node.run(story)


def test_a_terminal_has_a_name_in_the_container_and_is_its_users(node: Node) -> None:
    """As in docker and containerd: the terminal is in the container's own devpts, or in the host's if it has none."""

    def without_devpts(spec: dict[str, Any]) -> None:
        spec["mounts"] = [m for m in spec["mounts"] if m["type"] != "devpts"]

    async def story(node: Node) -> None:
        pod = await node.pod()
        script = (
            "tty; stat -c %u $(tty); echo out > /dev/tty; echo err >&2; test -c /dev/console && echo console"
        )
        named = await pod.start("sh", "-c", script, tty=True, process={"user": {"uid": 7, "gid": 7}})
        assert (await pod.ended(named)).exit_code == 0
        assert [text for _, _, text in pod.log(named)] == ["/dev/pts/0", "7", "out", "err", "console"]
        unnamed = await pod.start(
            "sh", "-c", "test -t 0 && test -t 2; echo tty=$?", tty=True, change=without_devpts
        )
        assert (await pod.ended(unnamed)).exit_code == 0
        assert [text for _, _, text in pod.log(unnamed)] == ["tty=0"]

    node.run(story)


def test_stdin_pipe_and_attach(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start("sh", "-c", "read x; echo got $x", stdin=True)
        (stdin,) = await pod.client.attach(container)
        os.write(stdin, b"hello\n")
        os.close(stdin)
        await pod.ended(container)
        assert pod.log(container) == [("stdout", "F", "got hello")]
        without = await pod.start("sh", "-c", "cat; echo eof")
        assert await pod.client.attach(without) == []
        await pod.ended(without)
        assert pod.log(without) == [("stdout", "F", "eof")]

    node.run(story)


def test_stdio_belongs_to_the_containers_user(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        user = {"user": {"uid": 1234, "gid": 1234}}
        ended = await pod.run(
            "sh", "-c", "echo again > /proc/self/fd/1; echo err > /proc/self/fd/2", process=user
        )
        assert sorted(pod.log(ended.id)) == [("stderr", "F", "err"), ("stdout", "F", "again")]
        null = os.stat("/dev/null")
        assert (null.st_uid, null.st_gid) == (0, 0)

    node.run(story)


def test_children_have_default_signals(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        ended = await pod.run("sh", "-c", "exec cat /proc/self/status")
        masks = [t.split() for _, _, t in pod.log(ended.id) if t.startswith(("SigBlk", "SigIgn", "SigCgt"))]
        assert [int(mask, 16) for _, mask in masks] == [0, 0, 0]
        fds = await pod.run("ls", "/proc/self/fd")
        assert [t for _, _, t in pod.log(fds.id)] == ["0", "1", "2", "3"]  # 3: ls's own

    node.run(story)


def test_rotation_under_flood_loses_nothing(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        flood = await pod.start("seq", "1", "200000", log_max_bytes=500_000, log_max_files=100)
        quiet = await pod.start("sh", "-c", "while :; do echo tick; sleep 0.01; done")
        await pod.ended(flood)
        assert len(pod.log(quiet)) >= 1  # was not starved
        path = pod.log_path(flood)
        files = [*sorted(path.parent.glob("0.log.*")), path]
        assert len(files) > 10
        assert all(f.stat().st_size <= 500_000 for f in files)
        numbers = [line.rpartition(b" ")[2] for f in files for line in f.read_bytes().splitlines()]
        assert numbers == [b"%d" % n for n in range(1, 200_001)]
        await pod.client.rotate(quiet)
        await until(lambda: pod.log(quiet))
        assert len(list(pod.log_path(quiet).parent.glob("0.log.*"))) == 1
        with pytest.raises(StateError):
            await pod.client.rotate(flood)

    node.run(story)


def drained(pid: int) -> bool:
    """Whether all pipes of the process are empty, and it has dealt with what it read: it sleeps."""
    for entry in Path("/proc", str(pid), "fd").iterdir():
        if os.readlink(entry).startswith("pipe:"):
            pipe = os.open(entry, os.O_RDONLY | os.O_NONBLOCK)
            try:
                waiting = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
            finally:
                os.close(pipe)
            if any(waiting):
                return False
    return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_full_disk_does_not_hold_up_the_container(node: Node) -> None:
    """The log is on its own small tmpfs, which is first full and then has room again."""

    async def story(node: Node) -> None:
        pod = await node.pod()
        container = await pod.start(
            "sh",
            "-c",
            "seq 1 100000; touch /tmp/flooded; read x; echo after; seq 1 3",
            stdin=True,
            log_path=f"{small}/0.log",
            log_max_bytes=0,
        )
        (stdin,) = await pod.client.attach(container)
        await until(lambda: os.statvfs(small).f_bavail == 0)
        flooded = node.base / "bundles" / container / "upper/tmp/flooded"
        await until(lambda: flooded.exists() and drained(pod.record.pid), "the flood to be over")
        os.unlink(small / "ballast")
        os.write(stdin, b"go\n")
        os.close(stdin)
        assert (await pod.ended(container)).exit_code == 0
        lines = (small / "0.log").read_bytes().splitlines()
        assert all(line.split(b" ", 3)[2] in (b"F", b"P") for line in lines)
        assert any(b"log lines (" in line and b"No space left on device" in line for line in lines)
        assert [line.split(b" ", 3)[3] for line in lines[-4:]] == [b"after", b"1", b"2", b"3"]

    small = node.base / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=True)
    try:
        (small / "ballast").write_bytes(b"x" * 100_000)
        node.run(story)
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_flood_costs_neither_memory_nor_the_others_their_turn(node: Node) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        quiet = await pod.start("sh", "-c", "while :; do echo tick; sleep 0.01; done")
        await until(lambda: pod.log(quiet))

        def private() -> int:
            rollup = Path(f"/proc/{pod.record.pid}/smaps_rollup").read_text()
            return sum(
                int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_Dirty")
            )

        before, ticks = private(), len(pod.log(quiet))
        flood = await pod.start("sh", "-c", "yes | head -c 40000000", log_max_bytes=20 << 20)
        most, slowest, rounds = 0, 0.0, 0
        while not [e for e in pod.events if e.get("container", {}).get("id") == flood]:
            asked = time.monotonic()
            await pod.client.state()
            slowest = max(slowest, time.monotonic() - asked)
            most, rounds = max(most, private()), rounds + 1
            await asyncio.sleep(0.01)
        assert rounds > 5  # there was a flood to be seen
        assert most - before < 8_000
        assert slowest < 1.0
        assert len(pod.log(quiet)) > ticks + 3
        assert len(list(pod.log_path(flood).parent.iterdir())) == 5

    node.run(story)
