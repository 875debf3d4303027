"""The picture of the architecture: `python -m deploy.docs.picture` draws docs/assets/architecture.svg.

The upper part shows the way of a manifest to the kernel, and the process in which each step runs; the lower part shows
the packages of the source tree. The picture names every package of `kubelite`, `kubelite/node` and `runtime`. A test
fails if a package is missing or the file is not current. Colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

REPO: Final = Path(__file__).resolve().parents[2]
FILE: Final = REPO / "docs" / "assets" / "architecture.svg"

WIDTH: Final = 1000
MARGIN: Final = 16
STYLE: Final = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
text { fill: var(--ink); }
.small { font-size: 11px; fill: var(--soft); }
.title { font-weight: 600; }
.name { font-family: ui-monospace, "SFMono-Regular", Menlo, "Liberation Mono", monospace; font-size: 12px; }
.box { fill: var(--box); stroke: var(--line); }
.step { fill: var(--step); stroke: var(--edge); }
.panel { fill: var(--panel); stroke: var(--line); }
.process { fill: none; stroke: var(--line); stroke-dasharray: 4 3; }
.arrow { fill: none; stroke: var(--edge); stroke-width: 1.5; marker-end: url(#tip); }
.tip { fill: var(--edge); }
svg { --ink: #1f2328; --soft: #59636e; --box: #ffffff; --step: #ddeafc; --panel: #f3f5f7; }
svg { --line: #c4ccd4; --edge: #2f6fbd; }
@media (prefers-color-scheme: dark) {
svg { --ink: #e6edf3; --soft: #9198a1; --box: #161b22; --step: #17304f; --panel: #0d1117; }
svg { --line: #3d444d; --edge: #6cb0ff; }
}
"""


class Step(NamedTuple):
    """A step on the way of a manifest: its name, what it does, and its place in the tree."""

    name: str
    does: str
    place: str = ""


CHAIN: Final = (
    Step("manifest", "a YAML file"),
    Step("sources", "read, validate", "kubelite/sources"),
    Step("decide", "a pure function", "kubelite/node/decide"),
    Step("node/cri", "carries it out", "kubelite/node/cri"),
    Step("forkserver", "warm, forks", "runtime/shim/warm"),
    Step("shim", "one for each pod", "runtime/shim"),
    Step("init", "sets up, execve", "runtime/oci"),
    Step("kernel", "isolates, limits"),
)
#: (process, its first step, its last step)
PROCESSES: Final = (("daemon", 1, 3), ("forkserver", 4, 4), ("shim", 5, 5), ("container", 6, 6))

#: The floors of `kubelite`, top to bottom: a floor may use those below.
FLOORS: Final = (
    (
        ("daemon", "starts everything"),
        ("cluster", "the node as a member"),
        ("cli", "the commands"),
        ("ui", "the terminal"),
    ),
    (
        ("api", "Kubernetes REST"),
        ("accounts", "tokens"),
        ("telemetry", "metrics, traces"),
        ("diagnosis", "doctor, advice"),
    ),
    (
        ("sources", "directory"),
        ("controllers", "workloads"),
        ("services", "Service, DNS"),
        ("policies", "limits"),
        ("managed_fields", "whose they are"),
        ("namespaces", "quotas"),
        ("autoscaling", "replicas"),
    ),
    (
        ("history", "versions, undo"),
        ("images", "pulls, builds"),
        ("streaming", "SPDY/3.1"),
        ("plugins", "gRPC for devices"),
        ("ingress", "HTTP from outside"),
        ("network_policies", "NetworkPolicy"),
        ("settings", "flags, file"),
    ),
)
NODE: Final = (
    ("model", "values"),
    ("spec", "Pod → config.json"),
    ("scheduling", "does it fit"),
    ("decide", "what to do, status"),
    ("storage", "claims, volumes"),
    ("devices", "device plugins"),
    ("cri", "door to the engine"),
    ("probing", "probes"),
    ("worker", "one task a pod"),
    ("pressure", "eviction, image GC"),
)
GROUND: Final = ("kube", "objects, durations, events")
ENGINE: Final = (
    ("shim", "sandboxes, logs, exit codes"),
    ("oci", "the engine: bundle → process"),
    ("images", "registry, store, layers"),
    ("builder", "Containerfiles"),
    ("network", "bridge, veth, nftables"),
    ("cni", "networks by CNI plugins"),
    ("dns", "the names of Services"),
    ("cgroups", "v1, v2, statistics"),
    ("security", "seccomp, capabilities"),
)
_BESIDE: Final = 5  # rooms beside each other, so that their names fit
BESIDE: Final = (("manifests", "types, validation, YAML"), ("state", "SQLite: objects, watches, history"))


def drawing() -> str:
    """The whole file."""
    chain = list(_chain(40))
    rooms = list(_rooms(214))
    height = 708
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="The way of a manifest to the kernel, and the packages of the source tree">'
    )
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", tip, *chain, *rooms, "</svg>"]) + "\n"


def _text(x: float, y: float, said: str, kind: str = "", anchor: str = "middle") -> str:
    styled = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{styled}>{escape(said)}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str = "box") -> str:
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'


def _arrow(path: str) -> str:
    return f'<path class="arrow" d="{path}"/>'


def _chain(top: float) -> Iterator[str]:
    gap, height = 19.0, 58.0
    width = (WIDTH - 2 * MARGIN - gap * (len(CHAIN) - 1)) / len(CHAIN)
    left = [MARGIN + index * (width + gap) for index in range(len(CHAIN))]
    yield _text(MARGIN, top - 18, "From a manifest to the kernel", "title", "start")
    for name, first, last in PROCESSES:
        begin, end = left[first] - 8, left[last] + width + 8
        yield _box(begin, top - 8, end - begin, height + 36, "process")
        yield _text(
            (begin + end) / 2, top + height + 20, f"{name} process" if name != "container" else name, "small"
        )
    for x, step in zip(left, CHAIN, strict=True):
        yield _box(x, top, width, height, "step")
        yield _text(x + width / 2, top + 25, step.name, "title")
        yield _text(x + width / 2, top + 43, step.does, "small")
    for x in left[1:]:
        yield _arrow(f"M{x - gap:g} {top + height / 2:g}h{gap - 2:g}")
    low = top + height + 58
    shim, decide = left[5] + width / 2, left[2] + width / 2
    yield _arrow(f"M{shim:g} {top + height + 30:g}V{low:g}H{decide:g}V{top + height + 31:g}")
    yield _text((shim + decide) / 2, low - 6, "what runs: asked each time, never remembered", "small")


def _rooms(top: float) -> Iterator[str]:
    gap = 16.0
    right = 300.0
    left = WIDTH - 2 * MARGIN - gap - right
    yield _text(MARGIN, top - 12, "The source tree", "title", "start")
    yield from _panel(MARGIN, top, left, 476, name="kubelite", said="the node agent")
    y = top + 34
    rows = [floor[at : at + _BESIDE] for floor in FLOORS for at in range(0, len(floor), _BESIDE)]
    for row in rows:
        yield from _row(MARGIN + 12, y, left - 24, 38, row)
        y += 44
    yield from _panel(MARGIN + 12, y, left - 24, 120, name="node", said="what a kubelet does")
    yield from _row(MARGIN + 22, y + 30, left - 44, 38, NODE[:5])
    yield from _row(MARGIN + 22, y + 74, left - 44, 38, NODE[5:])
    yield from _row(MARGIN + 12, y + 128, left - 24, 38, (GROUND,))
    x = MARGIN + left + gap
    yield from _panel(x, top, right, 368, name="runtime", said="usable without kubelite")
    for index, room in enumerate(ENGINE):
        yield from _line(x + 12, top + 31 + index * 37, right - 24, 26, room)
    yield from _panel(x, top + 382, right, 94, name="", said="used by kubelite")
    for index, room in enumerate(BESIDE):
        yield from _line(x + 12, top + 411 + index * 31, right - 24, 26, room)


def _panel(x: float, y: float, width: float, height: float, *, name: str, said: str) -> Iterator[str]:
    yield _box(x, y, width, height, "panel")
    if name:
        yield _text(x + 12, y + 21, f"{name}/", "name", "start")
    yield _text(x + width - 12, y + 21, said, "small", "end")


def _row(x: float, y: float, width: float, height: float, rooms: Sequence[tuple[str, str]]) -> Iterator[str]:
    gap = 10.0
    each = (width - gap * (len(rooms) - 1)) / len(rooms)
    for index, (name, said) in enumerate(rooms):
        at = x + index * (each + gap)
        yield _box(at, y, each, height)
        yield _text(at + each / 2, y + height / 2 - 3, name, "name")
        yield _text(at + each / 2, y + height / 2 + 12, said, "small")


def _line(x: float, y: float, width: float, height: float, room: tuple[str, str]) -> Iterator[str]:
    name, said = room
    yield _box(x, y, width, height)
    yield _text(x + 10, y + height / 2 + 4, name, "name", "start")
    yield _text(x + width - 10, y + height / 2 + 4, said, "small", "end")


def drawn_packages() -> dict[str, set[str]]:
    """The packages in the picture, by their parent directory."""
    floors = {name for floor in FLOORS for name, _ in floor} | {"node", GROUND[0]}
    return {
        "kubelite": floors,
        "kubelite/node": {name for name, _ in NODE},
        "runtime": {name for name, _ in ENGINE},
    }


def main() -> None:
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(drawing(), encoding="utf-8")


if __name__ == "__main__":
    main()
