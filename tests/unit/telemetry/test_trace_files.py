"""Start traces in files: what a daemon makes of the steps of an earlier or newer one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from kubelite.kube.json import Json
from kubelite.telemetry.tracing.trace import Tracer


async def test_steps_of_an_earlier_daemon_are_not_exported_again(tmp_path: Path) -> None:
    exported: list[Callable[[], list[Json]]] = []
    for container in ("a", "b"):
        tracer = Tracer(started=lambda _uid, steps: exported.append(steps), directory=str(tmp_path))
        times = f"{time.monotonic_ns()} exec\n{time.monotonic_ns()} \n"
        tracer.inner("u", container, times, step="start")
        assert tracer.files is not None
        tracer.files.close()
    assert [step["container"] for step in tracer.steps("u")] == ["a", "b"]
    assert [[step["container"] for step in steps()] for steps in exported] == [["a"], ["b"]]


def test_a_field_of_a_newer_version_does_not_break_a_trace(tmp_path: Path) -> None:
    step = {"at": 1.0, "step": "recorded", "took": 0.0, "invented": "x"}
    (tmp_path / "u.json").write_text(json.dumps({"steps": [step], "inner": {}}))
    assert Tracer(directory=str(tmp_path)).steps("u") == [{"at": 1.0, "step": "recorded", "invented": "x"}]
