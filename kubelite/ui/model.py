"""Turns the daemon's answers into rows, and the last samples into sparklines; filters rows. Does no I/O."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kubelite.cli.output.rates import bytes_text, cores_text, rates, size_text
from kubelite.kube.durations import human_duration
from kubelite.kube.json import Json
from kubelite.kube.times import parse_time

BLOCKS = " ▁▂▃▄▅▆▇█"
KEPT = 60  # samples retained for each pod, container and the node


class Row(NamedTuple):
    """A row of a table. `key` identifies it between refreshes; the filter searches `words`."""

    key: str
    cells: tuple[str, ...]
    trouble: bool = False

    @property
    def words(self) -> str:
        return " ".join(self.cells).lower()


class Lines:
    """Splits a text that arrives in pieces into lines. A piece may end within a line, and within a character."""

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
    """Draw the newest `width` values as blocks, right-aligned. A full block is the highest of them and `top`."""
    shown = list(values)[-width:]
    highest = max([top, *shown], default=0.0)
    if highest <= 0:
        return (BLOCKS[1] * len(shown)).rjust(width)
    drawn = (BLOCKS[max(1, min(8, round(value / highest * 8)))] for value in shown)
    return "".join(drawn).rjust(width)


def cut(text: str, width: int) -> str:
    """Cut a text to `width` characters; an ellipsis marks the cut."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


class Samples:
    """The last usage samples: current rates by id, and the history of CPU."""

    def __init__(self) -> None:
        self._before: Json | None = None
        self._lines: dict[str, deque[float]] = {}
        self.now: dict[str, Json] = {}  # id -> its usage, with rates in place of counters
        self.node: Json = {}

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

    def line(self, key: str, width: int) -> str:
        # Thousandths of a core: the least that a full block stands for.
        return sparkline(self._lines.get(key, ()), width, top=100.0)

    def cells(self, key: str, width: int) -> tuple[str, str, str]:
        """Return CPU, its sparkline and memory."""
        one = self.now.get(key)
        if one is None:
            return "", " " * width, ""
        return cores_text(one["cpu"]), self.line(key, width), bytes_text(one["memory"])

    def of_container(self, uid: str, name: str) -> str:
        """Return the id of a pod's running container, or "" if it does not run."""
        found = (k for k, one in self.now.items() if one.get("uid") == uid and one.get("container") == name)
        return next(found, "")


WELL = frozenset({"Running", "Completed", "Succeeded"})


def pod_rows(table: Json, samples: Samples, *, width: int) -> list[Row]:
    """Turn a meta.k8s.io Table of pods into rows: name, ready, status, restarts, age, CPU, its sparkline, memory."""
    rows = []
    for row in table["rows"]:
        metadata = row["object"]["metadata"]
        name, ready, status, restarts, age = (str(cell) for cell in row["cells"][:5])
        namespace = metadata.get("namespace", "")
        shown = name if namespace == "default" else f"{namespace}/{name}"
        short = restarts.partition(" ")[0]
        key = f"{namespace}/{name}"
        done, _, wanted = ready.partition("/")
        trouble = status not in WELL or (status == "Running" and done != wanted)
        usage = samples.cells(metadata.get("uid", ""), width)
        rows.append(Row(key, (shown, ready, status, short, age, *usage), trouble))
    return rows


def container_rows(pod: Json, samples: Samples, now: float, *, width: int) -> list[Row]:
    """Turn a pod into rows, one a container: name, state, restarts, age, CPU, its sparkline, memory, image (without its
    registry and path). Init containers come first, ephemeral ones last."""
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
            state, since, trouble = _state(one)
            usage = samples.cells(samples.of_container(pod["metadata"]["uid"], spec["name"]), width)
            age = human_duration(now - since) if since is not None else ""
            image = str(spec.get("image", "")).rpartition("/")[2]
            cells = (spec["name"] + kind, state, str(one.get("restartCount", 0)), age, *usage, image)
            rows.append(Row(spec["name"], cells, trouble))
    return rows


def _state(status: Json) -> tuple[str, float | None, bool]:
    state = status.get("state") or {}
    if "running" in state:
        return "Running", parse_time(state["running"].get("startedAt")), not status.get("ready", True)
    if ended := state.get("terminated"):
        reason = ended.get("reason") or f"exit {ended.get('exitCode')}"
        return reason, parse_time(ended.get("finishedAt")), bool(ended.get("exitCode"))
    reason = (state.get("waiting") or {}).get("reason", "Waiting")
    return reason, None, reason not in ("ContainerCreating", "PodInitializing")


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
    """Turn events into rows, the newest first: age, type, reason, object, message."""
    timed = [(parse_time(event.get("lastTimestamp")) or 0.0, event) for event in events]
    rows = []
    for at, event in sorted(timed, key=lambda pair: (-pair[0], pair[1]["metadata"]["name"])):
        about = event["involvedObject"]
        count = f" (x{event['count']})" if event.get("count", 1) > 1 else ""
        cells = (
            human_duration(now - at), event.get("type", ""), event.get("reason", ""), about.get("name", ""),
            str(event.get("message", "")).replace("\n", " ") + count,
        )  # fmt: skip
        rows.append(Row(event["metadata"]["uid"], cells, event.get("type") == "Warning"))
    return rows


def chosen(rows: Sequence[Row], words: str) -> list[Row]:
    """Return the rows that contain each of the words, ignoring case."""
    wanted = words.lower().split()
    return [row for row in rows if all(word in row.words for word in wanted)]


def headline(node: Json, pods: int, line: str) -> str:
    if not node:
        return f"{pods} pods"
    share = f"{node['cpu'] / node['cpuLimit'] * 100:.0f}%" if node.get("cpuLimit") else ""
    memory = f"{size_text(node['memory'])} of {size_text(node['memoryLimit'])}"
    return f"{node['name']}  {pods} pods  CPU {share} {line}  memory {memory}"
