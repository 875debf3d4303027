"""Turn the daemon's answers into rows, and the last samples into sparklines; filter rows. Does no I/O."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kubelite.api.kube.printers import pod_cells
from kubelite.cli.output.rates import cores_text, percent, rates, size_text
from kubelite.diagnosis.health import LOOKS, ORDER, Level, counts, level
from kubelite.kube.durations import human_duration
from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.telemetry.web.charts import top_of
from kubelite.telemetry.web.facts import port_texts

BLOCKS = " ▁▂▃▄▅▆▇█"
KEPT = 60  # samples retained for each pod, container and the node
LEAST = 100.0  # thousandths of a core: the smallest value that a full block stands for


class Row(NamedTuple):
    """A row of a table. `key` identifies it between refreshes; the filter searches `words`; `order` has the values that
    the row can be sorted by (see SORTS)."""

    key: str
    cells: tuple[str, ...]
    level: Level | None = None
    order: tuple[float | str, ...] = ()
    version: str = ""  # changes with the object

    @property
    def trouble(self) -> bool:
        return self.level in (Level.FAILING, Level.WAITING)

    @property
    def words(self) -> str:
        return " ".join((*self.cells, self.level or "")).lower()


class Lines:
    """Splits a text that arrives in pieces into lines. A piece may end within a line or within a character."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._left = ""

    def feed(self, piece: bytes, *, last: bool = False) -> list[str]:
        """Return the lines that are complete; with `last`, also the incomplete last line."""
        *whole, self._left = (self._left + self._decoder.decode(piece, last)).split("\n")
        if last and self._left:
            whole.append(self._left)
            self._left = ""
        return [line.rstrip("\r") for line in whole]


def sparkline(values: Iterable[float], width: int, *, top: float = 0.0) -> str:
    """Draw the newest `width` values as blocks, right-aligned. A full block stands for the largest of them and
    `top`."""
    shown = list(values)[-width:]
    highest = max([top, *shown], default=0.0)
    if highest <= 0:
        return (BLOCKS[1] * len(shown)).rjust(width)
    drawn = (BLOCKS[max(1, min(8, round(value / highest * 8)))] for value in shown)
    return "".join(drawn).rjust(width)


class Samples:
    """The last usage samples: current rates by id, and recent CPU usage."""

    def __init__(self) -> None:
        self._before: Json | None = None
        self._lines: dict[str, deque[float]] = {}
        self.now: dict[str, Json] = {}  # id -> its usage, with rates in place of counters
        self.node: Json = {}
        #: The top of the scale, in thousandths of a core, that all sparklines share except the node's.
        self.top = LEAST

    def add(self, usage: Json) -> None:
        before, self._before = self._before, usage
        if before is None:
            return
        seconds = usage["now"] - before["now"]
        self.node = rates(before["node"], usage["node"], seconds)
        known = {one["id"]: one for what in ("pods", "containers") for one in before[what]}
        things = [one for what in ("pods", "containers") for one in usage[what]]
        self.now = {one["id"]: rates(known[one["id"]], one, seconds) for one in things if one["id"] in known}
        self.now["node"] = self.node
        self._lines = {key: self._lines.get(key, deque(maxlen=KEPT)) for key in self.now}
        for key, one in self.now.items():
            self._lines[key].append(one["cpu"])
        newest = [value for key, line in self._lines.items() if key != "node" for value in line]
        self.top = top_of([value / 1000 for value in newest], LEAST / 1000) * 1000

    def line(self, key: str, width: int, top: float) -> str:
        return sparkline(self._lines.get(key, ()), width, top=top)

    def cells(self, key: str, width: int) -> tuple[str, str, str, str]:
        """Return the CPU sparkline, CPU usage, memory usage, and memory as a share of its limit, all as text."""
        one = self.now.get(key)
        if one is None:
            return " " * width, "", "", ""
        share = percent(one["memory"], one.get("memoryLimit", 0))
        return self.line(key, width, self.top), cores_text(one["cpu"]), size_text(one["memory"]), share

    def of_container(self, uid: str, name: str) -> str:
        """Return the id of a pod's running container, or "" if it does not run."""
        found = (k for k, one in self.now.items() if one.get("uid") == uid and one.get("container") == name)
        return next(found, "")


#: Sort keys of pods: (name, whether the largest value comes first). The first key lists failing pods first.
SORTS = (
    ("state", False),
    ("name", False),
    ("cpu", True),
    ("memory", True),
    ("restarts", True),
    ("age", True),
)


def pod_rows(table: Json, samples: Samples, reasons: Mapping[str, str], *, width: int) -> list[Row]:
    """Turn a meta.k8s.io Table of pods into rows: mark, name, ready, status, restarts, age, CPU sparkline, CPU, memory,
    share of the memory limit, IP, and the reason of a pod with problems (`reasons`, by key)."""
    rows = []
    for row in table["rows"]:
        metadata = row["object"]["metadata"]
        name, ready, status, restarts, age, ip = (str(cell) for cell in row["cells"][:6])
        namespace = metadata.get("namespace", "")
        shown = name if namespace == "default" else f"{namespace}/{name}"
        short = restarts.partition(" ")[0]
        key, found = f"{namespace}/{name}", level(status, ready)
        word = "Not ready" if status == "Running" and found is Level.WAITING else status
        uid = metadata.get("uid", "")
        usage, now = samples.cells(uid, width), samples.now.get(uid, {})
        cells = (
            LOOKS[found].mark, shown, ready, word, short, age, *usage, "" if ip == "<none>" else ip,
            reasons.get(key, "") if found in (Level.FAILING, Level.WAITING) else "",
        )  # fmt: skip
        order = (
            ORDER[found], name, now.get("cpu", 0.0), now.get("memory", 0), float(short or 0),
            -(parse_time(metadata.get("creationTimestamp")) or 0.0),
        )  # fmt: skip
        rows.append(Row(key, cells, found, order, str(metadata.get("resourceVersion", ""))))
    return rows


def pod_row(pod: Json, now: float) -> Row:
    """Return the row of one pod, without its usage."""
    row = {"object": {"metadata": pod["metadata"]}, "cells": pod_cells(pod, now)}
    return pod_rows({"rows": [row]}, Samples(), {}, width=0)[0]


def in_order(rows: Sequence[Row], sort: int) -> list[Row]:
    """Return the rows sorted by SORTS[sort]; equal ones by namespace and name."""
    found = sorted(rows, key=lambda row: row.key)
    return sorted(found, key=lambda row: row.order[sort], reverse=SORTS[sort][1])


def container_rows(pod: Json, samples: Samples, now: float, *, width: int) -> list[Row]:
    """Turn a pod into one row per container: mark, name, state, restarts, age, CPU sparkline, CPU, memory, share of the
    memory limit, ports, image (without its registry and path). Init containers come first, ephemeral ones last."""
    status = pod.get("status") or {}
    rows = []
    for specs, found, kind in (
        ("initContainers", "initContainerStatuses", " (init)"),
        ("containers", "containerStatuses", ""),
        ("ephemeralContainers", "ephemeralContainerStatuses", " (debug)"),
    ):
        known = {one["name"]: one for one in status.get(found) or ()}
        for spec in pod["spec"].get(specs) or ():
            one = known.get(spec["name"], {})
            state, since, found_level = _state(one, init=kind == " (init)")
            usage = samples.cells(samples.of_container(pod["metadata"]["uid"], spec["name"]), width)
            age = human_duration(now - since) if since is not None else ""
            image = str(spec.get("image", "")).rpartition("/")[2]
            name, restarts = spec["name"] + kind, str(one.get("restartCount", 0))
            ports = ",".join(port_texts(spec))
            cells = (LOOKS[found_level].mark, name, state, restarts, age, *usage, ports, image)
            rows.append(Row(spec["name"], cells, found_level))
    return rows


def _state(status: Json, *, init: bool) -> tuple[str, float | None, Level]:
    """Return a container's state as text, the time at which it began (Unix seconds, or None), and its level."""
    state = status.get("state") or {}
    if "running" in state:
        well = status.get("ready", True) or init
        since = parse_time(state["running"].get("startedAt"))
        return ("Running" if well else "Not ready"), since, Level.RUNNING if well else Level.WAITING
    if ended := state.get("terminated"):
        reason = ended.get("reason") or f"exit {ended.get('exitCode')}"
        found = Level.FAILING if ended.get("exitCode") else Level.COMPLETED
        return reason, parse_time(ended.get("finishedAt")), found
    reason = (state.get("waiting") or {}).get("reason", "Waiting")
    return reason, None, level(reason, "0/1")


def process_rows(before: Sequence[Json], found: Sequence[Json], seconds: float) -> list[Row]:
    """Turn processes into rows, the busiest first: PID in the container, PID on the node, user, state, CPU, memory,
    threads, command."""
    known = {one["pid"]: one["cpu"] for one in before}
    busy = {
        one["pid"]: max(0.0, one["cpu"] - known.get(one["pid"], one["cpu"])) / 1e6 / max(seconds, 1e-6)
        for one in found
    }
    return [
        Row(
            str(one["pid"]),
            (
                str(one["innerPid"]), str(one["pid"]), str(one["user"]), one["state"], cores_text(busy[one["pid"]]),
                size_text(one["memory"]), str(one["threads"]), one["command"],
            ),
        )
        for one in sorted(found, key=lambda one: (-busy[one["pid"]], one["pid"]))
    ]  # fmt: skip


def event_rows(events: Sequence[Json], now: float) -> list[Row]:
    """Turn events into rows, the newest first: mark, age, reason, message."""
    timed = [(parse_time(event.get("lastTimestamp")) or 0.0, event) for event in events]
    rows = []
    for at, event in sorted(timed, key=lambda pair: (-pair[0], pair[1]["metadata"]["name"])):
        count = f" (x{event['count']})" if event.get("count", 1) > 1 else ""
        found = Level.WAITING if event.get("type") == "Warning" else None
        cells = (
            LOOKS[found].mark if found else "", human_duration(now - at), event.get("reason", ""),
            str(event.get("message", "")).replace("\n", " ").strip() + count,
        )  # fmt: skip
        rows.append(Row(event["metadata"]["uid"], cells, found))
    return rows


def chosen(rows: Sequence[Row], words: str) -> list[Row]:
    """Return the rows that contain all of the words, ignoring case."""
    wanted = words.lower().split()
    return [row for row in rows if all(word in row.words for word in wanted)]


class Headline(NamedTuple):
    """The content of the title. `cpu` and `memory` are "" until there are two samples."""

    name: str
    levels: dict[Level, int]
    cpu: str = ""
    memory: str = ""


def headline(samples: Samples, rows: Sequence[Row], width: int) -> Headline:
    node, found = samples.node, counts(row.level for row in rows if row.level is not None)
    if not node:
        return Headline("", found)
    limit, used, whole = node.get("cpuLimit") or 0, node["memory"], node["memoryLimit"]
    line = samples.line("node", width, float(limit))
    cpu = f"{line} {percent(node['cpu'], limit)} of {limit / 1000:g} CPUs"
    filled = round(used / whole * width) if whole else 0
    memory = f"{'█' * filled}{'░' * (width - filled)} {percent(used, whole)} of {size_text(whole)}"
    return Headline(node["name"], found, cpu, memory)


def why_text(answer: Json) -> str:
    """Return the reason of a pod's state in one line: the first advice of `kubelite why`, else its first reason."""
    for key in ("advice", "reasons"):
        if answer.get(key):
            return str(answer[key][0]).partition("\n")[0]
    return ""


def why_panel(answer: Json, row: Row) -> list[tuple[str, str]]:
    """Return (label, text) for each line below the table about the selected pod."""
    found = []
    if row.trouble:
        found += [("Because", one) for one in list(answer.get("reasons") or ())[:1]]
        found += [("Last words", one) for one in list(answer.get("lastWords") or ())[-1:]]
        found += [("Try", one) for one in list(answer.get("advice") or ())[:2]]
    else:
        found += [("Seen", one) for one in list(answer.get("observed") or ())[:3]]
    return [(label, " ".join(str(text).split())) for label, text in found]
