"""Kernel texts → numbers."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from runtime.cgroups import files, stats
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


def texts(of: dict[str, str]) -> defaultdict[str, str]:
    return defaultdict(str, of)


def test_v2() -> None:
    seen = stats.parse_v2(texts(V2))
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
    seen = stats.parse_v1(texts(V1))
    assert seen.cpu == stats.CpuStats(2_500_000, 20_000_000, 10_000_000, 9, 3, 77)
    memory = seen.memory
    assert (memory.usage, memory.working_set, memory.rss, memory.cache) == (9000, 7000, 4000, 3000)
    assert (memory.limit, memory.max_usage, memory.failcnt, memory.oom_kills) == (0, 9999, 6, 2)
    assert seen.pids == stats.PidsStats(3, 0)
    assert seen.io == (stats.IoStats(8, 0, 1, 2, 3, 4, 5, 6, sync_bytes=9),)
    assert seen.pressure == stats.PressureStats()


def test_hybrid_takes_the_finer_clock() -> None:
    seen = stats.parse_v1(texts({**V1, "unified.cpu.stat": V2["cpu.stat"]}))
    assert (seen.cpu.usage_ns, seen.cpu.user_ns, seen.cpu.system_ns) == (2_500_000, 1_500_000, 1_000_000)
    assert (seen.cpu.periods, seen.cpu.throttled_ns) == (9, 77)


def test_working_set_is_never_negative() -> None:
    seen = stats.parse_v2(texts({"memory.current": "10", "memory.stat": "inactive_file 20"}))
    assert seen.memory.working_set == 0


def test_nothing_at_all_is_zero() -> None:
    assert stats.parse_v2(texts({})).memory == stats.MemoryStats()
    assert stats.parse_v1(texts({})).cpu == stats.CpuStats()


@pytest.mark.parametrize(
    ("text", "value"), [("5\n", 5), ("max\n", 0), ("", 0), ("9223372036854771712", 0), ("-1", 0)]
)
def test_number(text: str, value: int) -> None:
    assert files.number(text) == value


def test_reader_keeps_descriptors_and_skips_what_is_not_there(tmp_path: Path) -> None:
    for name, text in V2.items():
        (tmp_path / name).write_text(text)
    paths: dict[str, str | None] = {name: str(tmp_path / name) for name in (*V2, "io.pressure")}
    with stats.Reader("/x", {**paths, "other": None}, stats.parse_v2) as reader:
        first = reader.read()
        (tmp_path / "memory.current").write_text("9500\n")
        assert (first.memory.usage, reader.read().memory.usage) == (9000, 9500)


def test_reader_of_no_cgroup(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        stats.Reader("/x", {"cpu.stat": str(tmp_path / "cpu.stat")}, stats.parse_v2)
