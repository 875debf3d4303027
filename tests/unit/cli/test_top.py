"""`kubelite top` and `stats`, and the output formats of a trace."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import time
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelite.cli.containers.stats import _screenful
from kubelite.cli.output.rates import percent, rates, size_text
from kubelite.cli.output.trace_formats import WIDTH, bar, chrome, short
from kubelite.telemetry.tracing.trace import INNER, UNKNOWN, Tracer, inner_steps, spans
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server

__all__ = ["server"]
NOW = ("--interval", "0.05")  # the fake's clock advances by a second with each call


def test_pods_with_kubectls_columns(server: Served) -> None:
    lines = ok(server, "top", "pods", *NOW).splitlines()
    assert lines[0].split() == ["NAME", "CPU(CORES)", "MEMORY(BYTES)"]
    assert lines[1].split() == ["web", "250m", "64Mi"]
    assert ok(server, "top", "pod", "web", "-A", "--no-headers", *NOW).split() == [
        "default",
        "web",
        "250m",
        "64Mi",
    ]
    assert ok(server, "top", "containers", "--no-headers", *NOW).split() == ["web", "app", "250m", "64Mi"]
    assert ok(server, "top", "pods", "--containers", "--no-headers", *NOW).split()[1] == "app"


def test_wide_output_shows_throttling_and_stalls(server: Served) -> None:
    header, row = ok(server, "top", "pods", "-o", "wide", *NOW).splitlines()
    assert "THROTTLED" in header
    assert row.split() == [
        "web",
        "250m",
        "64Mi",
        "50%",
        "10.0%",
        "0.0%",
        "0.0%",
        "2.0Ki",
        "0B",
        "0B",
        "4.0Ki",
        "3",
        "50%",
    ]


def test_the_sum_of_all_pods(server: Served) -> None:
    row, line, total = ok(server, "top", "pods", "-A", "--sum", "--no-headers", *NOW).splitlines()
    assert row.split()[-2:] == total.split() == ["250m", "64Mi"] and line.split() == ["________"] * 2
    assert [text.index("250m") for text in (row, total)] == [line.index("_")] * 2, "under their columns"


def test_top_of_the_node(server: Served) -> None:
    header, row = ok(server, "top", "node", *NOW).splitlines()
    assert header.split() == ["NAME", "CPU(CORES)", "CPU(%)", "MEMORY(BYTES)", "MEMORY(%)"]
    assert row.split() == ["here", "500m", "25%", "1024Mi", "25%"]


def test_json_output_and_no_pods(server: Served) -> None:
    (item,) = json.loads(ok(server, "top", "pods", "-o", "json", *NOW))["items"]
    assert item["cpu"] == pytest.approx(250)
    assert (
        kubelite(server, "top", "pods", "-n", "other", *NOW).stderr
        == "No resources found in other namespace.\n"
    )
    done = kubelite(server, "top", "pods", "nope", *NOW)
    assert done.returncode == 1
    assert 'nothing of pod "nope" runs in default' in done.stderr


def test_stats_once(server: Served) -> None:
    header, row = ok(server, "stats", "--no-stream", "--interval", "0.1").splitlines()
    assert header.split()[:2] == ["POD", "CONTAINER"]
    assert row.split()[:2] == ["web", "app"]
    assert "25.0%" in row
    assert "64Mi / 128Mi" in row


def test_stats_of_every_namespace(server: Served) -> None:
    header, row = ok(server, "stats", "-A", "--no-stream", "--interval", "0.1").splitlines()
    assert header.split()[:3] == ["NAMESPACE", "POD", "CONTAINER"]
    assert row.split()[:3] == ["default", "web", "app"]


def test_stats_fill_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each screen overwrites the previous one; lines that do not fit are counted."""
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((6, 4)))
    assert _screenful(["one", "two and more"]) == "\x1b[Hone\x1b[K\ntwo an\x1b[K\n\x1b[J"
    assert _screenful(["a", "b", "c", "d"]).splitlines() == [
        "\x1b[Ha\x1b[K",
        "b\x1b[K",
        "… and \x1b[K",
        "\x1b[J",
    ]


def test_a_counter_that_decreased_gives_no_rate() -> None:
    found = rates({"cpu": 5, "received": 100}, {"cpu": 3, "received": 40}, 1.0)
    assert (found["cpu"], found["received"]) == (0, 0)


def test_sizes() -> None:
    assert [size_text(n) for n in (0, 999, 1024, 1536, 20 << 10, 999 << 20, 5 << 40)] == [
        *("0B", "999B", "1.0Ki", "1.5Ki", "20Ki", "999Mi", "5.0Ti")
    ]
    assert percent(1, 0) == ""


TRACE = {
    "pod": "default/web",
    "uid": "u",
    "steps": [
        {"at": 100.0, "step": "manifest read", "detail": "web.yaml"},
        {"at": 100.001, "step": "shim", "took": 0.004},
        {"at": 100.005, "step": "start", "took": 0.005, "container": "app", "error": "no such file"},
    ],
}


def test_a_trace_for_perfetto() -> None:
    document = chrome(TRACE)
    names = {e["args"]["name"]: e["tid"] for e in document["traceEvents"] if e["name"] == "thread_name"}
    assert names == {"pod": 1, "app": 2}, "0 is no thread in Perfetto"
    steps = [e for e in document["traceEvents"] if e["ph"] in "Xi"]
    assert [e["ph"] for e in steps] == ["i", "X", "X"]
    assert steps[2]["tid"] == 2
    assert steps[2]["dur"] == pytest.approx(5000)
    assert steps[2]["args"] == {"error": "no such file"}
    assert steps[1]["ts"] - steps[0]["ts"] == pytest.approx(1000, abs=1)


def test_steps_that_follow_each_other_do_not_overlap() -> None:
    """As a float, Unix seconds have no fractions of a microsecond."""
    rng, at, steps = random.Random(1), 1795893248.059279, []
    for number in range(2000):
        took = rng.choice((4e-7, 0.9e-6, 1.5e-6, 0.000123456, 0.5))
        steps.append({"at": at, "step": str(number), "took": took, "container": "app"})
        at += took
    found = [e for e in chrome({"pod": "d/w", "steps": steps})["traceEvents"] if e["ph"] == "X"]
    assert all(isinstance(e["ts"], int) and isinstance(e["dur"], int) and e["dur"] >= 0 for e in found)
    assert all(a["ts"] + a["dur"] <= b["ts"] for a, b in pairwise(found))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.sampled_from(["", "app"])), max_size=30))
def test_steps_on_a_row_are_nested_or_disjoint(
    rows: list[tuple[int, int, str]],
) -> None:
    steps: list[dict[str, Any]] = [
        {"at": 1795893248.0 + at / 100, "step": str(number), "took": took / 100, "container": who}
        for number, (at, took, who) in enumerate(rows)
    ]
    events = [e for e in chrome({"pod": "d/w", "steps": steps})["traceEvents"] if e["ph"] in "Xi"]
    assert sorted(e["name"] for e in events) == sorted(step["step"] for step in steps)
    for event in events:
        wanted = next(s for s in steps if s["step"] == event["name"])
        assert event.get("dur", 0) == pytest.approx(wanted["took"] * 1e6, abs=1)
    for a, b in combinations([e for e in events if e["ph"] == "X"], 2):
        if a["tid"] == b["tid"]:
            ends = a["ts"] + a["dur"], b["ts"] + b["dur"]
            assert ends[0] <= b["ts"] or ends[1] <= a["ts"] or (b["ts"] >= a["ts"] and ends[1] <= ends[0]), (
                a,
                b,
            )


def test_a_waterfall() -> None:
    steps: Any = TRACE["steps"]
    start, end = spans(steps)[0]
    assert spans(steps) == [(start, end)] * 3
    assert start == 100.0
    assert end == pytest.approx(100.010)
    bars = [bar(step, *place) for step, place in zip(steps, spans(steps), strict=True)]
    assert bars[0].strip() == "▏"
    assert bars[1].index("█") < bars[2].index("█")
    assert all(len(b) <= WIDTH for b in bars)


def test_a_later_start_has_its_own_scale() -> None:
    steps: Any = TRACE["steps"]
    later = [{"at": 110.0, "step": "manifest read"}, {"at": 110.5, "step": "start", "took": 1.0}]
    assert spans([*steps, *later]) == [*spans(steps), (110.0, 111.5), (110.0, 111.5)]
    assert spans([]) == []


def test_names_of_steps_fit_beside_the_waterfall() -> None:
    assert short("mount proc on /proc") == "mount proc on /proc"
    assert (
        short("mask " + ", ".join(f"/proc/{'x' * place}" for place in range(12))) == "mask /proc/ and 11 more"
    )
    long = f"/var/lib/kubelite/pods/{'0' * 36}/etc-hosts"
    assert short(f"bind {long} on /etc/hosts") == "bind …/etc-hosts on /etc/hosts"


def test_steps_of_an_init_are_split() -> None:
    text = (
        "1000000000 clone3\n clone3\n1001000000 rootfs\n mount move_mount \n"
        "1003000000 rootfs: mount proc on /proc\n mount mkdirat openat2 mount\n"
        "1004000000 sysctl\n1004500000 gate\n sendmsg recvfrom\n1006000000 \n"
    )
    steps = inner_steps("app", text, 500.0)
    assert [(s.step, round(s.took * 1e6), s.call) for s in steps] == [
        ("clone3", 1000, "clone3"),
        ("rootfs", 2000, "mount, move_mount"),
        ("mount proc on /proc", 1000, "mount ×2, mkdirat, openat2"),
        ("gate", 1500, "sendmsg, recvfrom"),
    ]
    assert steps[0].at == 501.0 and {s.container for s in steps} == {"app"}
    assert inner_steps("app", "cut off", 0.0) == inner_steps("app", "", 0.0) == []


def test_a_shim_of_an_older_kubelite_sends_no_system_calls() -> None:
    steps = inner_steps("app", "5 start\n7 seccomp\n9 \n", 0.0)
    assert [(s.step, s.call) for s in steps] == [("start", UNKNOWN), ("seccomp", UNKNOWN)]


def test_a_trace_survives_the_daemon(tmp_path: Path) -> None:
    async def life(*, container: str) -> list[dict[str, Any]]:
        tracer = Tracer(directory=str(tmp_path))
        tracer.mark("u", f"recorded {container}")
        text = f"{time.monotonic_ns()} pivot_root\n pivot_root\n{time.monotonic_ns()} \n"
        tracer.inner("u", container, text, step="create")
        assert tracer.files is not None
        tracer.files.close()
        return tracer.steps("u")

    first = asyncio.run(life(container="a"))
    both = asyncio.run(life(container="b"))
    assert [s["step"] for s in both] == ["recorded a", "pivot_root", "recorded b", "pivot_root"]
    assert both[:2] == first
    third = Tracer(directory=str(tmp_path))
    assert third.steps("u") == both and third.steps("other") == []
    assert third.files is not None
    third.files.sweep({"another"})
    assert third.steps("u") == [] == list(tmp_path.iterdir())


def test_a_truncated_trace_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "u.json").write_text('{"steps": [{"at')
    assert Tracer(directory=str(tmp_path)).steps("u") == []


def test_a_crash_loop_does_not_displace_other_starts() -> None:
    tracer = Tracer()
    tracer.inner("u", "app", "1 pivot_root\n2 \n", step="create")
    for at in range(100):
        tracer.inner("u", "side", f"{at} pivot_root\n{at + 1} \n", step="create")
    assert [s["container"] for s in tracer.steps("u")].count("app") == 1
    assert len(tracer.steps("u")) == 1 + INNER


def test_a_step_begins_no_later_than_its_parts() -> None:
    """The shim proceeds to the start while its response to the creation is on the way to a busy daemon."""
    tracer, sent = Tracer(), time.monotonic_ns()
    with tracer.step("u", "create", container="app"):
        created = time.monotonic_ns()
        time.sleep(0.02)
    tracer.inner("u", "app", f"{sent} clone3\n{created} \n", step="create")
    with tracer.step("u", "start", container="app"):
        over = time.monotonic_ns()
    with tracer.step("u", "start", container="other"):
        pass
    tracer.inner("u", "app", f"{created} start\n{over} \n", step="start")
    tracer.inner("u", "app", "cut off", step="start")
    found = [(s["step"], s["container"]) for s in tracer.steps("u")]
    assert found == [
        ("create", "app"), ("clone3", "app"), ("start", "app"), ("start", "app"), ("start", "other"),
    ]  # fmt: skip
    outer, inner = [s for s in tracer.steps("u") if (s["step"], s["container"]) == ("start", "app")]
    assert "call" not in outer and inner["call"]
    assert outer["at"] == inner["at"] and outer["took"] >= 0.02 and inner["took"] >= 0.02
    before = next(
        s for s in tracer.steps("u") if s["step"] == "create"
    )  # and the step before it ends where it begins
    assert before["took"] < 0.02 and before["at"] + before["took"] == pytest.approx(outer["at"], abs=1e-6)


def test_trace_commands(server: Served, tmp_path: Path) -> None:
    assert json.loads(ok(server, "trace", "web", "-o", "chrome"))["displayTimeUnit"] == "ms"
    assert "█" in ok(server, "trace", "web", "-o", "wide")
    assert "█" not in ok(server, "trace", "web")
