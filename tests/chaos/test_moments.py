"""kill -9 at seeded moments of starts and stops, many of each on one node: each container is started exactly once."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.chaos import lens, pods
from tests.chaos.machine import Machine
from tests.waiting import SECONDS

ROUNDS = 4
AT_ONCE = 4


def _settled(machine: Machine, names: list[str]) -> bool:
    found = lens.instances(machine)
    try:
        docs = lens.pods(machine)
    except lens.Unreachable:
        return False
    return [one.pod for one in found if one.container == "main"] == sorted(names) and all(
        docs.get(name, {}).get("status", {}).get("phase") == "Running" for name in names
    )


def _wait_settled(machine: Machine, names: list[str], turn: int) -> None:
    machine.wait(lambda: _settled(machine, names), f"{names} to run (turn {turn})")


def _check_once(machine: Machine, names: list[str]) -> None:
    """Check that each runs for the first time and its log has every line."""
    for name, doc in lens.pods(machine).items():
        uid = doc["metadata"]["uid"]
        for status in doc["status"]["containerStatuses"]:
            assert status["restartCount"] == 0, (name, doc["status"])
            assert pods.begun(machine, uid, status["name"]) == 1, name
            logs = lens.log_lines(machine, name, uid, status["name"])
            assert list(logs) == [0] and lens.out_of_order(logs[0]) == "", (name, logs)
    assert sorted(lens.pods(machine)) == sorted(names)


def _nothing_left(machine: Machine) -> bool:
    return not (
        lens.pods(machine)
        or lens.instances(machine)
        or lens.directories(machine)
        or lens.cgroups(machine)
        or lens.interfaces(machine)
    )


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_of_the_daemon_at_moments_of_starts_and_stops(machine: Machine, seed: int) -> None:
    rng = random.Random(f"daemon {seed}")
    for turn in range(ROUNDS):
        names = [f"p{turn}-{number}" for number in range(AT_ONCE)]
        for name in names:
            machine.apply(
                f"{name}.yaml", pods.manifest(name, rng.choice((pods.ALWAYS, pods.ALWAYS, pods.PAIR)))
            )
            time.sleep(rng.uniform(0.0, 0.02))
        time.sleep(rng.uniform(0.0, 0.12))
        machine.restart(signal.SIGKILL)
        _wait_settled(machine, names, turn)
        _check_once(machine, names)
        for name in names:
            (machine.manifests / f"{name}.yaml").unlink()
        time.sleep(0.1 + rng.uniform(0.0, 0.15))  # a removal counts after a tenth of a second
        machine.restart(signal.SIGKILL)
        machine.wait(lambda: _nothing_left(machine), f"nothing to be left (turn {turn})")


def test_kill_9_of_shims_while_they_create(machine: Machine) -> None:
    """From the moment a shim belongs to the pod until its container runs."""
    rng = random.Random("shim")
    killed = 0
    for turn in range(10):
        name = f"p{turn}"
        machine.apply(f"{name}.yaml", pods.manifest(name))
        until = time.monotonic() + SECONDS
        while not (found := lens.shims(machine)):
            assert time.monotonic() < until, "no shim"
        time.sleep(rng.uniform(0.0, 0.02))
        for pid in found.values():
            killed += lens.kill(pid)
        _wait_settled(machine, [name], turn)
        uid = machine.pod(name)["metadata"]["uid"]
        count = machine.container(name)["restartCount"]
        assert count <= 1
        assert pods.begun(machine, uid, "main") in (1, count + 1), "an instance that began is counted"
        (machine.manifests / f"{name}.yaml").unlink()
        machine.wait(lambda: _nothing_left(machine), f"nothing to be left (turn {turn})")
    assert killed >= 6


@pytest.mark.parametrize("helper", ["forkserver", "network"])
def test_kill_9_of_a_helper_while_it_works(machine: Machine, helper: str) -> None:
    rng = random.Random(helper)
    victim = 0
    for turn in range(4):
        names = [f"p{turn}-{number}" for number in range(AT_ONCE)]
        victim = _wait_helper(machine, helper, after=victim)
        for name in names:
            machine.apply(f"{name}.yaml", pods.manifest(name))
        time.sleep(rng.uniform(0.0, 0.06))
        assert lens.kill(victim)
        _wait_settled(machine, names, turn)
        _check_once(machine, names)
        addresses = {doc["status"]["podIP"] for doc in lens.pods(machine).values()}
        assert len(addresses) == AT_ONCE
        for name in names:
            (machine.manifests / f"{name}.yaml").unlink()
        time.sleep(0.1 + rng.uniform(0.0, 0.05))
        victim = _wait_helper(machine, helper, after=victim)
        assert lens.kill(victim)
        machine.wait(lambda: _nothing_left(machine), f"nothing to be left (turn {turn})")


def test_kill_9_of_a_helper_while_the_daemon_starts(machine: Machine) -> None:
    """It is replaced, and the node starts."""
    rng = random.Random("start")
    machine.apply("p.yaml", pods.manifest("p"))
    _wait_settled(machine, ["p"], 0)
    before = lens.instances(machine)
    for turn in range(5):
        machine.kill(signal.SIGKILL)
        machine.start(wait=False)
        until = time.monotonic() + SECONDS
        while not (found := lens.children(machine)):
            assert time.monotonic() < until, "no helper"
        time.sleep(rng.uniform(0.0, 0.15))
        lens.kill(rng.choice(sorted(found.values())))
        machine.wait(machine.answers, f"the daemon (turn {turn})")
    _wait_settled(machine, ["p"], 1)
    assert lens.instances(machine) == before
    machine.apply("q.yaml", pods.manifest("q"))
    _wait_settled(machine, ["p", "q"], 2)


def _wait_helper(machine: Machine, wanted: str, *, after: int = 0) -> int:
    """Wait for its pid, because there is none for a moment after a kill. `after` is the killed process, which may still
    exist."""
    found: list[int] = []

    def there() -> bool:
        names = lens.children(machine).items()
        found.extend(
            pid for name, pid in names if (name == "forkserver") == (wanted == "forkserver") and pid != after
        )
        return bool(found)

    machine.wait(there, f"a {wanted} helper")
    return found[0]
