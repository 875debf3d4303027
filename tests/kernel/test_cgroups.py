"""Cgroups on a real kernel, from creation to removal: the same assertions on v1, hybrid and v2."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import time
from pathlib import Path

import pytest

from runtime import cgroups
from runtime.cgroups import Cgroup, Mode, open_cgroup
from runtime.cgroups.reading.stats import Stats
from runtime.cgroups.v2 import V2Cgroup
from runtime.errors import NotFoundError, SpecError, StateError, SyscallError
from tests.kernel.cgroup_kit import (
    UML,
    fork_bomb,
    leftovers,
    reap,
    sleeper,
    spawn,
    spawn_bomb,
)
from tests.waiting import until

pytestmark = pytest.mark.kernel


def test_create_is_idempotent_and_remove_too(group: Cgroup) -> None:
    group.create()
    assert group.exists()
    assert group.pids() == []
    group.remove()
    assert not group.exists()
    group.remove()
    with pytest.raises(NotFoundError):
        group.stats()


def test_a_failed_create_leaves_nothing(parent: Cgroup, machine: cgroups.Layout) -> None:
    with pytest.raises(SyscallError) as caught:
        open_cgroup(f"{parent.path}/a/a\nb", machine).create()  # the one letter the kernel refuses
    assert caught.value.errno == errno.EINVAL
    assert leftovers(machine, parent.path) == []


def test_freezer_stops_and_lets_go(group: Cgroup) -> None:
    read, write = os.pipe()

    def tick() -> None:
        while True:
            os.write(write, b".")
            time.sleep(0.001)

    pid = spawn(group, tick)
    try:
        os.read(read, 1)
        group.freeze()
        assert group.frozen()
        os.set_blocking(read, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(read, 65536):
                pass
        time.sleep(0.05)
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
        group.thaw()
        assert not group.frozen()
        os.set_blocking(read, True)
        assert os.read(read, 1)
    finally:
        assert group.kill()
        assert reap(pid) == -signal.SIGKILL
        os.close(read)
        os.close(write)


def test_kill_reaches_frozen_processes(group: Cgroup) -> None:
    pid = spawn(group, sleeper())
    until(lambda: pid in group.pids())
    group.freeze()
    assert group.kill()
    assert reap(pid) == -signal.SIGKILL
    assert group.pids() == []


def test_kill_ends_a_fork_bomb(group: Cgroup) -> None:
    group.apply({"pids": {"limit": 40}})

    pid = spawn(group, spawn_bomb if UML else fork_bomb)
    until(lambda: len(group.pids()) > 20)
    started = time.monotonic()
    assert group.kill(5.0)
    assert time.monotonic() - started < 5
    assert reap(pid) == -signal.SIGKILL
    assert group.pids() == []


def test_kill_reaches_nested_cgroups(group: Cgroup, machine: cgroups.Layout) -> None:
    inner = open_cgroup(f"{group.path}/a/b", machine)
    inner.create()
    pid = spawn(inner, sleeper())
    until(lambda: group.pids() == [pid])
    assert group.pids(recursive=False) == []
    assert group.kill()
    assert reap(pid) == -signal.SIGKILL


def test_kill_and_remove_refuse_the_caller(group: Cgroup) -> None:
    def try_it() -> None:
        for act in (group.kill, group.remove):
            try:
                act()
            except StateError:
                continue
            os._exit(1)
        os._exit(7)

    assert reap(spawn(group, try_it)) == 7


def test_remove_takes_leftovers_along(parent: Cgroup, machine: cgroups.Layout) -> None:
    """Processes, descendants and a frozen part are all removed."""
    deep = open_cgroup(f"{parent.path}/x/y", machine)
    deep.create()
    pids = [spawn(deep, sleeper()) for _ in range(3)]
    until(lambda: len(deep.pids()) == 3)
    deep.freeze()
    parent.remove()
    assert leftovers(machine, parent.path) == []
    assert [reap(pid) for pid in pids] == [-signal.SIGKILL] * 3


def test_remove_of_a_half_present_cgroup(group: Cgroup, machine: cgroups.Layout) -> None:
    """After a crash between two rmdirs the cgroup exists in some hierarchies. Both removal and creation fix that."""
    place = group.directory("memory")
    assert place
    os.rmdir(place)
    group.create()
    assert os.path.isdir(place)
    if machine.mode is not Mode.V2:
        os.rmdir(place)
    group.remove()
    assert leftovers(machine, group.path) == []


def test_a_frozen_leftover_does_not_stop_the_next_user(group: Cgroup) -> None:
    group.freeze()
    group.create()
    assert not group.frozen()
    pid = spawn(group, lambda: os._exit(5))
    assert reap(pid) == 5


def test_attach_from_outside(group: Cgroup) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        os._exit(0)
    try:
        group.attach(pid)
        assert group.pids() == [pid]
        where = Path(f"/proc/{pid}/cgroup").read_text()
        assert all(line.endswith(group.path) for line in where.splitlines() if mounted(line))
    finally:
        os.write(write, b".")
        assert reap(pid) == 0
        os.close(read)
        os.close(write)


def mounted(line: str) -> bool:
    """Whether a line of /proc/PID/cgroup belongs to a hierarchy of the layout."""
    layout = cgroups.layout()
    names = line.split(":")[1]
    return bool(layout.unified) if not names else any(name in layout.v1 for name in names.split(","))


def test_born_in_the_cgroup(group: Cgroup, machine: cgroups.Layout) -> None:
    """clone3 with clone_fd, then attach(0): the same two steps in every mode."""
    from runtime.syscalls import clone3

    fd = group.clone_fd()
    assert (fd is None) is (machine.mode is Mode.V1)
    if fd is None:
        pytest.skip("CLONE_INTO_CGROUP is cgroup v2's")
    pid, pidfd = clone3(0, exit_signal=signal.SIGCHLD, cgroup=fd)
    if pid == 0:
        group.attach(0)
        time.sleep(100)
    os.close(fd)
    until(lambda: group.pids() == [pid])
    os.close(pidfd)
    assert group.kill()
    assert reap(pid) == -signal.SIGKILL


def test_hybrid_has_its_cgroup2_side(group: Cgroup, machine: cgroups.Layout) -> None:
    if machine.mode is not Mode.HYBRID:
        pytest.skip(f"hybrid only; this machine is {machine.mode}")
    side = V2Cgroup(group.path, machine)
    pid = spawn(group, sleeper())
    until(lambda: side.pids() == [pid])
    assert group.kill()
    reap(pid)
    with group.reader() as reader:
        fine = reader.read().cpu.usage_ns
    assert fine % 1000 == 0  # microseconds, from cpu.stat of the cgroup2 side
    assert fine > 0


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_reader_that_rests_says_what_a_fresh_one_says(group: Cgroup) -> None:
    """It also notices immediately when something runs again."""
    read, write = os.pipe()

    def by_turns() -> None:
        os.write(write, b".")
        while signal.sigwait({signal.SIGUSR1}):
            data = bytearray(16 << 20)
            data[::4096] = b"x" * len(data[::4096])
            del data

    signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGUSR1}
    )  # it stays pending until the child waits for it
    pid = spawn(group, by_turns)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    os.read(read, 1)
    os.close(read)
    os.close(write)
    until(lambda: sleeps(pid), "it to wait for the signal")  # an empty cgroup rests, too
    with group.reader() as reader:

        def rested(at: float) -> tuple[Stats, Stats] | None:
            """What it says and what a fresh one says, provided that nothing ran meanwhile."""
            reader.read(at)
            seen, fresh, after = reader.read(at + 10), group.stats(), reader.read(at + 20)
            return (seen, fresh) if not reader.awake and seen.cpu == fresh.cpu == after.cpu else None

        moments = itertools.count(100, 100)
        before, fresh = until(lambda: rested(next(moments)))
        assert (before.pids, before.io) == (fresh.pids, fresh.io)
        for name in ("max_usage", "failcnt", "oom_kills", "limit"):
            assert getattr(before.memory, name) == getattr(fresh.memory, name), name
        os.kill(pid, signal.SIGUSR1)
        until(lambda: reader.read(2e6).memory.max_usage >= before.memory.max_usage + (8 << 20))
        assert reader.read(3e6).cpu.usage_ns > before.cpu.usage_ns
    assert group.kill()
    reap(pid)


def test_v1_alone_works_on_a_hybrid_machine(parent: Cgroup, machine: cgroups.Layout) -> None:
    """A machine without a cgroup2 mount, as far as this one can imitate it."""
    if machine.mode is not Mode.HYBRID:
        pytest.skip(f"needs v1 controllers; this machine is {machine.mode}")
    plain = cgroups.Layout(Mode.V1, None, machine.v1, frozenset())
    group = open_cgroup(f"{parent.path}/plain", plain)
    group.create()
    group.apply({"pids": {"limit": 30}})

    pid = spawn(group, fork_bomb)
    until(lambda: len(group.pids()) > 15)
    assert group.stats().cpu.usage_ns > 0
    assert group.kill(5.0)
    assert reap(pid) == -signal.SIGKILL
    group.remove()
    assert not group.exists()


def test_controllers_are_enabled_down_the_path(group: Cgroup, machine: cgroups.Layout) -> None:
    if machine.mode is not Mode.V2:
        pytest.skip(f"cgroup v2 only; this machine is {machine.mode}")
    place = group.directory("memory")
    assert place
    enabled = Path(place, "cgroup.controllers").read_text().split()
    assert {"cpu", "memory", "pids"} <= set(enabled)
    assert Path(place, "cgroup.subtree_control").read_text().split() == []
    # an inner node with controllers for its children takes no process: the no-internal-process rule
    with pytest.raises(SyscallError) as caught:
        open_cgroup(os.path.dirname(group.path), machine).attach(os.getpid())
    assert caught.value.errno == errno.EBUSY


def test_the_root_can_be_looked_at(machine: cgroups.Layout) -> None:
    root = open_cgroup("/", machine)
    assert root.stats().cpu.usage_ns > 0
    assert root.pids()
    with pytest.raises(SpecError):
        root.remove()
