"""`python -m tests.coverage_table coverage.json`: what `make coverage` measured, a line a room of the program."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

DEEPER = ("kubelite/node", "runtime/oci", "runtime/images")  # whose rooms have a line each


class Counts(NamedTuple):
    """Statements and branches: how many there are, how many were run."""

    statements: int = 0
    executed: int = 0
    branches: int = 0
    taken: int = 0

    def __add__(self, other: tuple[Any, ...]) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def percent(self) -> float:
        """As coverage.py has it: statements and branches together."""
        there = self.statements + self.branches
        return 100.0 * (self.executed + self.taken) / there if there else 100.0


def room(path: str) -> str:
    """The directory that a file is counted with."""
    *above, _ = path.split("/")
    depth = 3 if "/".join(above[:2]) in DEEPER else 2
    return "/".join(above[:depth])


def counts(report: dict[str, Any]) -> dict[str, Counts]:
    """Counts by room, from coverage.py's JSON report."""
    found: defaultdict[str, Counts] = defaultdict(Counts)
    for path, file in report["files"].items():
        summary = file["summary"]
        found[room(path)] += Counts(
            summary["num_statements"],
            summary["covered_lines"],
            summary["num_branches"],
            summary["covered_branches"],
        )
    return dict(found)


def table(rooms: dict[str, Counts]) -> str:
    rows = [*sorted(rooms.items()), ("all", sum(rooms.values(), Counts()))]
    lines = [f"{'':32}{'statements':>12}{'branches':>12}{'covered':>10}"]
    lines += [f"{name:32}{of.statements:>12}{of.branches:>12}{of.percent:>9.1f}%" for name, of in rows]
    return "\n".join(lines)


def main(file: str) -> int:
    rooms = counts(json.loads(Path(file).read_text()))
    print(table(rooms))
    return 0 if rooms else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
