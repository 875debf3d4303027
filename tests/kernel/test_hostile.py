"""Containers that attack the machine, their runtime, or the processes that clean up after them."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubelite.api.kube import logfiles
from kubelite.daemon import lifecycle
from kubelite.node.cri import pod_files
from kubelite.node.worker import netfiles_disk, termination
from runtime.errors import RuntimeFault, StartError
from runtime.images.store import content
from runtime.oci import execve_arguments, init_steps
from runtime.shim.logs import LogFile
from tests.kernel.conftest import Engine
from tests.kernel.shim_kit import Node
from tests.waiting import cgroup_places, remove_cgroup
from tests.waiting import until_async as until

pytestmark = pytest.mark.kernel

NULL = os.makedev(1, 3)


@pytest.fixture
def null_mode() -> Iterator[int]:
    """The mode of the machine's /dev/null, which is restored afterwards (tests set the execute bits, which have no
    effect)."""
    mode = stat.S_IMODE(os.stat("/dev/null").st_mode)
    yield mode
    os.chmod("/dev/null", mode)


# --- the machine's own files ---


def test_the_hosts_null_device_is_not_reachable_through_stdin(oci: Engine, null_mode: int) -> None:
    script = "chmod 777 /proc/self/fd/0; stat -L -c %t:%T /proc/self/fd/0; readlink /proc/self/fd/0; cat"
    result = oci.sh(script)
    assert result.out == "1:3\n/dev/null\n"
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) == null_mode


def test_the_hosts_null_device_is_not_reachable_in_an_exec(oci: Engine, null_mode: int) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    assert oci.exec(container, "chmod", "777", "/proc/self/fd/0").code == 0
    assert oci.exec(container, "readlink", "/proc/self/fd/0").out == "/dev/null\n"
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) == null_mode
    container.kill(9)


@pytest.mark.parametrize(
    "fake", ["rm /dev/null", "rm /dev/null; busybox mkfifo /dev/null", "ln -sf /proc/1/fd/1 /dev/null"]
)
def test_an_exec_with_another_file_at_dev_null(oci: Engine, null_mode: int, fake: str) -> None:
    container = oci.start(oci.spec("sh", "-c", f"{fake}; exec sleep 60"))
    while b"sleep" not in Path(f"/proc/{container.pid}/cmdline").read_bytes():
        time.sleep(0.001)
    assert oci.exec(container, "sh", "-c", "chmod 777 /proc/self/fd/0; cat; echo end").out == "end\n"
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) == null_mode
    container.kill(9)


def test_the_hosts_null_device_is_not_reachable_through_masks(oci: Engine, null_mode: int) -> None:
    hidden = ["/proc/version", "/proc/uptime"]
    spec = oci.spec(
        "sh", "-c", f"chmod 777 {hidden[0]}; chmod 777 {hidden[1]}; cat {hidden[0]}; echo x > {hidden[1]}"
    )
    spec["linux"]["maskedPaths"] = hidden
    result = oci.run(spec)
    assert result.out == ""
    assert result.err.count("Read-only file system") == 2
    assert result.code == 0
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) == null_mode


def test_the_daemon_reads_no_more_of_etc_hosts_than_it_wrote(tmp_path: Path) -> None:
    """A container may write anything into its /etc/hosts and make it as large as a sparse file can be."""
    path = tmp_path / "etc-hosts"
    netfiles_disk._rewrite(str(path), "127.0.0.1 localhost\n")
    with open(path, "r+b") as file:
        file.write(b"\xff\xfe")
        file.truncate(1 << 40)
    netfiles_disk._rewrite(str(path), "127.0.0.1 localhost\n")
    assert path.read_text() == "127.0.0.1 localhost\n"


@pytest.fixture
def log_path(tmp_path: Path) -> Iterator[Path]:
    """The path of a log. A reader or writer that blocks there is woken after a while."""

    def late(*_: object) -> None:
        raise TimeoutError("somebody waits for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield tmp_path / "0.log"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_a_fifo_in_place_of_a_log_blocks_nothing(log_path: Path) -> None:
    """A pod that mounts the node's /var/log can put a FIFO there before a rotation or a read."""
    log = LogFile(str(log_path), max_bytes=10, max_files=2)
    log.write(b"2026-11-24T15:47:00Z stdout F one\n")
    log_path.unlink()
    os.mkfifo(log_path)
    log.write(b"2026-11-24T15:47:01Z stdout F two\n")  # rotates the pipe away, like any file
    log_path.unlink()
    os.mkfifo(log_path)
    with pytest.raises(OSError, match="No such device"):
        LogFile(str(log_path), max_bytes=0, max_files=1)
    assert termination.log_tail(str(log_path)) == ""
    assert logfiles._open(str(log_path)) is None
    log.close()


def test_a_link_in_place_of_a_log_is_not_followed(tmp_path: Path, log_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("2026-11-24T15:47:00Z stdout F secret\n")
    log_path.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        LogFile(str(log_path), max_bytes=0, max_files=1)
    assert termination.log_tail(str(log_path)) == ""
    assert logfiles._open(str(log_path)) is None


@pytest.mark.parametrize("level", ["pod", "pod/main"])
def test_a_link_in_place_of_a_log_directory_is_not_followed(tmp_path: Path, level: str) -> None:
    """A pod that mounts the node's logs can replace its own directory by a link."""
    logs, victim = tmp_path / "logs", tmp_path / "victim"
    path = logs / "pod/main/0.log"
    log = LogFile(str(path), max_bytes=10, max_files=1)
    log.write(b"2026-11-24T15:47:00Z stdout F one\n")
    (logs / level).rename(logs / "aside")
    below = victim if level == "pod/main" else victim / "main"
    below.mkdir(parents=True)
    (below / "0.log").write_text("2026-11-24T15:47:00Z stdout F secret\n")
    (below / "0.log.20250101-000000").write_text("not ours")
    (logs / level).symlink_to(victim)
    before = sorted(p.name for p in below.iterdir())
    log.write(b"2026-11-24T15:47:01Z stdout F two\n")  # would rotate
    log.close()
    with pytest.raises(OSError, match="Not a directory"):
        LogFile(str(path), max_bytes=0, max_files=1)
    pod_files.remove_log(str(path))
    assert sorted(p.name for p in below.iterdir()) == before
    assert (below / "0.log").read_text().endswith("secret\n")
    assert termination.log_tail(str(path)) == ""
    assert logfiles._open(str(path)) is None


def test_no_other_user_can_hold_the_nodes_lock(tmp_path: Path) -> None:
    """flock(2) does not need write permission."""
    lock = tmp_path / "kubelite.pid"
    lock.write_text("1\n")
    lock.chmod(0o644)  # as an earlier version created it
    with lifecycle.locked(str(tmp_path)):
        assert lock.read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_two_nodes_cannot_use_one_cgroup() -> None:
    """They would remove each other's pods. Other users cannot open what is locked."""
    parent = f"kubelite-lock-{os.getpid()}"
    try:
        with lifecycle.cgroup_locked(parent):
            message = rf"another kubelite \(pid {os.getpid()}\) already uses cgroup /{parent}"
            with pytest.raises(lifecycle.StartupError, match=message), lifecycle.cgroup_locked(parent):
                pass
            for place in cgroup_places(f"{parent}/shims"):
                assert stat.S_IMODE(place.stat().st_mode) == 0o711
        with lifecycle.cgroup_locked(parent):
            pass
    finally:
        remove_cgroup(parent)


def test_other_users_cannot_read_images_or_run_their_programs(tmp_path: Path) -> None:
    content.prepare(str(tmp_path / "images"))
    for name in ("blobs", "layers", "ingest"):
        assert stat.S_IMODE((tmp_path / "images" / name).stat().st_mode) == 0o700


# --- the runtime itself ---


def test_no_module_of_a_container_is_imported(
    oci: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The import path is the host's, but after changing the root its files are the container's."""
    trap = tmp_path / "klt_trap.py"
    trap.write_text("import os; os.write(1, b'caught')")
    monkeypatch.syspath_prepend(str(tmp_path))

    def careless(*_: object) -> bytes:
        __import__("klt_trap")
        return b"/bin/true"

    container = oci.start(oci.spec("sleep", "60"))
    monkeypatch.setattr(execve_arguments, "find", careless)
    monkeypatch.setattr(init_steps, "reopen_null", lambda _proc: None)
    with pytest.raises(RuntimeFault, match="No module named 'klt_trap'"):
        oci.exec(container, "true")
    assert "klt_trap" not in sys.modules
    container.kill(9)


def test_a_program_with_a_very_long_name(oci: Engine) -> None:
    """Its error message is longer than a packet: it is cut and still reported."""
    with pytest.raises(StartError, match=r"file name too long|not found"):
        oci.start(oci.spec("/" + "x" * 120_000))


# --- whoever enters it ---

STOPS_WHO_ENTERS = (
    "while :; do for p in /proc/[1-9]*; do [ $p = /proc/1 ] || kill -STOP ${p#/proc/} 2>&-; done; done"
)


def test_a_container_that_stops_joining_processes_blocks_nothing(tmp_path: Path) -> None:
    """The joining process is in the container's pid namespace before it executes the command, so the container's root
    can signal it. The shim continues to serve its other containers, the stop of this one, and its clients."""

    async def story(node: Node) -> None:
        pod = await node.pod()
        hostile = await pod.start("sh", "-c", STOPS_WHO_ENTERS)
        other = await pod.connect()
        entering: list[asyncio.Task[Any]] = []
        for _ in range(20):  # on a busy machine some slip past it
            entering += [asyncio.create_task(pod.exec(hostile, "sleep", "60")) for _ in range(3)]
            await asyncio.sleep(0.3)
            if not all(task.done() for task in entering):
                break
        assert not all(task.done() for task in entering)
        begun = time.monotonic()
        assert (await other.state()).containers
        assert (await pod.run("true")).exit_code == 0
        await other.stop(hostile, signal=signal.SIGTERM, grace=0)
        assert (await pod.ended(hostile)).exit_code == 137
        assert time.monotonic() - begun < 5
        ended = await asyncio.gather(*entering, return_exceptions=True)
        assert not [
            error for error in ended if isinstance(error, BaseException)
        ]  # started, and killed with the rest
        assert time.monotonic() - begun < 5

    node = Node(tmp_path)
    try:
        node.run(story)
    finally:
        node.sweep()


def test_an_exec_whose_client_left_before_its_start_is_ended(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        pod = await node.pod()
        hostile = await pod.start("sh", "-c", STOPS_WHO_ENTERS)
        children = Path(f"/proc/{pod.record.pid}/task/{pod.record.pid}/children")
        entering = [asyncio.create_task(pod.exec(hostile, "sleep", "60")) for _ in range(3)]
        await until(lambda: len(children.read_text().split()) == 4)
        await asyncio.sleep(0.2)
        started = sum(task.done() for task in entering)
        pod.client.close()
        await asyncio.gather(*entering, return_exceptions=True)
        await until(lambda: len(children.read_text().split()) == 1 + started)
        await (await pod.connect()).kill(hostile, signal.SIGKILL)

    node = Node(tmp_path)
    try:
        node.run(story)
    finally:
        node.sweep()
