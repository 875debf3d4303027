"""Different kinds of damage to the state file: it is set aside or repaired, this is reported, and running pods are not
lost."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.chaos import lens, pods
from tests.chaos.machine import Machine


def _truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 100)


def _overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * max(4096, size // 2))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _no_json(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE objects SET doc = substr(doc, 1, 40)")


def _log_of_another(path: Path) -> None:
    """The write-ahead log is replaced by one that belongs to no file."""
    Path(f"{path}-wal").write_bytes(bytes(range(256)) * 400)


DAMAGE: dict[str, tuple[Callable[[Path], None], bool]] = {  # kind of damage, and whether it can be detected
    "truncated": (_truncate, True),
    "overwritten": (_overwrite, True),
    "emptied": (_empty, False),
    "documents cut off": (_no_json, True),
    "a strange log": (_log_of_another, False),
}


def _settled(machine: Machine) -> bool:
    try:
        docs = lens.pods(machine)
    except lens.Unreachable:
        return False
    states = [doc.get("status", {}).get("containerStatuses", []) for doc in docs.values()]
    return set(docs) == {"always", "pair"} and all(s and all(one["ready"] for one in s) for s in states)


def _restarts(machine: Machine) -> dict[str, int]:
    return {
        f"{name} {status['name']}": status["restartCount"]
        for name, doc in lens.pods(machine).items()
        for status in doc["status"]["containerStatuses"]
    }


def _fold(path: Path) -> None:
    """Checkpoint the log into the file, so that damage to the file is a loss."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def test_a_state_file_damaged_in_each_way(machine: Machine) -> None:
    machine.apply("always.yaml", pods.manifest("always"))
    machine.apply("pair.yaml", pods.manifest("pair", pods.PAIR))
    machine.wait(lambda: _settled(machine), "both to run")
    killed = next(one for one in lens.instances(machine) if one.container == "side")
    assert lens.kill(killed.pid, killed.start)
    machine.wait(lambda: _restarts(machine).get("pair side") == 1 and _settled(machine), "a restart")
    before, restarts = lens.instances(machine), _restarts(machine)
    uids = {name: doc["metadata"]["uid"] for name, doc in lens.pods(machine).items()}
    state = machine.root / "state.db"
    for what, (damage, noticed) in DAMAGE.items():
        said = len(machine.log.read_text())
        machine.kill(signal.SIGKILL)
        _fold(state)
        damage(state)
        machine.start()
        machine.wait(lambda: _settled(machine), f"both to be known again ({what})")
        assert lens.instances(machine) == before, (what, "the same processes")
        assert {name: doc["metadata"]["uid"] for name, doc in lens.pods(machine).items()} == uids, what
        machine.wait(lambda: _restarts(machine) == restarts, f"the restarts to be known ({what})")
        if noticed:
            assert "is set aside" in machine.log.read_text()[said:], what
            kept = max(machine.root.glob("state.db.damaged-*"), key=lambda path: path.stat().st_mtime)
            assert kept.exists()
            for path in machine.root.glob("state.db.damaged-*"):
                path.unlink()
        machine.wait(lambda: lens.doctor(machine) == [], f"doctor to find nothing ({what})")
    for name, uid in uids.items():
        for container in pods.containers_of(name):
            for lines in lens.log_lines(machine, name, uid, container).values():
                assert lens.out_of_order(lines) == ""


def test_a_second_daemon_on_a_busy_node(machine: Machine) -> None:
    """It reports an error and does not affect the first daemon, however often it is started."""
    machine.apply("always.yaml", pods.manifest("always"))
    machine.apply("pair.yaml", pods.manifest("pair", pods.PAIR))
    machine.wait(lambda: _settled(machine), "both to run")
    before, first = lens.instances(machine), machine.daemon
    for _ in range(3):
        machine.start(wait=False)
        assert machine.daemon is not None and machine.daemon is not first
        assert machine.daemon.wait(60) == 1
        assert "another kubelite (pid " in machine.tail(3)
    machine.daemon = first
    assert machine.answers()
    assert lens.instances(machine) == before
    (machine.manifests / "always.yaml").unlink()
    machine.wait_gone("always")
