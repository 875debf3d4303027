"""What a node does for a pod does not grow unnoticed: the system calls, processes and bytes written of a start, an
edit, a removal and a scrape are compared with the record beside this file.

After a change that is meant to change them: RECORD_COUNTS=1 python -m pytest tests/e2e/test_call_counts.py
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import programs, waiting
from tests.e2e.call_counts import grown, steady, totals, watched
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node

pytestmark = pytest.mark.skipif(bool(programs.missing("strace", "curl")), reason="needs strace and curl")

RECORD = Path(__file__).with_name("call_counts.json")
RUNS = 3
SETTLED = 1.6  # seconds; what is done later (a commit, the trace, the next spare shim) belongs to a start
ALLOWED = 0.1  # growth
SCRIPT = "trap 'exit 0' TERM; echo {word}; read line"  # starts no process


def test_a_pod_takes_no_more_calls_than_recorded(node: Node, tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(RUNS + 1)]  # the first run warms up
    spans: dict[str, list[tuple[float, float]]] = {}

    def measured(what: str, act: Callable[[], object], done: Callable[[], bool]) -> None:
        began = time.time()
        act()
        waiting.until(done, what)  # without a question to the daemon: an answer takes calls, too
        time.sleep(SETTLED)
        spans.setdefault(what, []).append((began, time.time()))

    def logged(name: str, word: str) -> Callable[[], bool]:
        return lambda: any(
            word in p.read_text() for p in node.log_dir.glob(f"pods/default_{name}_*/main/*.log")
        )

    def gone(name: str) -> Callable[[], bool]:
        return lambda: not list(node.log_dir.glob(f"pods/default_{name}_*"))

    def write(name: str, word: str) -> None:
        (tmp_path / "new.yaml").write_text(_manifest(name, word))
        (tmp_path / "new.yaml").rename(node.manifests / f"{name}.yaml")

    node.apply("first.yaml", _manifest("first", "started"))
    node.wait_status("first", "Running")
    time.sleep(SETTLED)
    with watched(_processes(node), tmp_path / "calls") as watch:
        for name in names:
            measured("start", lambda name=name: write(name, "started"), logged(name, "started"))  # type: ignore[misc]
        for name in names:
            measured("edit", lambda name=name: write(name, "edited"), logged(name, "edited"))  # type: ignore[misc]
        for _ in names:
            measured("scrape", lambda: _scrape(node), lambda: True)
        for name in names:
            measured("removal", (node.manifests / f"{name}.yaml").unlink, gone(name))
    found = {what: steady([watch.between(*span) for span in at[1:]]) for what, at in spans.items()}
    assert all(totals(counts)["calls"] for counts in found.values()), found  # strace saw them
    if os.environ.get("RECORD_COUNTS"):
        RECORD.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        pytest.skip("the counts are recorded")
    record = json.loads(RECORD.read_text())
    more = {what: said for what in record if (said := grown(found[what], record[what], ALLOWED))}
    assert not more, f"more than {ALLOWED:.0%} above {RECORD.name}: {json.dumps(more, indent=1)}"


def _manifest(name: str, word: str) -> str:
    return pod(name, container(script=SCRIPT.format(word=word), stdin=True))


def _scrape(node: Node) -> None:
    command = node.in_netns(
        "curl", "-sSfo", "/dev/null", f"http://{node.environ()['KUBELITE_LISTEN']}/metrics"
    )
    subprocess.run(command, check=True, timeout=30)


def _processes(node: Node) -> list[int]:
    """The daemon, its helpers and the spare shim."""
    assert node.daemon is not None
    found = [node.daemon.pid]
    for pid in found:
        found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found
