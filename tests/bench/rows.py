"""The rows of the table with their targets, and the formatting of the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Samples = Mapping[str, list[float]]  # peer → measured value
OURS, BARE = "kubelite", "bare C"
ENGINE, COMMAND = "kubelite engine", "kubelite-oci"


@dataclass(frozen=True, slots=True)
class Row:
    """`reached` gets the medians of the row by peer; None = no target."""

    key: str
    title: str
    unit: str
    reach: str = ""
    reached: Callable[[Mapping[str, float]], bool] | None = None
    digits: int = 1
    base: str = OURS  # the peers of the ratios


def _below(limit: float, peer: str = OURS) -> Callable[[Mapping[str, float]], bool]:
    return lambda medians: medians[peer] < limit


def _first(medians: Mapping[str, float]) -> bool:
    others = [value for name, value in medians.items() if name not in (OURS, BARE)]
    return medians[OURS] < 30 and (not others or min(others) >= 6 * medians[OURS])


def _fastest(medians: Mapping[str, float]) -> bool:
    others = [value for name, value in medians.items() if name != OURS]
    return min(others, default=0.0) > medians[OURS]


def _half(medians: Mapping[str, float]) -> bool:
    others = [value for name, value in medians.items() if name != OURS]
    return min(others, default=0.0) > 2 * medians[OURS]


def _ahead_of_runc(medians: Mapping[str, float]) -> bool:
    return medians[COMMAND] < medians["runc"]


def _engine(medians: Mapping[str, float]) -> bool:
    return medians[ENGINE] < 3 * medians[BARE]


ROWS = (
    Row(
        "first",
        "start one pod with two volumes: manifest or command → first instruction",
        "ms",
        "< 30, 6 × the next best",
        _first,
    ),
    Row("hundred", "start {many} pods at once: all running", "s", "< 2", _below(2.0), 2),
    Row("cpu", "CPU time of a pod start, all processes", "ms", "< 25", _below(25.0)),
    Row("users", "start one pod with two volumes in a user namespace → first instruction", "ms"),
    Row("userscpu", "CPU time of a pod start in a user namespace, all processes", "ms"),
    Row("removed", "remove {many} pods: nothing left", "s", "< 3", _below(3.0), 2),
    Row("ended", "remove a pod that exits on SIGTERM: process ended", "ms"),
    Row("gone", "remove a pod that exits on SIGTERM: nothing left", "ms", "< 100", _below(100.0)),
    Row("edited", "edit a manifest (or repeat the command) → new container", "ms", "< 60", _below(60.0)),
    Row("restart", "kill a container → restarted", "ms", "< 40", _below(40.0)),
    Row(
        "adopted",
        "restart a killed daemon with {some} pods: start → all ready",
        "ms",
        "< 800",
        _below(800.0),
        0,
    ),
    Row("memory", "memory of all runtime processes, {many} pods (PSS)", "MB", "< 200", _below(200.0)),
    Row("further", "memory of each further pod (PSS)", "MB", "< 1", _below(1.0), 2),
    Row("idle", "idle CPU, {many} pods", "% of a core", "< 0.8", _below(0.8), 2),
    Row("probes", "CPU, {many} pods with an HTTP probe each second", "% of a core", "< 5", _below(5.0), 2),
    Row("late", "longest time between two probes of one pod", "s", "< 2", _below(2.0), 2),
    Row("scrape", "scrape of container metrics, {many} pods", "ms", "< 50", _below(50.0)),
    Row("deployed", "start a Deployment of {many} pods: file → all running", "s", "", None, 2),
    Row("deployedratio", "  beside the same pods from files", "×", "< 1.15", _below(1.15), 2),
    Row("rolled", "rolling update of a Deployment of {many} (25 %)", "s", "< 6", _below(6.0), 2),
    Row("jobs", "200 Jobs of `true`: files → all complete", "s", "< 4", _below(4.0), 2),
    Row("cronjobs", "idle CPU, 1,000 CronJobs", "% of a core", "< 0.5", _below(0.5), 2),
    Row("ownmemory", "memory of a Deployment without pods (PSS)", "kB", "< 20", _below(20.0)),
    Row("list", "`get pods`, whole process, {many} pods", "ms", "< 150", _below(150.0)),
    Row("pull", "pull and unpack, an image of 400 MB in 5 layers", "s", "fastest", _fastest, 2),
    Row("layers", "pull and unpack, an image of 200 MB in 30 layers", "s", "fastest", _fastest, 2),
    Row("pullcpu", "CPU time of pulling and unpacking 400 MB, all processes", "s", "least", _fastest, 2),
    Row("pullmem", "peak memory of a pull's largest process", "MB", "< 200", _below(200.0), 0),
    Row("build", "build with a warm cache, 7 steps, 200 files", "ms", "½ of the next best", _half, 0),
    Row("engine", "engine alone, bundle → first instruction", "ms", "< 3 × bare C", _engine, 2, ENGINE),
    Row(
        "run",
        "OCI command, `run` of a program that exits at once",
        "ms",
        "< runc",
        _ahead_of_runc,
        2,
        COMMAND,
    ),
    Row("create", "OCI command, `create`", "ms", "", None, 2, COMMAND),
    Row("start", "OCI command, `start`", "ms", "", None, 2, COMMAND),
    Row("exec", "OCI command, `exec` of a program that exits at once", "ms", "", None, 2, COMMAND),
    Row("delete", "OCI command, `delete --force` of a running container", "ms", "", None, 2, COMMAND),
    Row("rest", "memory of a created container (PSS)", "MB", "", None, 2, COMMAND),
)


@dataclass(slots=True)
class Found:
    """The results of a run: row key → peer → values; and why values are missing."""

    samples: dict[str, dict[str, list[float]]]
    left_out: list[str]

    def add(self, key: str, peer: str, value: float) -> None:
        self.samples.setdefault(key, {}).setdefault(peer, []).append(value)


def table(found: Found, peers: list[str], *, many: int, some: int) -> str:
    """A line a row with what is to be reached; below it a line a peer: median, minimum–maximum, and how many times
    kubelite's and bare C's median that is (for the engine's row: our engine's)."""
    pods = (found.samples.get(key, {}) for key in ("first", "hundred", "adopted", "edited"))
    nodes = {name for samples in pods for name in samples} - {
        BARE
    }  # a peer that does not support the row has a dash
    lines = [f"{'':<34}{'median':>9}  {'(min–max)':<21}{'/ kubelite':>11}{'/ bare C':>10}   {'reach'}"]
    for row in ROWS:
        samples = found.samples.get(row.key)
        if not samples:
            continue
        lines.append("")
        lines.append(_heading(row, samples, many=many, some=some))
        shown = [name for name in peers if name in samples or (name in nodes and row.base == OURS)]
        lines.extend(_line(row, samples, name) for name in shown)
    lines.extend(["", *(f"left out: {reason}" for reason in found.left_out)])
    return "\n".join(lines).rstrip() + "\n"


def _heading(row: Row, samples: Samples, *, many: int, some: int) -> str:
    title = f"{row.title.format(many=many, some=some)}, {row.unit}"
    return f"{title:<87}{row.reach:<10}{verdict(row, samples)}".rstrip()


def verdict(row: Row, samples: Samples) -> str:
    if row.reached is None:
        return ""
    medians = {name: statistics.median(values) for name, values in samples.items()}
    try:
        return "  reached" if row.reached(medians) else "  NOT reached"
    except KeyError:  # kubelite or the peer of the comparison was not measured
        return ""


def _line(row: Row, samples: Samples, name: str) -> str:
    values = samples.get(name)
    if not values:
        return f"  {name:<32}{'–':>9}"
    median = statistics.median(values)
    spread = f"({min(values):.{row.digits}f}–{max(values):.{row.digits}f})"
    ratios = [_ratio(median, samples.get(other)) for other in (row.base, BARE)]
    return f"  {name:<32}{median:>9.{row.digits}f}  {spread:<21}{ratios[0]:>11}{ratios[1]:>10}".rstrip()


def _ratio(value: float, base: list[float] | None) -> str:
    middle = statistics.median(base) if base else 0.0
    return f"{value / middle:.2f}×" if middle else "–"
