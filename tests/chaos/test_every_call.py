"""kill -9 at each system call of a start, a stop, an adoption: deterministic. test_moments.py draws the moments at
random.

A run without a kill counts the calls that change anything (a packet sent, a file written, renamed or synced, a system
call of the engine). The sweep then kills at POINTS of them, evenly spread; CHAOS_POINTS=1000 tries every one.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import lens, pods
from tests.chaos.machine import Machine
from tests.chaos.strike import Strike

POINTS = int(os.environ.get("CHAOS_POINTS", "6"))
pytestmark = pytest.mark.timeout(60 * POINTS)


@pytest.fixture
def struck(tmp_path: Path, images: Path, cc: str) -> Iterator[Machine]:
    assert cc
    with Machine.running(tmp_path, images, strike=True) as found:
        found.stop()
        found.program = (sys.executable, "-m", "tests.chaos.tapped")
        found.start()
        yield found


def _points(count: int) -> list[int]:
    assert count > 1, "calls were seen"
    return sorted({1 + (count - 1) * n // max(1, POINTS - 1) for n in range(POINTS)})


def _strike(machine: Machine) -> Strike:
    assert machine.strike is not None
    return machine.strike


def _runs(machine: Machine, name: str) -> bool:
    try:
        doc = lens.pods(machine).get(name, {})
    except lens.Unreachable:
        return False
    found = [one for one in lens.instances(machine) if one.pod == name]
    states = doc.get("status", {}).get("containerStatuses", [])
    return len(found) == len(states) == 2 and all(state["ready"] for state in states)


def _nothing_left(machine: Machine) -> bool:
    try:
        return not (
            lens.pods(machine)
            or lens.instances(machine)
            or lens.shims(machine)
            or lens.directories(machine)
            or lens.cgroups(machine)
            or lens.interfaces(machine)
            or lens.doctor(machine)
        )
    except lens.Unreachable:
        return False


def _check(machine: Machine, name: str, what: str, *, at_most: int = 0) -> None:
    """Check that each container started as often as is counted, and that its log has every line."""
    doc = lens.pods(machine)[name]
    uid = doc["metadata"]["uid"]
    for status in (*doc["status"]["initContainerStatuses"], *doc["status"]["containerStatuses"]):
        container, count = status["name"], status["restartCount"]
        assert count <= at_most, (what, doc["status"])
        assert pods.begun(machine, uid, container) in ((count, count + 1) if at_most else (1,)), what
        for attempt, lines in lens.log_lines(machine, name, uid, container).items():
            assert attempt <= count and lens.out_of_order(lines) == "", (what, attempt, lines)


def _daemon_ended(machine: Machine) -> bool:
    return machine.daemon is not None and machine.daemon.poll() is not None


def _start(machine: Machine, pod: str, **blow: int | str) -> tuple[int, str]:
    _strike(machine).arm(**blow)  # type: ignore[arg-type]
    machine.apply(f"{pod}.yaml", pods.manifest(pod, pods.PAIR))
    machine.wait(lambda: _daemon_ended(machine) or _runs(machine, pod), f"{pod} to run or the daemon to end")
    found = _strike(machine).disarm()
    if _daemon_ended(machine):
        machine.start(wait=False)
    machine.wait(lambda: _runs(machine, pod), f"{pod} to run ({blow}, {found})")
    return found


def _remove(machine: Machine, pod: str, **blow: int | str) -> tuple[int, str]:
    _strike(machine).arm(**blow)  # type: ignore[arg-type]
    (machine.manifests / f"{pod}.yaml").unlink()
    machine.wait(lambda: _daemon_ended(machine) or _nothing_left(machine), "it to go or the daemon to end")
    found = _strike(machine).disarm()
    if _daemon_ended(machine):
        machine.start(wait=False)
    machine.wait(lambda: _nothing_left(machine), f"nothing to be left ({blow}, {found})")
    return found


def test_kill_9_of_the_daemon_at_every_call_of_a_start_and_a_stop(struck: Machine) -> None:
    def pid() -> int:
        assert struck.daemon is not None
        return struck.daemon.pid

    _start(struck, "warm")
    _remove(struck, "warm")
    starting, _ = _start(struck, "counted", pid=pid())
    removing, _ = _remove(struck, "counted", pid=pid())
    killed = 0
    for turn, (first, second) in enumerate(zip(_points(starting), _points(removing), strict=False)):
        name = f"p{turn}"
        _, call = _start(struck, name, pid=pid(), at=first)
        _check(struck, name, f"killed at call {first} of {starting} of a start: {call}")
        killed += call != ""
        _, call = _remove(struck, name, pid=pid(), at=second)
        killed += call != ""
    assert killed >= min(POINTS, removing), "most blows fell"


def test_kill_9_of_the_daemon_at_every_call_of_its_own_start(struck: Machine) -> None:
    """With a pod to adopt, a new one, and one to delete."""
    for name in ("stays", "gone"):
        _start(struck, name)
    before = [one for one in lens.instances(struck) if one.pod == "stays"]

    def begin(name: str, at: int) -> tuple[int, str]:
        struck.kill(signal.SIGKILL)
        struck.apply(f"{name}.yaml", pods.manifest(name, pods.PAIR))
        _strike(struck).arm(pid=-1, at=at)
        struck.start(wait=False)
        struck.wait(
            lambda: _daemon_ended(struck) or _runs(struck, name), f"{name} to run or the daemon to end"
        )
        found = _strike(struck).disarm()
        if _daemon_ended(struck):
            struck.start(wait=False)
        struck.wait(lambda: _runs(struck, name), f"{name} to run")
        return found

    (struck.manifests / "gone.yaml").unlink()
    count, _ = begin("p", 1 << 40)
    killed = 0
    for turn, point in enumerate(_points(count)):
        (struck.manifests / ("p.yaml" if not turn else f"p{turn - 1}.yaml")).unlink()
        _, call = begin(f"p{turn}", point)
        what = f"killed at call {point} of {count} of the daemon's start: {call}"
        killed += call != ""
        struck.wait(lambda now=turn: sorted(lens.pods(struck)) == [f"p{now}", "stays"], what)  # type: ignore[misc]
        _check(struck, f"p{turn}", what)
        _check(struck, "stays", what)
        assert [one for one in lens.instances(struck) if one.pod == "stays"] == before, what
        struck.wait(lambda: lens.doctor(struck) == [], what)
    assert killed >= min(POINTS, count) // 2, "most blows fell"


@pytest.mark.parametrize("victim", ["kubelite-shim", "forkserver", "kubelite-net"])
def test_kill_9_of_a_helper_at_every_call_of_a_start_and_a_stop(struck: Machine, victim: str) -> None:
    """Killing a shim also kills a process that it has just cloned and that is not yet a container's init."""
    _start(struck, "warm")
    _remove(struck, "warm")
    starting, _ = _start(struck, "counted", name=victim)
    removing, _ = _remove(struck, "counted", name=victim)
    killed, points = 0, list(zip(_points(starting), _points(max(2, removing)), strict=False))
    for turn, (first, second) in enumerate(points):
        name = f"p{turn}"
        _, call = _start(struck, name, name=victim, at=first)
        what = f"killed {victim} at call {first} of {starting} of a start: {call}"
        _check(struck, name, what, at_most=1 if victim == "kubelite-shim" else 0)
        killed += call != ""
        _, call = _remove(struck, name, name=victim, at=second)
        killed += call != ""
    assert killed >= len(points) // 2, "most blows fell"
