"""`kubelite ui`: its rows, and the application driven by its keys over a served API."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.kube.json import Json
from kubelite.ui import model
from kubelite.ui.app import Ui
from kubelite.ui.model import Samples, sparkline
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


def test_a_sparkline_of_next_to_nothing_is_low() -> None:
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
    assert [(row.cells[0], row.cells[1], row.cells[2], row.trouble) for row in rows] == [
        ("first (init)", "Completed", "0", False), ("a", "Running", "0", False), ("b", "CrashLoopBackOff", "4", True),
    ]  # fmt: skip
    assert [row.key for row in model.chosen(rows, "crash Y:2")] == ["b"]
    pod["spec"]["ephemeralContainers"] = [{"name": "look", "image": "registry.example/tools/box:3"}]
    assert model.container_rows(pod, Samples(), 0.0, width=3)[-1].cells[::7] == ("look (debug)", "box:3")


def test_processes_by_what_they_take() -> None:
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
        await until(lambda: "250m" in cells(app)[1])  # web's use, from the second look on
        assert "web" in cells(app)[1] and "▁" in cells(app)[1].replace("█", "▁")
        assert "prod/broken" in cells(app)[2] and "ImagePullBackOff" in cells(app)[2]
        table = app.screen.query_one("DataTable")
        assert table.virtual_size.width <= 80, "nothing is off the screen"
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

        await pilot.press("up", "up", "e")
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


async def test_a_daemon_that_goes_away_is_said(server: Served) -> None:
    app = Ui(server.socket, namespace=None, interval=0.2)
    async with app.run_test(size=(80, 24)):
        await until(lambda: isinstance(app.screen, Pods) and len(cells(app)) == 3)
        Path(server.socket).rename(server.socket + ".away")
        title = app.screen.query_one(".title")
        await until(lambda: title.has_class("trouble"))
        assert len(cells(app)) == 3, "what was seen last stays"
        Path(server.socket + ".away").rename(server.socket)
        await until(lambda: not title.has_class("trouble"))


def test_a_logs_lines_are_whole_whatever_the_pieces() -> None:
    text = "first\nein Stück ▁▂\r\n\nno end"
    for size in range(1, 12):
        lines = model.Lines()
        data = text.encode()
        found = [line for at in range(0, len(data), size) for line in lines.feed(data[at : at + size])]
        assert found == ["first", "ein Stück ▁▂", ""], size
        assert lines.feed(b"", last=True) == ["no end"]
        assert lines.feed(b"", last=True) == []
