"""The config.json of a RUN."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.builder.copy.accounts import User
from runtime.builder.run.running import RunJob, spec

ALLOW = "SCMP_ACT_ALLOW"
JOB = RunJob(
    args=["true"], env={}, cwd="/", user=User(0, 0), lower=[], upper="", work="", directory="/d", cgroup="/c",
)  # fmt: skip


@pytest.mark.parametrize("allowed", [True, False])
def test_socketcall_is_allowed_unless_the_node_refuses_it(allowed: bool) -> None:
    rules = spec(replace(JOB, socketcall=allowed), [], "x86_64", (6, 1))["linux"]["seccomp"]["syscalls"]
    (rule,) = [one for one in rules if "socketcall" in one["names"]]
    assert (rule["action"] == ALLOW) is allowed


def test_a_limit_of_memory() -> None:
    limited = replace(JOB, resources={"memory": {"limit": 1 << 30}})
    assert spec(limited, [], "x86_64", (6, 1))["linux"]["resources"]["memory"] == {"limit": 1 << 30}
