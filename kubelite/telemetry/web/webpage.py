"""The node as a read-only web page: pods at `/`, one pod with its start trace at `/pods/<namespace>/<name>`.

Plain HTML with SVG that is drawn here: no scripts and no external resources, and a policy that forbids both. The page
shows no more than the metrics do, because everyone who can reach the port can read it: no environment variables, no
paths, no messages that a container may have written. Logs are on a page of their own, behind a token (access.py). The
lines show measurements taken on requests (`Recent`); viewing the page is such a request.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

from kubelite.kube.json import Json
from kubelite.telemetry.sampling.sampler import Snapshot
from kubelite.telemetry.tracing.trace import spans

KEEP = 60  # measurements that a line shows
APART = 1.0  # minimum seconds between two of them
_TURN = KEEP + 1  # slots of the ring: the one that is being written is never read
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_STYLE = """
:root{color-scheme:light dark;font:15px/1.45 system-ui,sans-serif}
body{margin:2rem auto;max-width:70rem;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid #8884;white-space:nowrap}
th{font-weight:600;font-size:.85rem;opacity:.75}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.bad{color:#c33;font-weight:600}.ok{color:#292}
svg{display:block}
svg .l{fill:none;stroke:#37c;stroke-width:1.5}svg .b{fill:#37c}svg text{font-size:12px;fill:currentColor}
.wide{overflow-x:auto}footer{margin-top:2rem;opacity:.7;font-size:.85rem}
"""


class _Line:
    """A ring of a pod's measurements, allocated in full at first, so that watching for long takes no more memory."""

    __slots__ = ("cpu", "memory", "since")

    def __init__(self, since: int) -> None:
        self.since = since  # number of the first measurement
        self.cpu, self.memory = (array("Q", bytes(8 * _TURN)) for _ in range(2))


class Recent:
    """The last measurements of CPU and memory by pod uid; "" is the node. One thread writes, others read: a slot is
    only overwritten when it no longer belongs to the last `KEEP`."""

    def __init__(self) -> None:
        self._count = 0
        self._times = array("d", bytes(8 * _TURN))
        self._lines: dict[str, _Line] = {}

    def note(self, snapshot: Snapshot) -> None:
        count, root = self._count, snapshot.root
        if count and snapshot.now - self._times[(count - 1) % _TURN] < APART:
            return
        place, known, lines = count % _TURN, self._lines, {}
        values = [(s.target.uid, s.stats.cpu.usage_ns, s.stats.memory.working_set) for s in snapshot.pods]
        for uid, cpu, memory in (*values, ("", int(root.cpu * 1e9), root.working_set)):
            line = lines[uid] = known.get(uid) or _Line(count)
            line.cpu[place], line.memory[place] = cpu, memory
        self._times[place] = snapshot.now
        self._lines, self._count = lines, count + 1

    def cores(self, uid: str) -> list[float]:
        """Return the CPU usage in cores between each two measurements, oldest first."""
        found = [(self._times[place], line.cpu[place]) for line, place in self._places(uid)]
        return [max(0, now - before) / 1e9 / (at - since) for (since, before), (at, now) in pairwise(found)]

    def memory(self, uid: str) -> list[int]:
        return [line.memory[place] for line, place in self._places(uid)]

    def _places(self, uid: str) -> list[tuple[_Line, int]]:
        """Return the slots of a pod's measurements, oldest first."""
        line, count = self._lines.get(uid), self._count
        if line is None:
            return []
        return [(line, number % _TURN) for number in range(max(line.since, count - KEEP), count)]


def sparkline(values: Sequence[float], *, width: int = 120, height: int = 22) -> str:
    """Draw a line through the values, from zero to the highest."""
    if len(values) < 2:
        return ""
    top = max(values) or 1.0
    step = width / (len(values) - 1)
    points = " ".join(
        f"{place * step:.1f},{height - 1 - value / top * (height - 2):.1f}"
        for place, value in enumerate(values)
    )
    return f'<svg width="{width}" height="{height}" aria-hidden="true"><polyline class="l" points="{points}"/></svg>'


def waterfall(steps: Sequence[Json]) -> str:
    """Draw a start trace: a row for each step, each start on its own time scale."""
    if not steps:
        return "<p>No start trace: an earlier daemon started the pod.</p>"
    rows, first = [], steps[0]["at"]
    for place, (step, (start, end)) in enumerate(zip(steps, spans(steps), strict=True)):
        whole = max(end - start, 1e-6)
        y, left = place * 20, 250 + (step["at"] - start) / whole * 420
        width = max(2.0, step.get("took", 0.0) / whole * 420)
        name = escape(" ".join(w for w in (step.get("container", ""), step["step"]) if w))
        took = (
            f"{step['took'] * 1000:.2f} ms" if step.get("took") else f"+{(step['at'] - first) * 1000:.2f} ms"
        )
        rows.append(
            f'<text x="0" y="{y + 14}">{name}</text><rect class="b" x="{left:.1f}" y="{y + 4}" '
            f'width="{width:.1f}" height="12"/><text x="{left + width + 6:.1f}" y="{y + 14}">{took}</text>'
        )
    return f'<div class="wide"><svg width="790" height="{len(steps) * 20 + 4}" role="img">{"".join(rows)}</svg></div>'


def bare(step: str) -> str:
    """Remove the paths from a step's name: a pod's host directories must not be visible to everyone."""
    return step.partition(" /")[0].removesuffix(" on")


def page(title: str, body: str, *, refresh: int = 5) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="{refresh}">'
        f"<style>{_STYLE}</style></head><body>{body}<footer>kubelite; read only. "
        '<a href="/metrics">metrics</a></footer></body></html>'
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> str:
    """Return an HTML table. Cells are HTML already; the last `numbers` columns are right-aligned."""
    first = len(columns) - numbers

    def line(tag: str, cells: Sequence[str]) -> str:
        texts = (
            f"<{tag}{' class=n' if place >= first else ''}>{cell}</{tag}>" for place, cell in enumerate(cells)
        )
        return f"<tr>{''.join(texts)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f'<div class="wide"><table><thead>{line("th", columns)}</thead><tbody>{body}</tbody></table></div>'


def mebibytes(value: float) -> str:
    return f"{value / (1 << 20):.1f} MiB"


def index(
    node: str, health: tuple[bool, str], pods: Sequence[tuple[str, str, Sequence[str], str]], recent: Recent
) -> str:
    """Return the page of pods, given as (namespace, uid, cells of `get pods`: name, ready, status, restarts, age, and
    their style: good or bad)."""
    rows = []
    for namespace, uid, (name, ready, status, restarts, age), mood in pods:
        where = f"/pods/{escape(namespace)}/{escape(name)}"
        cores, memory = recent.cores(uid), recent.memory(uid)
        rows.append(
            [
                escape(namespace),
                f'<a href="{where}">{escape(name)}</a>',
                escape(ready),
                f'<span class="{mood}">{escape(status)}</span>',
                escape(restarts),
                escape(age),
                sparkline(cores),
                f"{cores[-1] * 1000:.0f} m" if cores else "",
                mebibytes(memory[-1]) if memory else "",
            ]
        )
    ready_now, why = health
    state = (
        '<span class="ok">ready</span>' if ready_now else f'<span class="bad">not ready: {escape(why)}</span>'
    )
    cores, memory = recent.cores(""), recent.memory("")
    use = (
        f"<p>{sparkline(cores, width=240)} {cores[-1]:.2f} cores, {mebibytes(memory[-1])}</p>"
        if cores
        else ""
    )
    columns = ("Namespace", "Name", "Ready", "Status", "Restarts", "Age", "CPU", "", "Memory")
    body = f"<h1>Node {escape(node)}: {state}</h1>{use}{table(columns, rows, numbers=2)}"
    return page(f"{node} - kubelite", body)


def state_words(status: Json) -> str:
    """Describe a container's state; for one that waits to restart, also how its last instance ended."""
    state = status.get("state") or {"waiting": {}}
    words = ", ".join(f"{name} {detail.get('reason', '')}".strip() for name, detail in state.items())
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
    if not ended or "running" in state:
        return words
    return f"{words} (exit code {ended.get('exitCode', 0)})"


def pod_page(
    doc: Json,
    steps: Sequence[Json],
    recent: Recent,
    *,
    now: tuple[str, str],
    advice: Sequence[str],
    logs: bool = False,
) -> str:
    """Return the page of one pod: its state `now` (with its style: good or bad), advice, containers, usage and start.
    `logs`: whether a token is set, so that logs can be shown."""
    meta, status = doc["metadata"], doc.get("status", {})
    title = f"{meta.get('namespace', '')}/{meta['name']}"
    rows = []
    for found in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        ready = "yes" if found.get("ready") else "no"
        rows.append(
            [
                escape(found["name"]),
                escape(found.get("image", "")),
                escape(state_words(found)),
                ready,
                str(found.get("restartCount", 0)),
            ]
        )
        if logs:
            rows[-1].insert(4, f'<a href="/pods/{escape(title)}/log/{escape(found["name"])}">log</a>')
    columns = ("Container", "Image", "State", "Ready", *(("Log",) if logs else ()), "Restarts")
    cores, memory = recent.cores(meta["uid"]), recent.memory(meta["uid"])
    use = ""
    if memory:
        last = f"{cores[-1] * 1000:.0f} m" if cores else ""
        use = table(
            ("", "", "Now"),
            [
                ["CPU", sparkline(cores, width=320), last],
                ["Memory", sparkline([float(m) for m in memory], width=320), mebibytes(memory[-1])],
            ],
            numbers=1,
        )
    todo = "".join(f"<li>{escape(sentence)}</li>" for sentence in advice)
    text, mood = now
    body = (
        f'<p><a href="/">all pods</a></p><h1>Pod {escape(title)}: <span class="{mood}">{escape(text)}</span></h1>'
        + (f"<ul>{todo}</ul>" if todo else "")
        + table(columns, rows, numbers=1)
        + f"<h2>Use</h2>{use}<h2>Its start</h2>{waterfall(steps)}"
    )
    return page(f"{title} - kubelite", body)
