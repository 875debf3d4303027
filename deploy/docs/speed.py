"""The tables of measured speed in README.md and the documentation, from the records of `make bench` and `make load`.

Both write their output to docs/development/measurements.md. `python -m deploy.docs.speed` generates the tables between
the marks in docs/explanation/performance.md and README.md; a test fails if they differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from deploy.docs.tables import table

REPO: Final = Path(__file__).resolve().parents[2]
MEASURED: Final = REPO / "docs" / "development" / "measurements.md"
PERFORMANCE: Final = REPO / "docs" / "explanation" / "performance.md"
README: Final = REPO / "README.md"
PEERS: Final = ("kubelite", "podman (crun)", "podman (runc)", "docker", "bare C")
NONE: Final = "–"

#: Kubernetes' bound on a pod's start for 99 of 100 pods (docs/explanation/performance.md names the source).
KUBELET_START: Final = "≤ 5000 (SLO)"
#: The rows of README.md: title in the record → title in README.md.
SHOWN: Final = {
    "start one pod with two volumes: manifest or command → first instruction": "Start a pod, ms",
    "start 100 pods at once: all running": "Start 100 pods at once, s",
    "CPU time of a pod start, all processes": "CPU time of a pod start, ms",
    "edit a manifest (or repeat the command) → new container": "Apply an edit, ms",
    "kill a container → restarted": "Restart a killed container, ms",
    "remove 100 pods: nothing left": "Remove 100 pods, s",
    "remove a pod that exits on SIGTERM: nothing left": "Remove one pod, ms",
    "memory of all runtime processes, 100 pods (PSS)": "Memory of the runtime for 100 pods, MB",
}


class Row(NamedTuple):
    """A row of the record: title, unit, and the median of each peer."""

    title: str
    unit: str
    medians: dict[str, str]


def recorded(name: str, text: str) -> str:
    """The record between `<!-- NAME -->` and `<!-- end -->`. Raises ValueError if there is none."""
    found = re.search(rf"<!-- {name} -->\n+```text\n(.*?)```\n+<!-- end -->", text, re.DOTALL)
    if found is None:
        raise ValueError(f"nothing is recorded as {name}")
    return found[1]


def rows(text: str) -> list[Row]:
    """The rows of `make bench`: a title, then a line for each peer."""
    found: list[Row] = []
    for line in text.splitlines()[2:]:
        peer = re.match(r"  (\S.*?)\s{2,}(\d[\d.]*|–)(?:\s|$)", line)
        title, comma, unit = re.split(r"\s{2,}", line)[0].rpartition(", ")
        if peer and found:
            found[-1].medians[peer[1]] = peer[2]
        elif comma and not line.startswith(" "):
            found.append(Row(title, unit, {}))
    return [row for row in found if row.medians]


def machine(text: str) -> str:
    """The first two lines of a record, as a sentence: the machine, and the versions of the peers."""
    first, second = text.splitlines()[:2]
    hardware = re.sub(r"(Linux \d+\.\d+)[^\s,]*", r"\1", first.partition(", load")[0])
    versions = [re.sub(r",? (?:version|build \S+)|\+\S+", "", part) for part in second.split("; ")]
    return f"Measured on {hardware}; {', '.join(versions)}."


def comparison(text: str) -> str:
    """Every row that compares whole nodes, with a column for each peer."""
    compared = [row for row in rows(text) if "kubelite" in row.medians]
    lines = (
        (f"{row.title}, {row.unit}", *(row.medians.get(peer, NONE) for peer in PEERS)) for row in compared
    )
    return f"{machine(text)}\n\n{table(('median of', *PEERS), lines)}"


def engines(text: str) -> str:
    """The row of the engine alone."""
    [row] = [row for row in rows(text) if "kubelite engine" in row.medians]
    return table((f"{row.title}, {row.unit}", "median"), row.medians.items())


def load(text: str) -> str:
    """`make load`: a column for each stage."""
    lines = [line for line in text.splitlines()[2:] if line.strip()]
    stages = re.split(r"\s{2,}", lines[0].strip())
    return table(
        (stages[0], *stages[1:]), (_cells(line, len(stages)) for line in lines[1:] if "reached" not in line)
    )


def _cells(line: str, width: int) -> list[str]:
    cells = re.split(r"\s{2,}", line.strip())
    if line.startswith(" "):
        cells[0] = "\u2003" * ((len(line) - len(line.lstrip())) // 2) + cells[0]
    return [*cells, *[""] * (width - len(cells))]


def short(text: str) -> str:
    """README's table: kubelet beside the measured peers."""
    by_title = {row.title: row for row in rows(text)}
    lines = []
    for title, name in SHOWN.items():
        medians = by_title[title].medians
        kubelet = KUBELET_START if name.startswith("Start a pod") else NONE
        lines.append(
            (name, f"**{medians['kubelite']}**", medians["podman (crun)"], medians["docker"], kubelet)
        )
    return table(("", "kubelite", "podman (crun)", "docker", "kubelet"), lines)


#: (file, mark, record, function that makes the table)
TABLES: Final[tuple[tuple[Path, str, str, Callable[[str], str]], ...]] = (
    (PERFORMANCE, "comparison", "bench", comparison),
    (PERFORMANCE, "engines", "bench", engines),
    (PERFORMANCE, "stages", "load", load),
    (README, "speed", "bench", short),
)


def replaced(page: str, mark: str, made: str) -> str:
    """The page with new text between `<!-- MARK -->` and `<!-- end -->`."""
    before, found, rest = page.partition(f"<!-- {mark} -->\n")
    _, ended, after = rest.partition("<!-- end -->\n")
    if not found or not ended:
        raise ValueError(f"the page has no place for {mark}")
    return f"{before}{found}\n{made}\n{ended}{after}"


def pages(paths: Iterable[Path]) -> dict[Path, str]:
    """Each page with its current tables."""
    measured = MEASURED.read_text(encoding="utf-8")
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    for path, mark, name, make in TABLES:
        if path in texts:
            texts[path] = replaced(texts[path], mark, make(recorded(name, measured)))
    return texts


def main() -> None:
    for path, text in pages({path for path, *_ in TABLES}).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
