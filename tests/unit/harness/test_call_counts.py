"""Counting the system calls of a node in what strace wrote."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.call_counts import Watch, grown, steady, totals

CALLS = """\
10 100.000001 openat(AT_FDCWD</>, "/a", O_RDONLY) = 3</a>
10 100.100001 write(3</a>, "abc", 3) = 3
10 100.200001 sendmsg(4<socket:[1]>, {msg_iov=[{iov_base="x = 9", iov_len=5}]}, 0) = 5
10 100.300001 clone3({flags=CLONE_NEWNS}, 88 <unfinished ...>
10 100.300101 <... clone3 resumed> => {pidfd=[5]}, 88) = 11
11 100.400001 mkdir("/sys/fs/cgroup/cpu/k", 0755) = 0
11 100.400002 write(4</sys/fs/cgroup/cpu/k/tasks>, "0", 1) = 1
11 100.400003 epoll_wait(3, [], 12, 0) = 0
10 100.400004 recvfrom(4, 0x1, 4096, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)
11 100.500001 execve("/bin/none", ["none"], 0x1) = -1 ENOENT (No such file or directory)
11 100.500002 execve("/bin/sh", ["sh"], 0x1) = 0
11 100.600001 openat(AT_FDCWD</>, "/etc/ld.so.cache", O_RDONLY) = 3
10 101.000001 openat(AT_FDCWD</>, "/b", O_RDONLY) = 3</b>
"""


def test_calls_of_a_span_are_counted_until_a_program_runs(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text(CALLS)
    found = Watch(tmp_path / "calls").between(100.0, 101.0)
    assert found == {
        "openat": 1, "write": 1, "sendmsg": 1, "clone3": 1, "execve": 2, "written": 8, "processes": 1,
    }  # fmt: skip
    assert totals(found) == {"calls": 6, "processes": 1, "written": 8}


def test_what_only_some_runs_do_is_left_out() -> None:
    assert steady([{"read": 3, "write": 1}, {"read": 2, "stat": 1}]) == {"read": 2}


def test_growth_is_told_with_its_calls() -> None:
    record = {"read": 10, "write": 10, "written": 100, "processes": 1}
    assert grown({**record, "read": 12}, record, 0.1) == []
    assert grown({**record, "read": 5, "stat": 5}, record, 0.1) == []
    (said,) = grown({**record, "read": 11, "stat": 3}, record, 0.1)
    assert said == "calls: 24 instead of 20; more: {'read': 1, 'stat': 3}"
    assert [one.split(":")[0] for one in grown({**record, "processes": 2, "written": 120}, record, 0.1)] == [
        "processes",
        "written",
    ]
