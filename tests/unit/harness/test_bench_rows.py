"""The table of the benchmark: ratios, dashes, and whether a row reaches its target."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.record import record
from tests.bench.rows import ROWS, Found, table, verdict

BY_KEY = {row.key: row for row in ROWS}


@pytest.mark.parametrize(
    ("key", "samples", "wanted"),
    [
        ("first", {"kubelite": [20.0], "docker": [130.0], "bare C": [3.0]}, "reached"),
        (
            "first",
            {"kubelite": [20.0], "docker": [110.0], "bare C": [3.0]},
            "NOT reached",
        ),  # not six times ahead
        ("first", {"kubelite": [31.0], "docker": [900.0]}, "NOT reached"),
        ("first", {"kubelite": [29.0, 29.0, 99.0]}, "reached"),  # the median counts
        ("hundred", {"kubelite": [1.99]}, "reached"),
        ("hundred", {"kubelite": [2.0]}, "NOT reached"),
        ("engine", {"kubelite engine": [5.9], "bare C": [2.0]}, "reached"),
        ("engine", {"kubelite engine": [6.1], "bare C": [2.0]}, "NOT reached"),
        ("engine", {"kubelite engine": [6.1]}, ""),  # nothing to compare with
        ("idle", {"docker": [0.1]}, ""),  # not measured: neither
        ("ended", {"kubelite": [1.0]}, ""),  # nothing to reach
    ],
)
def test_verdict(key: str, samples: dict[str, list[float]], wanted: str) -> None:
    assert verdict(BY_KEY[key], samples).strip() == wanted


def test_table() -> None:
    found = Found(
        {
            "first": {"kubelite": [10.0, 20.0, 30.0], "docker": [200.0], "bare C": [4.0]},
            "edited": {"kubelite": [50.0]},
            "engine": {"kubelite engine": [4.0], "runc": [40.0], "bare C": [2.0]},
        },
        ["podman: not installed"],
    )
    shown = table(found, ["kubelite", "docker", "kubelite engine", "runc", "bare C"], many=7, some=3)
    blocks = {block.splitlines()[0].split(",")[0]: block for block in shown.split("\n\n")}
    first = blocks["start one pod with two volumes: manifest or command → first instruction"].splitlines()
    assert first[1].split() == ["kubelite", "20.0", "(10.0–30.0)", "1.00×", "5.00×"]
    assert first[2].split() == ["docker", "200.0", "(200.0–200.0)", "10.00×", "50.00×"]
    assert [line.split()[0] for line in first[1:]] == ["kubelite", "docker", "bare"]  # runc starts no pods
    assert blocks["edit a manifest (or repeat the command) → new container"].splitlines()[2].split() == [
        "docker",
        "–",
    ]
    engine = blocks["engine alone"].splitlines()
    assert engine[2].split() == ["runc", "40.00", "(40.00–40.00)", "10.00×", "20.00×"]
    assert "left out: podman: not installed" in shown
    assert "scrape" not in shown  # rows that nobody measured


def test_record(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- bench -->\nold\n<!-- end -->\nb\n<!-- load -->\n<!-- end -->\n")
    record("bench", "new\n", page)
    record("load", "500", page)
    record("bench", "newer", page)
    first, second = ("```text\nnewer\n```\n", "```text\n500\n```\n")
    assert (
        page.read_text()
        == f"a\n<!-- bench -->\n{first}<!-- end -->\nb\n<!-- load -->\n{second}<!-- end -->\n"
    )
    with pytest.raises(ValueError, match="no place for chaos"):
        record("chaos", "x", page)
