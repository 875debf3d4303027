"""`kubelite tour`: its stations, the page of docs/ for each, and how a station removes its working directory."""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from kubelite.cli.signals import exit_on_signals
from kubelite.cli.tour.guide import Guide, static_busybox
from kubelite.cli.tour.start import PARTS, _counts
from kubelite.cli.tour.tour import NAMES, STATIONS
from tests.programs import BUSYBOX
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server

__all__ = ["server"]
REPO = Path(__file__).resolve().parents[3]
PAGES = REPO / "docs/tutorials/tour"


@pytest.mark.parametrize("station", STATIONS, ids=NAMES)
def test_a_station_explains_itself_in_three_sentences_and_has_a_page(station: tuple[str, str]) -> None:
    name, title = station
    module = importlib.import_module(f"kubelite.cli.tour.{name}")
    assert callable(module.visit)
    assert len(re.findall(r"[.](?=\s|$)", module.INTRODUCTION)) == 3
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {NAMES.index(name) + 1}. {title}\n")
    assert "✓" in page and "✗" not in page, "record it again: python -m deploy.docs.tour"
    assert f"({name}.md)" in (PAGES / "index.md").read_text(encoding="utf-8")
    assert f"tutorials/tour/{name}.md" in (REPO / "mkdocs.yml").read_text(encoding="utf-8")


def test_each_file_of_the_closing_table_exists() -> None:
    files = [row[-1] for row in PARTS]
    assert [file for file in files if not (REPO / file).is_file()] == []
    page = (PAGES / "start.md").read_text(encoding="utf-8")
    assert [file for file in files if file not in page] == [], (
        "record it again: python -m deploy.docs.tour start"
    )


def test_the_calls_of_a_step_are_counted() -> None:
    assert _counts("openat2 ×2, mount, write ×13") == {"openat2": 2, "mount": 1, "write": 13}


def test_the_list_of_stations(server: Served) -> None:
    listed = ok(server, "tour", "--list").splitlines()
    assert [line.split()[1] for line in listed] == list(NAMES)


def test_a_station_that_is_not_there(server: Served) -> None:
    done = kubelite(server, "tour", "moon")
    assert done.returncode == 2
    assert "there is no station 'moon'; the stations are processes, " in done.stderr


def test_a_closed_terminal_does_not_prevent_the_removal(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.EIO, "")

    monkeypatch.setattr(sys, "stderr", Closed())
    with pytest.raises(KeyError), Guide(server.socket, waits=False) as guide:
        raise KeyError
    assert not Path(guide.directory).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_interrupt_the_removal(server: Served, number: signal.Signals) -> None:
    with pytest.raises(KeyError), exit_on_signals(), Guide(server.socket, waits=False) as guide:
        guide.undo.callback(os.kill, os.getpid(), number)
        raise KeyError


@pytest.mark.skipif(not BUSYBOX, reason="needs busybox")
def test_the_busybox_of_the_tour_needs_no_libraries() -> None:
    assert static_busybox() in (BUSYBOX, "")
