"""Limits and counters of cgroups on a real kernel: the same assertions on v1, hybrid and v2."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from runtime import cgroups
from runtime.cgroups import Cgroup, Mode, open_cgroup
from runtime.errors import CapabilityError, NotFoundError, StateError, SyscallError
from tests.kernel.cgroup_kit import (
    MIB,
    limit,
    program,
    reap,
    running,
    sleeper,
    spawn,
)
from tests.programs import BUSYBOX
from tests.waiting import until

pytestmark = pytest.mark.kernel


def test_limits_arrive_in_the_kernel(group: Cgroup, machine: cgroups.Layout) -> None:
    warnings = group.apply(
        {
            "memory": {"limit": 64 * MIB, "swap": 64 * MIB, "reservation": 32 * MIB},
            "cpu": {"shares": 512, "quota": 20000, "period": 50000},
            "pids": {"limit": 33},
        }
    )
    assert warnings == []
    assert limit(group, "memory", "memory.limit_in_bytes", "memory.max", machine) == str(64 * MIB)
    assert limit(group, "memory", "memory.soft_limit_in_bytes", "memory.low", machine) == str(32 * MIB)
    assert limit(group, "cpu", "cpu.shares", "cpu.weight", machine) == (
        "59" if machine.mode is Mode.V2 else "512"
    )
    assert limit(group, "cpu", "cpu.cfs_quota_us", "cpu.max", machine).split()[0] == "20000"
    assert group.stats().pids.limit == 33
    assert group.stats().memory.limit == 64 * MIB


def test_limits_move_up_and_down(group: Cgroup) -> None:
    """Limits that constrain each other are set in the order that works (memory and swap, quota and period)."""
    for size in (64, 256, 32):
        group.apply({"memory": {"limit": size * MIB, "swap": size * MIB}})
        assert group.stats().memory.limit == size * MIB
    for quota, period in ((20000, 50000), (300000, 1000000), (1000, 2000)):
        assert group.apply({"cpu": {"quota": quota, "period": period}}) == []
    group.apply({"memory": {"limit": -1, "swap": -1}})
    assert group.stats().memory.limit == 0


def test_cpuset_pins_and_names_what_it_refuses(group: Cgroup, machine: cgroups.Layout) -> None:
    if "cpuset" in machine.missing():
        pytest.skip("this kernel has no cpuset controller")
    group.apply({"cpu": {"cpus": "0"}})
    assert limit(group, "cpuset", "cpuset.cpus", "cpuset.cpus", machine) == "0"
    pid = spawn(group, sleeper())
    until(lambda: group.pids() == [pid])
    assert os.sched_getaffinity(pid) == {0}
    assert group.kill()
    reap(pid)
    with pytest.raises(SyscallError, match=r"'77-99' to .*cpuset\.cpus"):
        group.apply({"cpu": {"cpus": "77-99"}})


def test_what_is_not_there_is_a_warning_or_an_error(group: Cgroup, machine: cgroups.Layout) -> None:
    (warning,) = group.apply({"rdma": {"mlx5_0": {"hcaHandles": 3}}, "pids": {"limit": 5}})
    assert "rdma" in warning
    assert group.stats().pids.limit == 5
    wrong = {"unified": {"memory.nonsense": "1"}}
    with pytest.raises(CapabilityError):
        group.apply(wrong)


def test_memory_limit_kills_and_is_counted(group: Cgroup, machine: cgroups.Layout) -> None:
    group.apply({"memory": {"limit": 24 * MIB, "swap": 24 * MIB}})
    assert group.oom_kills() == 0
    pid = spawn(group, program(BUSYBOX, "dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1"))
    assert reap(pid) == -signal.SIGKILL
    assert group.oom_kills() == 1
    memory = group.stats().memory
    assert memory.oom_kills == 1
    if machine.mode is Mode.V2:  # some kernels (6.18) no longer count v1's memory.failcnt
        assert memory.failcnt > 0
    assert 0 < memory.max_usage <= 24 * MIB


def test_another_kill_is_not_an_oom_kill(group: Cgroup) -> None:
    group.apply({"memory": {"limit": 24 * MIB}})
    pid = spawn(group, sleeper())
    assert running(pid, "busybox") or running(pid, "sleep")
    os.kill(pid, signal.SIGKILL)
    assert reap(pid) == -signal.SIGKILL
    assert group.oom_kills() == 0


def test_oom_of_a_nested_cgroup_is_seen_from_above(group: Cgroup, machine: cgroups.Layout) -> None:
    inner = open_cgroup(f"{group.path}/inner", machine)
    inner.create()
    inner.apply({"memory": {"limit": 24 * MIB, "swap": 24 * MIB}})
    reap(spawn(inner, program(BUSYBOX, "dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1")))
    assert group.oom_kills() == 1


def test_oom_group_takes_the_whole_container(group: Cgroup, machine: cgroups.Layout) -> None:
    group.apply({"memory": {"limit": 24 * MIB, "swap": 24 * MIB}, "unified": {"memory.oom.group": "1"}})
    if machine.mode is not Mode.V2:
        pytest.skip("memory.oom.group is cgroup v2's")
    bystander = spawn(group, sleeper())
    until(lambda: group.pids() == [bystander])
    hog = spawn(group, program(BUSYBOX, "dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1"))
    assert reap(hog) == -signal.SIGKILL
    assert reap(bystander) == -signal.SIGKILL


def test_pids_limit_stops_forks(group: Cgroup) -> None:
    group.apply({"pids": {"limit": 3}})

    def fork_until_refused() -> None:
        for _ in range(8):
            try:
                if os.fork() == 0:
                    time.sleep(100)
            except BlockingIOError:
                os._exit(42)
        os._exit(43)

    assert reap(spawn(group, fork_until_refused)) == 42
    pids = group.stats().pids
    assert (pids.current, pids.limit) == (2, 3)
    assert len(group.pids()) == 2


def test_cpu_quota_throttles(group: Cgroup) -> None:
    group.apply({"cpu": {"quota": 10000, "period": 100000}})

    def spin() -> None:
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            pass
        os._exit(0)

    before = time.monotonic()
    pid = spawn(group, spin)
    assert reap(pid) == 0
    cpu = group.stats().cpu
    wall = (time.monotonic() - before) * 1e9
    assert cpu.throttled_periods > 2
    assert cpu.periods >= cpu.throttled_periods
    assert cpu.throttled_ns > 0
    assert 0 < cpu.usage_ns < wall * 0.5
    assert cpu.user_ns + cpu.system_ns <= cpu.usage_ns * 1.5 + 2e7


def test_devices_are_denied_and_allowed(group: Cgroup) -> None:
    node = Path(f"/dev/kubelite-test-{os.getpid()}")
    os.mknod(node, 0o600 | 0o020000, os.makedev(1, 11))  # /dev/kmsg: not among the default devices

    def tries() -> int:
        def attempt() -> None:
            for path in ("/dev/null", str(node)):
                try:
                    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                except PermissionError:
                    os._exit(1 if path == "/dev/null" else 2)
            os._exit(0)

        return reap(spawn(group, attempt))

    try:
        assert tries() == 0
        (refusal,) = group.apply({"devices": [{"allow": False, "access": "rwm"}]}) or [""]
        if refusal:
            pytest.skip(f"BPF device programs: {refusal}")
        assert tries() == 2
        rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
        group.apply({"devices": [{"allow": False, "access": "rwm"}, rule]})
        assert tries() == 0
        group.apply({"devices": []})
        assert tries() == 2
        group.apply({"devices": [{"allow": True, "access": "rwm"}]})
        assert tries() == 0
    finally:
        node.unlink()


def test_reader_outlives_the_cgroup(group: Cgroup) -> None:
    with group.reader() as reader:
        assert reader.read().memory.limit == 0
        group.apply({"memory": {"limit": 32 * MIB}})
        assert reader.read().memory.limit == 32 * MIB
        group.remove()  # kept descriptors do not hold it back
        with pytest.raises(NotFoundError):
            reader.read()


def test_stats_see_memory_and_cpu_of_the_living(group: Cgroup) -> None:
    def hold() -> None:
        data = bytearray(24 * MIB)
        data[::4096] = b"x" * len(data[::4096])
        time.sleep(100)

    pid = spawn(group, hold)
    try:
        until(lambda: group.stats().memory.rss > 20 * MIB)
        seen = group.stats()
        assert seen.memory.working_set >= 20 * MIB
        assert seen.memory.usage >= seen.memory.working_set
        assert seen.cpu.usage_ns > 0
        assert seen.pids.current == 1
    finally:
        group.kill()
        reap(pid)


def test_pressure_is_counted_where_the_kernel_does(group: Cgroup, machine: cgroups.Layout) -> None:
    if machine.unified is None or not os.path.exists("/proc/pressure/cpu"):
        pytest.skip("PSI is not in this kernel")
    assert group.stats().pressure.cpu is not None


def test_check_before_update(group: Cgroup) -> None:
    def hold() -> None:
        data = bytearray(16 * MIB)
        data[::4096] = b"x" * len(data[::4096])
        time.sleep(100)

    pid = spawn(group, hold)
    try:
        until(lambda: group.stats().memory.usage > 16 * MIB)
        with pytest.raises(StateError, match="in use"):
            group.apply({"memory": {"limit": 4 * MIB, "checkBeforeUpdate": True}})
        assert group.stats().memory.limit == 0
    finally:
        group.kill()
        reap(pid)
