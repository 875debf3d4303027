"""OOM kills in the kernel's log."""

from __future__ import annotations

import pytest

from kubelite.node.pressure.oom_watch import OomKill, parse, whose

POD = "/kubelite/burstable/pod1"


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (
            "6,1000,5,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=abc,mems_allowed=0,"
            f"oom_memcg={POD}/abc,task_memcg={POD}/abc,task=a, b,pid=42,uid=0\n",
            OomKill("a, b", 42, f"{POD}/abc", f"{POD}/abc"),
        ),
        (
            "6,1,5,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
            f"task_memcg={POD}/abc,task=sh,pid=7,uid=1000\n",
            OomKill("sh", 7, f"{POD}/abc"),
        ),
        ("6,1,5,-;Memory cgroup out of memory: Killed process 42 (sh)", None),
    ],
)
def test_records_of_the_kernel_log(record: str, found: OomKill | None) -> None:
    assert parse(record) == found


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (f"{POD}/abc", "the container's memory limit was reached"),
        (POD, "the pod's memory limit was reached"),
        ("", "the node is out of memory"),
        ("/kubelite", "the memory limit of /kubelite, which all its pods share, was reached"),
        (f"{POD}0/abc", f"the memory limit of {POD}0/abc, which all its pods share, was reached"),
    ],
)
def test_whose_limit_was_exceeded(limit: str, words: str) -> None:
    assert whose(limit, POD) == words
