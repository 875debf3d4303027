"""The rehearsal: it really runs, leaves nothing behind, and a later fork shares more memory."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups import open_cgroup
from runtime.shim.warm.immortal import supported

pytestmark = pytest.mark.kernel
REPO = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, os, signal, sys
from runtime.cgroups import open_cgroup
from runtime.shim.warm import forkserver
from runtime.shim.warm.rehearsal import rehearse

def complain(sentence):
    print(sentence, file=sys.stderr)

def standing():
    return [sorted(os.listdir("/proc/self/fd")), os.readlink("/proc/self/ns/mnt"), os.getcwd(),
            str(signal.getsignal(signal.SIGCHLD))]

def own():  # KiB that a fork has to itself after it has answered a shim's questions once
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        rehearse(sys.argv[1], complain, rounds=1)
        lines = open("/proc/self/smaps_rollup").read().split("\\n")
        found = sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))
        os.write(writing, str(found).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return int(os.read(reading, 100))

open_cgroup(sys.argv[1]).attach(0)
signal.signal(signal.SIGCHLD, lambda *_: None)
forkserver.warm_up()
forkserver.share()
cold, before = own(), standing()
rehearse(sys.argv[1], complain)
after = standing()
forkserver.share()
print(json.dumps({"before": before, "after": after, "cold": cold, "warm": own()}))
sys.stdout.flush()
os._exit(0)  # immortal objects cannot be finalised
"""

TRIAL = """
import json, os, signal, sys
from runtime.cgroups import open_cgroup
from runtime.shim import sandbox
from runtime.shim.warm import forkserver
from runtime.shim.warm.packing import snapshot
from runtime.shim.warm.trial import trial

said = []
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
forkserver.warm_up()
shims = sys.argv[1] + "/shims"
inherited, _ = sandbox.prepare_inheritance(shims, 0, None)
before, standing = snapshot(), sorted(os.listdir("/proc/self/fd"))
if len(sys.argv) > 2:
    forkserver.syscalls.unshare = None  # what a shim calls first
ran = trial(forkserver.SPARE_NAMESPACES, inherited, before, said.append)
assert sorted(os.listdir("/proc/self/fd")) == standing
print(json.dumps({"said": said, "ran": sorted(item.__qualname__ for item in ran)}))
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture
def cgroup() -> Iterator[str]:
    path = f"/kubelite-test-{secrets.token_hex(4)}"
    group = open_cgroup(path)
    group.create()
    yield path
    group.remove()


def played(cgroup: str, program: str = PROGRAM, *arguments: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-c", program, cgroup, *arguments]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_it_plays_to_the_end_and_leaves_nothing(cgroup: str) -> None:
    said, complaints = played(cgroup)
    assert "rehearsal" not in complaints
    assert said["before"] == said["after"]
    assert below(cgroup) == []


def below(cgroup: str) -> list[str]:
    open_cgroup(f"{cgroup}/shims").remove()
    places = (open_cgroup(cgroup).directory(name) for name in ("freezer", "memory", "pids"))
    return [
        entry.name for place in places if place is not None for entry in os.scandir(place) if entry.is_dir()
    ]


def test_a_trial_tells_what_every_shim_runs_and_leaves_nothing(cgroup: str) -> None:
    said, _ = played(cgroup, TRIAL)
    assert said["said"] == []
    assert {"become_daemon", "set_up", "Shim.__init__", "Shim._op_annotate", "Loop.run"} <= {*said["ran"]}
    assert below(cgroup) == []


def test_a_trial_that_fails_is_reported_and_leaves_nothing(cgroup: str) -> None:
    said, _ = played(cgroup, TRIAL, "broken")
    assert said["ran"] == []
    assert len(said["said"]) == 1
    assert said["said"][0].startswith("the trial of a shim failed: the sandbox could not be set up")
    assert below(cgroup) == []


@pytest.mark.skipif(not supported(), reason="immortal objects came with Python 3.12")
def test_a_fork_after_it_copies_less(cgroup: str) -> None:
    said, _ = played(cgroup)
    assert said["warm"] < said["cold"]
