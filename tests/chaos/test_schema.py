"""A newer and an older kubelite on the same root directory: no running pod and no history is lost."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys

from tests.chaos import lens, pods
from tests.chaos.machine import Machine
from tests.chaos.newer import VERSION
from tests.e2e.node import KUBELITE

NEWER = (sys.executable, "-m", "tests.chaos.newer")


def _busy(machine: Machine) -> list[lens.Instance]:
    """Create pods of all kinds. Return the running instances."""
    machine.apply("always.yaml", pods.manifest("always"))
    machine.apply("pair.yaml", pods.manifest("pair", pods.PAIR))
    machine.apply("never.yaml", pods.manifest("never", pods.NEVER))
    machine.wait_status("never", "Completed")
    machine.wait(lambda: len(_instances(machine)) == 3, "the others to run")
    machine.wait_status("pair", "Running")
    machine.wait_status("always", "Running")
    return _instances(machine)


def _instances(machine: Machine) -> list[lens.Instance]:
    return [one for one in lens.instances(machine) if one.pod in ("always", "pair")]


def _schema(machine: Machine) -> int:
    with contextlib.closing(sqlite3.connect(machine.root / "state.db")) as raw:
        return int(raw.execute("PRAGMA user_version").fetchone()[0])


def _check(machine: Machine, before: list[lens.Instance], uids: dict[str, str]) -> None:
    assert _instances(machine) == before, "the same processes"
    found = lens.pods(machine)
    assert {name: found[name]["metadata"]["uid"] for name in uids} == uids
    assert machine.status_of("never") == "Completed"
    assert pods.starts(machine, uids["never"], "main") == 1, "it is never to run again"
    for name, container in (("always", "main"), ("pair", "main"), ("pair", "side")):
        assert machine.container(name, container)["restartCount"] == 0
    assert "set aside" not in machine.log.read_text()


def test_an_upgrade_a_downgrade_and_an_upgrade_again(machine: Machine) -> None:
    before = _busy(machine)
    uids = {name: doc["metadata"]["uid"] for name, doc in lens.pods(machine).items()}
    for turn, program in enumerate((NEWER, KUBELITE, NEWER)):
        machine.kill((signal.SIGKILL, signal.SIGTERM)[turn % 2])
        machine.program = program
        machine.start()
        assert _schema(machine) == VERSION, "an older one leaves it as it is"
        _check(machine, before, uids)
        machine.apply(f"new{turn}.yaml", pods.manifest(f"new{turn}"))
        machine.wait_status(f"new{turn}", "Running")
        _check(machine, before, uids)
    assert all(machine.container(f"new{turn}")["restartCount"] == 0 for turn in range(3))


def test_a_downgrade_that_the_newer_version_forbids(machine: Machine) -> None:
    """The start fails with an explanation and pods keep running. If the file is moved away, a new one is created and
    the running pods are adopted."""
    before = _busy(machine)
    uids = {name: doc["metadata"]["uid"] for name, doc in lens.pods(machine).items()}
    machine.kill(signal.SIGKILL)
    machine.program = ("env", f"CHAOS_OLDEST_READER={VERSION}", *NEWER)
    machine.start()
    _check(machine, before, uids)
    machine.kill(signal.SIGKILL)
    machine.program = KUBELITE
    machine.start(wait=False)
    assert machine.daemon is not None
    assert machine.daemon.wait(60) == 1
    assert "cannot open the state file" in machine.tail(3)
    assert f"a newer kubelite wrote it (schema {VERSION}, this version knows {VERSION - 1})" in machine.tail(
        3
    )
    assert _instances(machine) == before, "what runs goes on"
    machine.program = NEWER
    machine.start()
    _check(machine, before, uids)
    machine.kill(signal.SIGKILL)
    (machine.manifests / "never.yaml").unlink()  # as the message warns, it would run again
    for path in machine.root.glob("state.db*"):
        path.rename(machine.base / path.name)
    machine.program = KUBELITE
    machine.start()
    machine.wait(lambda: set(lens.pods(machine)) == {"always", "pair"}, "the pods to be known again")
    machine.wait_status("pair", "Running")
    assert _instances(machine) == before
