"""Parsing the kernel's statistics files."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups import files
from runtime.cgroups.reading import parsers, stats
from runtime.cgroups.reading import reader as readers
from runtime.cgroups.reading.parsers import Stalls
from runtime.cgroups.reading.reader import SETTLE, Reader
from runtime.errors import NotFoundError

V2 = {
    "cpu.stat": "usage_usec 2500\nuser_usec 1500\nsystem_usec 1000\nnice_usec 0\nnr_periods 9\nnr_throttled 3\n"
    "throttled_usec 77\nnr_bursts 1\nburst_usec 5\n",
    "memory.current": "9000\n",
    "memory.stat": "anon 4000\nfile 3000\nkernel 500\nfile_mapped 100\ninactive_file 2000\nactive_file 900\n"
    "file_dirty 7\nfile_writeback 8\npgfault 11\npgmajfault 2\npgscan 3\npgsteal 4\n"
    "workingset_refault_anon 5\nworkingset_refault_file 6\n",
    "memory.events": "low 0\nhigh 4\nmax 6\noom 1\noom_kill 2\noom_group_kill 0\n",
    "memory.max": "max\n",
    "memory.peak": "9999\n",
    "memory.swap.current": "12\n",
    "pids.current": "3\n",
    "pids.max": "10\n",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=9\n7:0 \n",
    "cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
}
V1 = {
    "cpuacct.usage": "2500000\n",
    "cpuacct.stat": "user 2\nsystem 1\n",
    "cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_time 77\n",
    "memory.usage_in_bytes": "9000\n",
    "memory.stat": "cache 1\ntotal_cache 3000\ntotal_rss 4000\ntotal_inactive_file 2000\ntotal_active_file 900\n"
    "total_mapped_file 100\ntotal_swap 12\ntotal_pgfault 11\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.max_usage_in_bytes": "9999\n",
    "memory.failcnt": "6\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "pids.current": "3\n",
    "pids.max": "max\n",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Sync 9\n8:0 Discard 5\nTotal 3\n",
    "blkio.throttle.io_serviced_recursive": "8:0 Read 3\n8:0 Write 4\n8:0 Discard 6\nTotal 7\n",
}


def apart(how: Mapping[str, Callable[[bytes], Any]], of: dict[str, str]) -> dict[str, Any]:
    return {name: how.get(name, parsers.number)(text.encode()) for name, text in of.items()}


def v1(of: dict[str, str]) -> stats.Stats:
    return stats.stats_v1(apart(parsers.V1, of))


def v2(of: dict[str, str]) -> stats.Stats:
    return stats.stats_v2(apart(parsers.V2, of))


def test_v2() -> None:
    seen = v2(V2)
    assert seen.cpu == stats.CpuStats(2_500_000, 1_500_000, 1_000_000, 9, 3, 77_000, 1, 5_000)
    memory = seen.memory
    assert (memory.usage, memory.working_set, memory.rss, memory.cache) == (9000, 7000, 4000, 3000)
    assert (memory.limit, memory.max_usage, memory.failcnt, memory.oom_kills) == (0, 9999, 6, 2)
    assert (memory.swap, memory.kernel, memory.pgfault, memory.pgmajfault) == (12, 500, 11, 2)
    assert (memory.events_high, memory.events_max, memory.pgscan, memory.pgsteal) == (4, 6, 3, 4)
    assert seen.pids == stats.PidsStats(3, 10)
    assert seen.io == (stats.IoStats(8, 0, 1, 2, 3, 4, 5, 6, cost_usage_us=9),)
    assert seen.pressure == stats.PressureStats(stats.Pressure(12, 3), None, None)


def test_v1() -> None:
    seen = v1(V1)
    assert seen.cpu == stats.CpuStats(2_500_000, 20_000_000, 10_000_000, 9, 3, 77)
    memory = seen.memory
    assert (memory.usage, memory.working_set, memory.rss, memory.cache) == (9000, 7000, 4000, 3000)
    assert (memory.limit, memory.max_usage, memory.failcnt, memory.oom_kills) == (0, 9999, 6, 2)
    assert seen.pids == stats.PidsStats(3, 0)
    assert seen.io == (stats.IoStats(8, 0, 1, 2, 3, 4, 5, 6, sync_bytes=9),)
    assert seen.pressure == stats.PressureStats()


def test_hybrid_takes_the_finer_clock() -> None:
    seen = v1({**V1, "unified.cpu.stat": V2["cpu.stat"]})
    assert (seen.cpu.usage_ns, seen.cpu.user_ns, seen.cpu.system_ns) == (2_500_000, 1_500_000, 1_000_000)
    assert (seen.cpu.periods, seen.cpu.throttled_ns) == (9, 77)


def test_working_set_is_never_negative() -> None:
    seen = v2({"memory.current": "10", "memory.stat": "inactive_file 20"})
    assert seen.memory.working_set == 0


def test_missing_files_count_as_zero() -> None:
    assert v2({}).memory == stats.MemoryStats()
    assert v1({}).cpu == stats.CpuStats()


@pytest.mark.parametrize(
    ("text", "value"), [("5\n", 5), ("max\n", 0), ("", 0), ("9223372036854771712", 0), ("-1", 0)]
)
def test_number(text: str, value: int) -> None:
    assert files.number(text) == value


def test_the_reader_keeps_descriptors_and_skips_missing_files(tmp_path: Path) -> None:
    for name, text in V2.items():
        (tmp_path / name).write_text(text)
    paths: dict[str, str | None] = {name: str(tmp_path / name) for name in (*V2, "io.pressure")}
    with Reader("/x", {**paths, "other": None}, readers.V2) as reader:
        first = reader.read()
        (tmp_path / "memory.current").write_text("9500\n")
        assert (first.memory.usage, reader.read().memory.usage) == (9000, 9500)


def test_the_reader_of_a_missing_cgroup(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Reader("/x", {"cpu.stat": str(tmp_path / "cpu.stat")}, readers.V2)


class Kernel:
    """A cgroup's files, which the test changes while a reader uses them."""

    def __init__(self, place: Path, texts: dict[str, str]) -> None:
        self._place = place
        self.paths: dict[str, str | None] = {name: str(place / name) for name in texts}
        for name, text in texts.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        (self._place / name).write_text(text)


def test_counters_of_an_idle_cgroup_are_not_read(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, {**V2, "memory.pressure": "some total=1\n"})
    with Reader("/x", kernel.paths, readers.V2) as reader:
        first = reader.read(100.0)
        kernel.write("memory.peak", "10001\n")
        assert (
            reader.read(100.0 + SETTLE - 0.1).memory.max_usage == 10001
        )  # what it did may not be counted yet
        assert reader.awake
        assert reader.read(100.0 + SETTLE).memory.max_usage == 10001
        kernel.write("memory.peak", "10002\n")
        kept = reader.read(1000.0)
        assert (kept.memory.max_usage, reader.awake) == (10001, False)
        kernel.write("memory.stat", V2["memory.stat"].replace("inactive_file 2000", "inactive_file 1000"))
        assert (
            reader.read(1001.0).memory.working_set == first.memory.working_set + 1000
        )  # reclaim is not its doing
        assert reader.read(1002.0) is reader.read(1003.0)
        kernel.write("cpu.stat", V2["cpu.stat"].replace("usage_usec 2500", "usage_usec 2501"))
        assert (reader.read(1004.0).memory.max_usage, reader.awake) == (10002, True)


def test_a_cgroup_is_read_once_more_after_a_long_pause(tmp_path: Path) -> None:
    """The last reading of an active cgroup was before everything was counted, so it is read once more."""
    kernel = Kernel(tmp_path, V2)
    with Reader("/x", kernel.paths, readers.V2) as reader:
        reader.read(100.0)
        kernel.write("cpu.pressure", "some total=44\n")
        assert reader.read(130.0).pressure.cpu == stats.Pressure(44, 0)
        kernel.write("cpu.pressure", "some total=55\n")
        assert reader.read(160.0).pressure.cpu == stats.Pressure(44, 0)


def test_averages_of_stalls_are_read_each_time(tmp_path: Path) -> None:
    """They decay while nothing runs."""
    line = "avg10={} avg60=0.00 avg300=0.00 total=44"
    kernel = Kernel(tmp_path, {**V2, "cpu.pressure": f"some {line.format(9.5)}\n"})
    with Reader("/x", kernel.paths, readers.V2) as reader:
        reader.read(100.0)
        assert reader.stalls()["cpu"] == {"some": Stalls(9.5, 0.0, 0.0, 44)}
        kernel.write("cpu.pressure", f"some {line.format(8.5)}\nfull {line.format(1.25)}\n")
        expected = {"some": Stalls(8.5, 0.0, 0.0, 44), "full": Stalls(1.25, 0.0, 0.0, 44)}
        assert reader.stalls()["cpu"] == expected
        assert "io" not in reader.stalls()


def test_stalls_are_read_when_the_machine_had_some(tmp_path: Path) -> None:
    """A task that waits for a disk uses no CPU time, but the machine's total changes."""
    kernel = Kernel(tmp_path, {**V2, "io.pressure": "some total=1\n"})
    with Reader("/x", kernel.paths, readers.V2) as reader:

        def seen(now: float, moved: dict[str, float]) -> int:
            found = reader.read(now, moved=moved).pressure.io
            assert found is not None
            return found.some_us

        assert seen(100.0, {"io.pressure": 100.0}) == 1
        kernel.write("io.pressure", "some total=2\n")
        assert seen(200.0, {"io.pressure": 100.0}) == 2  # moved before, and not read since it was all counted
        kernel.write("io.pressure", "some total=3\n")
        assert seen(300.0, {"io.pressure": 100.0}) == 2
        assert seen(301.0, {"io.pressure": 301.0}) == 3
        kernel.write("io.pressure", "some total=4\n")
        assert seen(400.0, {}) == 4  # a machine that does not tell


def test_limits_are_read_on_request(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, V2)
    with Reader("/x", kernel.paths, readers.V2) as reader:
        assert reader.read(100.0).pids.limit == 10
        kernel.write("pids.max", "20\n")
        assert reader.read(101.0).pids.limit == 10
        assert reader.read(102.0, limits=True).pids.limit == 20
        kernel.write("pids.max", "30\n")
        assert reader.read().pids.limit == 30  # without a time, everything


def test_counters_of_limits_are_read_only_with_a_limit(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, {**V1, "cpu.cfs_quota_us": "-1\n", "memory.memsw.failcnt": "0\n"})
    throttled = "nr_periods 99\nnr_throttled 3\nthrottled_time 77\n"
    with Reader("/x", kernel.paths, readers.V1) as reader:
        assert (reader.read(100.0).cpu.periods, reader.read(100.1).memory.failcnt) == (9, 6)
        kernel.write("cpu.stat", throttled)
        kernel.write("memory.memsw.failcnt", "8\n")
        kernel.write("cpuacct.usage", "2500001\n")
        still = reader.read(101.0)
        assert (still.cpu.periods, still.memory.failcnt) == (9, 6)
        kernel.write("cpu.cfs_quota_us", "50000\n")
        kernel.write("memory.limit_in_bytes", "4096\n")
        limited = reader.read(102.0, limits=True)
        assert (limited.cpu.periods, limited.memory.failcnt) == (99, 14)


def test_bytes_are_read_when_an_operation_was_counted(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, V1)
    served = "blkio.throttle.io_service_bytes_recursive"
    with Reader("/x", kernel.paths, readers.V1) as reader:
        reader.read(100.0)
        kernel.write(served, V1[served].replace("Read 1", "Read 10"))
        assert reader.read(101.0).io[0].rbytes == 1
        operations = "blkio.throttle.io_serviced_recursive"
        kernel.write(operations, V1[operations].replace("Read 3", "Read 30"))
        assert reader.read(102.0).io[0][2:6] == (10, 2, 30, 4)


def test_kills_are_read_when_the_machine_had_one(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, V1)
    with Reader("/x", kernel.paths, readers.V1) as reader:
        assert reader.read(100.0, moved={"memory.oom_control": 50.0}).memory.oom_kills == 2
        kernel.write("memory.oom_control", "oom_kill 3\n")
        kernel.write("cpuacct.usage", "2500001\n")
        assert reader.read(200.0, moved={"memory.oom_control": 50.0}).memory.oom_kills == 2
        assert reader.read(201.0, moved={"memory.oom_control": 201.0}).memory.oom_kills == 3


def test_long_files_are_read_whole(tmp_path: Path) -> None:
    long = "".join(f"key{number} {number}\n" for number in range(2000)) + V2["memory.stat"]
    kernel = Kernel(tmp_path, {**V2, "memory.stat": long})
    with Reader("/x", kernel.paths, readers.V2) as reader:
        first = reader.read(100.0)
        assert first.memory.workingset_refault_file == 6
        assert reader.read(101.0) is first
        kernel.write("memory.stat", long.replace("workingset_refault_file 6", "workingset_refault_file 66"))
        assert reader.read(102.0).memory.workingset_refault_file == 66


def test_a_cgroup_without_a_clock_is_always_read(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, {name: text for name, text in V1.items() if not name.startswith("cpu")})
    with Reader("/x", kernel.paths, readers.V1) as reader:
        reader.read(100.0)
        kernel.write("memory.max_usage_in_bytes", "10007\n")
        assert reader.read(500.0).memory.max_usage == 10007


@pytest.mark.parametrize(
    ("plan", "every"), [(readers.V1, V1), (readers.V2, {**V2, "memory.pressure": "some total=1\n"})]
)
def test_unchanged_values_are_not_parsed_again(plan: readers.Plan, every: dict[str, str]) -> None:
    values = apart(plan.parsers, every)
    before = plan.join(values)
    for name, text in every.items():
        assert plan.join(values, before, {name}) is before, name  # other bytes that come to the same
        other = "77\n" if text == "max\n" else re.sub(r"[1-9]\d*", "77", text)
        again = plan.join(apart(plan.parsers, {**every, name: other}), before, {name})
        same = [a is b for a, b in zip(astuple(again), astuple(before), strict=True)]
        assert same.count(False) == 1, name


def astuple(found: stats.Stats) -> tuple[object, ...]:
    return found.cpu, found.memory, found.pids, found.io, found.pressure


def test_disabled_pressure_accounting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With psi=0 at boot the files exist, but every read of them fails (kernel/sched/psi.c)."""
    kernel = Kernel(tmp_path, {**V2, "memory.pressure": "", "io.pressure": ""})
    off = {os.stat(path).st_ino for name, path in kernel.paths.items() if path and name.endswith(".pressure")}
    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino in off:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(fd, size, offset)

    with Reader("/x", kernel.paths, readers.V2) as reader:
        before = reader.descriptors
        monkeypatch.setattr(os, "pread", pread)
        assert reader.read().pressure == stats.PressureStats()
        assert (reader.read(5.0).pids.current, reader.descriptors) == (3, before - 3)
