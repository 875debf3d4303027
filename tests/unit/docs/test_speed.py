"""The tables of speed agree with the recorded measurements, and README's other numbers are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.docs import speed
from deploy.docs.speed import MEASURED, README, REPO, TABLES

RECORD = """2 × CPU, Linux 6.18.44-x, cgroup v1, load 4.4 3.6 3.8
Python 3.13.5; podman version 5.4.2; Docker version 26.1.5+dfsg1, build a72d7cd

                     median  (min–max)

start one pod, ms                                  < 30, 6 × the next best  reached
  kubelite             17.6  (17.2–19.8)    1.00×
  podman (crun)           –

engine alone, bundle → first instruction, ms
  kubelite engine      6.14  (5.64–6.66)
"""


def test_the_rows_of_a_record() -> None:
    first, engine = speed.rows(RECORD)
    assert first == ("start one pod", "ms", {"kubelite": "17.6", "podman (crun)": "–"})
    assert engine.title == "engine alone, bundle → first instruction"


def test_the_machine_of_a_record() -> None:
    said = "Measured on 2 × CPU, Linux 6.18, cgroup v1; Python 3.13.5, podman 5.4.2, Docker 26.1.5."
    assert speed.machine(RECORD) == said


def test_a_page_without_the_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place for speed"):
        speed.replaced("text", "speed", "table")
    with pytest.raises(ValueError, match="nothing is recorded"):
        speed.recorded("bench", "text")


@pytest.mark.parametrize("path", sorted({path for path, *_ in TABLES}), ids=lambda path: path.name)
def test_the_tables_agree_with_the_record(path: Path) -> None:
    made = speed.pages([path])[path]
    assert path.read_text(encoding="utf-8") == made, (
        f"python -m deploy.docs.speed ({MEASURED.name} has the record)"
    )


def test_the_size_that_the_readme_names() -> None:
    said = re.search(r"(?:about|more than) ([\d,]+) lines", README.read_text(encoding="utf-8"))
    assert said is not None
    rooms = ("kubelite", "manifests", "runtime", "state")
    paths = (path for room in rooms for path in (REPO / room).rglob("*.py"))
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in paths)
    assert abs(lines / int(said[1].replace(",", "")) - 1) < 0.1, f"it is {lines} lines"
