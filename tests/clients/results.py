"""The results that the documentation shows (docs/reference/clients.md): a file of lines `client, version, what`, one
for each call that works. A test compares its own with them; `make clients` writes them, and the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("results.tsv")
RECORD = "TEST_RECORD"  # environment variable: write the results


class Line(NamedTuple):
    client: str
    version: str
    what: str


def read() -> list[Line]:
    return [Line(*line.split("\t")) for line in FILE.read_text().splitlines() if line]


def check(client: str, version: str, what: Sequence[str]) -> None:
    """Compare the calls of a client that work with those in the file, or record them."""
    found = [Line(client, version, one) for one in what]
    if os.environ.get(RECORD):
        others = [line for line in read() if line.client != client] if FILE.exists() else []
        lines = sorted(
            [*others, *found], key=lambda line: line.client
        )  # the lines of a client keep their order
        FILE.write_text("".join("\t".join(line) + "\n" for line in lines))
        return
    known = {line.what for line in read() if line.client == client}
    assert {*what} == known, f"{client}: run `make clients` to record what works: {known ^ {*what}}"
