"""`kubelite ui`: its rows, and the application driven by its keys over a served API."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from kubelite.diagnosis.health import Level
from kubelite.kube.json import Json
from kubelite.ui import model
from kubelite.ui.app import Ui
from kubelite.ui.layout import fit, gap_of, placed
from kubelite.ui.model import Headline, Samples, sparkline
from kubelite.ui.parts import title, why
from kubelite.ui.reasons import EACH, Reasons
from kubelite.ui.tables import Containers, Events, Pods, Processes, TableScreen
from kubelite.ui.texts import Help, Log, Reason
from tests.unit.api.fake_node import event_doc, pod_doc
from tests.unit.api.server import Served
from tests.waiting import until_async as until


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], "    "),
        ([0, 0], "  ▁▁"),
        ([1, 2, 4, 8], "▁▂▄█"),
        ([9, 1, 2, 4, 8], "▁▂▄█"),
    ],
)
def test_a_sparkline(values: list[float], line: str) -> None:
    assert sparkline(values, 4) == line


def test_a_sparkline_of_tiny_values_is_low() -> None:
    assert sparkline([1, 2], 4, top=100.0) == "  ▁▁"


def test_rows_of_containers() -> None:
    pod = pod_doc("web", containers=[{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}])
    pod["spec"]["initContainers"] = [{"name": "first", "image": "z"}]
    pod["status"]["initContainerStatuses"] = [
        {"name": "first", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}
    ]
    pod["status"]["containerStatuses"][1] |= {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 4, "ready": False,
    }  # fmt: skip
    rows = model.container_rows(pod, Samples(), 0.0, width=3)
    assert [(row.cells[1], row.cells[2], row.cells[3], row.level) for row in rows] == [
        ("first (init)", "Completed", "0", Level.COMPLETED),
        ("a", "Running", "0", Level.RUNNING),
        ("b", "CrashLoopBackOff", "4", Level.FAILING),
    ]
    assert [row.key for row in model.chosen(rows, "crash Y:2")] == ["b"]
    pod["spec"]["ephemeralContainers"] = [{"name": "look", "image": "registry.example/tools/box:3"}]
    last = model.container_rows(pod, Samples(), 0.0, width=3)[-1].cells
    assert (last[1], last[-1]) == ("look (debug)", "box:3")


def table(*pods: tuple[str, str, str]) -> Json:
    """A Table of pods, given as name, ready and status."""
    rows = [
        {"cells": [name, ready, status, "3 (1m ago)", "5m", "10.0.0.1"],
         "object": {"metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"}}}
        for name, ready, status in pods
    ]  # fmt: skip
    return {"rows": rows}


MANY = (
    ("a", "1/1", "Running"),
    ("b", "0/1", "Running"),
    ("c", "0/1", "CreateContainerConfigError"),
    ("d", "0/1", "Completed"),
)


def test_what_is_wrong_comes_first_with_its_why() -> None:
    rows = model.in_order(model.pod_rows(table(*MANY), Samples(), {"default/c": "add it"}, width=8), 0)
    assert [row.cells[0] + row.cells[1] for row in rows] == ["✕c", "◐b", "●a", "○d"]
    assert rows[1].cells[3] == "Not ready" and rows[0].cells[-1] == "add it"
    assert [row.cells[1] for row in model.in_order(rows, 1)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("width", range(40, 260))
def test_columns_fit_every_terminal_and_status_is_never_cut(width: int) -> None:
    samples = Samples()
    for second in (0, 1):
        use = {"cpu": second * 5 * 10**8, "memory": 1 << 20, "memoryLimit": 4 << 20}
        found = {"containers": [], "pods": [{"id": one[0], **use} for one in MANY]}
        samples.add({"now": second, "node": {"cpu": 0, "memory": 0}, **found})
    pods = (*MANY, ("a-name-that-is-as-long-as-the-names-which-generators-make-x2x4z", "1/1", "Running"))
    rows = model.pod_rows(table(*pods), samples, {"default/c": "a long explanation " * 9}, width=16)
    names = [column.name for column in Pods.COLUMNS]
    widths = fit(Pods.COLUMNS, [names, *(row.cells for row in rows)], width)
    gap = gap_of(width)
    assert sum(widths) <= width
    shown = dict(zip(names, widths, strict=True))
    assert shown["STATUS"] >= len("CreateContainerConfigError") + gap and shown["POD"] >= 4 + gap * (
        width > 45
    )
    if width >= 80:
        assert shown["POD"] >= 18 and shown["CPU"] and shown["MEM"] and shown["RST"]
    if width >= 60:
        assert sum(widths) == width, "nothing is left over"
    if width >= 160:
        assert all(widths), "nothing is left out"
    for row in rows:
        for text, size in zip(row.cells, widths, strict=True):
            assert len(placed(text, size, gap)) == size


def test_texts_are_placed_with_a_mark_where_they_are_cut() -> None:
    assert placed("abc", 6, 1) == "abc   " and placed("abc", 6, 1, right=True) == "  abc "
    assert placed("abcdefgh", 6, 1) == "abcd… " and placed("abc", 0, 1) == ""
    assert cell_len(placed("日本語の名前", 6, 1)) == 6


def test_all_lines_have_one_scale() -> None:
    samples = Samples()
    node = {"cpu": 0, "memory": 0}
    for second in (0, 1):
        pods = [
            {"id": "busy", "cpu": second * 387 * 10**6, "memory": 1},
            {"id": "idle", "cpu": second * 10**6, "memory": 1},
        ]
        samples.add({"now": second, "node": node, "pods": pods, "containers": []})
    assert samples.top == pytest.approx(500)
    assert (samples.cells("busy", 1)[0], samples.cells("idle", 1)[0]) == ("▆", "▁")


def test_rows_of_many_pods_are_made_quickly() -> None:
    samples, names = Samples(), [f"p{number}" for number in range(500)]
    for second in range(model.KEPT):
        pods = [{"id": name, "cpu": second * 10**6, "memory": 1} for name in names]
        samples.add({"now": second, "node": {"cpu": 0, "memory": 0}, "pods": pods, "containers": []})
    found = table(*((name, "1/1", "Running") for name in names))
    begin = time.process_time()
    model.pod_rows(found, samples, {}, width=8)
    assert time.process_time() - begin < 0.5, "seconds of CPU; 0.01 on an idle machine"


def test_a_hundred_failing_pods_are_asked_about_a_few_at_a_time() -> None:
    asked: list[str] = []

    def ask(path: str) -> Json:
        asked.append(path.rpartition("/")[2])
        return {"advice": ["do this"], "reasons": ["because"]}

    clock = [0.0]
    reasons = Reasons(ask, lambda: clock[0])
    rows = model.pod_rows(table(*((f"p{n:02}", "0/1", "Error") for n in range(100))), Samples(), {}, width=8)
    reasons.refresh(rows, "default/p50")
    assert len(asked) == EACH and asked[0] == "p50", "the selected one first"
    for _ in range(24):
        reasons.refresh(rows, "default/p50")
    assert len(asked) == len(set(asked)) == 100
    reasons.refresh(rows, "default/p50")
    assert len(asked) == 100, "nothing has changed"
    reasons.refresh([rows[0]._replace(version="2")], "")
    assert asked[100:] == ["p00"] and set(reasons.short) == {"default/p00"}, "who is gone is forgotten"
    clock[0] = 16.0
    reasons.refresh(rows[:1], "")
    assert asked[101:] == ["p00"]


def test_the_panel_says_why_and_what_to_try() -> None:
    answer = {
        "reasons": ["container a waits"],
        "lastWords": ["a: one", "a: fatal"],
        "advice": ["logs a"],
        "observed": ["x"],
    }
    bad, _, good, _ = model.in_order(model.pod_rows(table(*MANY), Samples(), {}, width=8), 0)
    text = why(bad, answer, 4, 80).plain
    assert "✕ c  CreateContainerConfigError" in text
    assert "Because: container a waits\nLast words: a: fatal\nTry: logs a" in text
    assert "Seen: x" in why(good, answer, 4, 80).plain and "asking why" in why(bad, {}, 4, 80).plain
    assert "no pods yet" in why(None, {}, 0, 80).plain


@pytest.mark.parametrize("width", [40, 60, 80, 120, 250])
def test_the_title_fits(width: int) -> None:
    head = Headline("node", {Level.FAILING: 12, Level.RUNNING: 300}, "▁▂▃ 9% of 2 CPUs", "██░ 9% of 24Gi")
    first, second = title(head, width, "by cpu").plain.split("\n")
    assert len(first) <= width and len(second) <= width
    assert "✕ 12" in first and "● 300" in first


def test_processes_are_sorted_by_usage() -> None:
    def one(pid: int, cpu: int) -> Json:
        return {
            "pid": pid,
            "innerPid": 1,
            "user": 0,
            "state": "S",
            "cpu": cpu,
            "memory": 1,
            "threads": 1,
            "command": "c",
        }

    rows = model.process_rows([one(1, 0), one(2, 0)], [one(1, 0), one(2, 500_000_000), one(3, 9)], 1.0)
    assert [(row.key, row.cells[4]) for row in rows] == [("2", "500m"), ("1", "0m"), ("3", "0m")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served.at(tmp_path) as served:
        for name in ("db", "web"):
            served.run(served.node.store.create("Pod", pod_doc(name)))
        broken = pod_doc("broken", namespace="prod")
        broken["status"]["containerStatuses"][0] |= {
            "state": {"waiting": {"reason": "ImagePullBackOff"}}, "ready": False,
        }  # fmt: skip
        served.run(served.node.store.create("Pod", broken))
        event = event_doc("e1", "web", "Started", "Started container app")
        served.run(served.node.store.create("Event", event))
        log = tmp_path / "logs" / "web" / "app" / "0.log"
        log.parent.mkdir(parents=True)
        log.write_text("2026-01-01T00:00:00.000000000Z stdout F hello from the log\n")
        yield served


def cells(app: Ui) -> list[str]:
    screen = app.screen
    assert isinstance(screen, TableScreen)
    table = screen.table
    return [" ".join(str(cell) for cell in table.get_row_at(place)) for place in range(table.row_count)]


async def test_every_screen_by_its_keys_at_80_by_24(server: Served) -> None:
    app = Ui(server.socket, namespace=None, interval=0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: isinstance(app.screen, Pods) and len(cells(app)) == 3)
        await until(lambda: "250m" in cells(app)[2])  # web's use, from the second look on
        assert "web" in cells(app)[2] and any(block in cells(app)[2] for block in "▁▂▃▄▅▆▇█")
        assert "✕" in cells(app)[0] and "prod/broken" in cells(app)[0], "what is wrong comes first"
        assert "ImagePullBackOff" in cells(app)[0]
        table = app.screen.query_one("DataTable")
        assert table.virtual_size.width <= 80, "nothing is off the screen"
        panel = app.screen.query_one("#why")
        await until(lambda: "prod/broken" in str(panel.render()) and "Because:" in str(panel.render()))
        await pilot.press("p")
        await until(lambda: len(cells(app)) == 1)
        await pilot.press("p", "s", "s")
        await until(lambda: "web" in cells(app)[0])  # by CPU
        await pilot.press("s", "s", "s", "s")
        await until(lambda: "broken" in cells(app)[0])
        server.run(server.node.store.delete("uid-default-db"))
        await until(lambda: len(cells(app)) == 2)

        await pilot.press("slash", *"pull", "enter")
        await until(lambda: len(cells(app)) == 1 and "broken" in cells(app)[0])
        await pilot.press("escape")
        await until(lambda: len(cells(app)) == 2)
        await pilot.press("slash", *"prod", "slash", *"br", "enter")  # in the filter it is a letter
        await until(lambda: len(cells(app)) == 1 and "broken" in cells(app)[0])
        await pilot.press("escape")
        await until(lambda: len(cells(app)) == 2)

        await pilot.press("question_mark")
        await until(lambda: isinstance(app.screen, Help))
        await pilot.press("x")  # any key closes it, and does nothing else
        await until(lambda: isinstance(app.screen, Pods))

        await pilot.press("down", "down", "e")
        await until(lambda: isinstance(app.screen, Events) and "Started container app" in "".join(cells(app)))
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, Pods))

        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, Containers) and "app" in "".join(cells(app)))
        await pilot.press("l")
        await until(lambda: isinstance(app.screen, Log))
        log = app.screen.query_one("RichLog")
        await until(lambda: any("hello from the log" in line.text for line in log.lines))  # type: ignore[attr-defined]
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, Containers))

        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, Processes) and str(os.getpid()) in "".join(cells(app)))
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, Containers))
        await pilot.press("w")
        await until(lambda: isinstance(app.screen, Reason))
        reason = app.screen.query_one("RichLog")
        await until(lambda: any("container app runs" in line.text for line in reason.lines))  # type: ignore[attr-defined]
        await pilot.press("escape", "escape", "escape")
        assert isinstance(app.screen, Pods), "there is nothing behind the pods"
        await pilot.press("q")


async def test_a_stopped_daemon_is_reported(server: Served) -> None:
    app = Ui(server.socket, namespace=None, interval=0.2)
    async with app.run_test(size=(80, 24)):
        await until(lambda: isinstance(app.screen, Pods) and len(cells(app)) == 3)
        Path(server.socket).rename(server.socket + ".away")
        title = app.screen.query_one(".title")
        await until(lambda: title.has_class("trouble"))
        assert len(cells(app)) == 3, "what was seen last stays"
        Path(server.socket + ".away").rename(server.socket)
        await until(lambda: not title.has_class("trouble"))


def test_log_lines_are_complete() -> None:
    text = "first\nein Stück ▁▂\r\n\nno end"
    for size in range(1, 12):
        lines = model.Lines()
        data = text.encode()
        found = [line for at in range(0, len(data), size) for line in lines.feed(data[at : at + size])]
        assert found == ["first", "ein Stück ▁▂", ""], size
        assert lines.feed(b"", last=True) == ["no end"]
        assert lines.feed(b"", last=True) == []
