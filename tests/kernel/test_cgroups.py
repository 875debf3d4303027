"""Cgroups on a real kernel, with real limits: the same assertions on v1, hybrid and v2."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime import cgroups
from runtime.cgroups import Cgroup, Mode, open_cgroup
from runtime.cgroups.v2 import V2Cgroup
from runtime.errors import CapabilityError, NotFoundError, SpecError, StateError, SyscallError

pytestmark = pytest.mark.kernel

MIB = 1 << 20
# Its fork dies of a signal in the middle of copying the parent's memory: flush_tlb_mm walks the half-made copy, a panic
# (6.12, arch/um/kernel/tlb.c). There the bomb is of posix_spawn, which shares memory instead.
UML = "User Mode Linux" in Path("/proc/cpuinfo").read_text()
BUSYBOX = "/usr/bin/busybox"


@pytest.fixture(scope="module")
def machine() -> cgroups.Layout:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return cgroups.layout()


@pytest.fixture
def parent(machine: cgroups.Layout, request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    """A cgroup of this test's own; whatever a test leaves in it is killed, and it must be gone afterwards."""
    group = open_cgroup(f"/kubelite-test-{os.getpid()}/{abs(hash(request.node.name)) % 10**8}", machine)
    top = open_cgroup(os.path.dirname(group.path), machine)
    try:
        yield group
    finally:
        top.remove(5.0)
        assert leftovers(machine, top.path) == []


@pytest.fixture
def group(parent: Cgroup, machine: cgroups.Layout) -> Cgroup:
    made = open_cgroup(f"{parent.path}/c1", machine)
    made.create()
    return made


def leftovers(machine: cgroups.Layout, path: str) -> list[str]:
    mounts = [*machine.hierarchies, *([machine.unified] if machine.unified else [])]
    return [mount + path for mount in mounts if os.path.exists(mount + path)]


def spawn(group: Cgroup, action: Callable[[], None]) -> int:
    """Fork a child that joins the cgroup by itself and does `action`; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        group.attach(0)
        action()
    finally:
        os._exit(99)


def program(*argv: str) -> Callable[[], None]:
    def run() -> None:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.execv(argv[0], list(argv))

    return run


def sleeper() -> Callable[[], None]:
    return program(BUSYBOX, "sleep", "100")


def fork_bomb() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        with contextlib.suppress(OSError):
            os.fork()


def spawn_bomb() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        with contextlib.suppress(OSError):
            os.posix_spawn(BUSYBOX, ["busybox", "sleep", "100"], {})


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def running(pid: int, name: str) -> bool:
    return until(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == name)


def reap(pid: int) -> int:
    """Exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def limit(group: Cgroup, controller: str, v1: str, v2: str, machine: cgroups.Layout) -> str:
    place = group.directory(controller)
    assert place is not None, f"no {controller} controller"
    return Path(place, v2 if machine.mode is Mode.V2 else v1).read_text().strip()


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
    """Limits that check each other are accepted in whichever order fits (memory with swap, quota with period)."""
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
    assert until(lambda: group.pids() == [pid])
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
    assert until(lambda: group.pids() == [bystander])
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
    assert until(lambda: len(group.pids()) > 20)
    started = time.monotonic()
    assert group.kill(5.0)
    assert time.monotonic() - started < 5
    assert reap(pid) == -signal.SIGKILL
    assert group.pids() == []


def test_kill_reaches_nested_cgroups(group: Cgroup, machine: cgroups.Layout) -> None:
    inner = open_cgroup(f"{group.path}/a/b", machine)
    inner.create()
    pid = spawn(inner, sleeper())
    assert until(lambda: group.pids() == [pid])
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
    """Processes, descendants, a frozen part: all of it goes."""
    deep = open_cgroup(f"{parent.path}/x/y", machine)
    deep.create()
    pids = [spawn(deep, sleeper()) for _ in range(3)]
    assert until(lambda: len(deep.pids()) == 3)
    deep.freeze()
    parent.remove()
    assert leftovers(machine, parent.path) == []
    assert [reap(pid) for pid in pids] == [-signal.SIGKILL] * 3


def test_remove_of_a_half_present_cgroup(group: Cgroup, machine: cgroups.Layout) -> None:
    """A crash between two rmdirs leaves some hierarchies: removal and creation both mend it."""
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
    """Whether a line of /proc/PID/cgroup is about a hierarchy of the layout."""
    layout = cgroups.layout()
    names = line.split(":")[1]
    return bool(layout.unified) if not names else any(name in layout.v1 for name in names.split(","))


def test_born_in_the_cgroup(group: Cgroup, machine: cgroups.Layout) -> None:
    """clone3 with clone_fd, then attach(0): everywhere the same two steps."""
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
    assert until(lambda: group.pids() == [pid])
    os.close(pidfd)
    assert group.kill()
    assert reap(pid) == -signal.SIGKILL


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
        assert until(lambda: group.stats().memory.rss > 20 * MIB)
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


def test_hybrid_has_its_cgroup2_side(group: Cgroup, machine: cgroups.Layout) -> None:
    if machine.mode is not Mode.HYBRID:
        pytest.skip(f"hybrid only; this machine is {machine.mode}")
    side = V2Cgroup(group.path, machine)
    pid = spawn(group, sleeper())
    assert until(lambda: side.pids() == [pid])
    assert group.kill()
    reap(pid)
    with group.reader() as reader:
        fine = reader.read().cpu.usage_ns
    assert fine % 1000 == 0  # microseconds, from cpu.stat of the cgroup2 side
    assert fine > 0


def test_v1_alone_works_on_a_hybrid_machine(parent: Cgroup, machine: cgroups.Layout) -> None:
    """A machine without the cgroup2 mount, as far as this one can play it."""
    if machine.mode is not Mode.HYBRID:
        pytest.skip(f"needs v1 controllers; this machine is {machine.mode}")
    plain = cgroups.Layout(Mode.V1, None, machine.v1, frozenset())
    group = open_cgroup(f"{parent.path}/plain", plain)
    group.create()
    group.apply({"pids": {"limit": 30}})

    pid = spawn(group, fork_bomb)
    assert until(lambda: len(group.pids()) > 15)
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


def test_check_before_update(group: Cgroup) -> None:
    def hold() -> None:
        data = bytearray(16 * MIB)
        data[::4096] = b"x" * len(data[::4096])
        time.sleep(100)

    pid = spawn(group, hold)
    try:
        assert until(lambda: group.stats().memory.usage > 16 * MIB)
        with pytest.raises(StateError, match="in use"):
            group.apply({"memory": {"limit": 4 * MIB, "checkBeforeUpdate": True}})
        assert group.stats().memory.limit == 0
    finally:
        group.kill()
        reap(pid)
