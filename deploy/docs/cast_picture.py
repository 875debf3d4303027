"""Convert a terminal recording to an animated picture: `python -m deploy.docs.cast_picture` writes the SVG.

The cast is played on a terminal in memory (pyte). Each text that stays in a line of the screen for some time becomes a
text of the picture, and a CSS animation shows it for that time. The picture has no script. A reader who prefers reduced
motion sees the last screen.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

import pyte

REPO: Final = Path(__file__).resolve().parents[2]
CAST: Final = REPO / "docs" / "assets" / "main-job.cast"
SVG: Final = REPO / "docs" / "assets" / "main-job.svg"

CELL, LINE = 8.4, 18.0  # for a font of 14 pixels
PAD, BAR = 14.0, 30.0
REST: Final = 4.0  # seconds that the last screen stays
CURSOR: Final = "\N{FULL BLOCK}"
TOGETHER: Final = 0.03  # seconds: output within this time is one frame

STYLE: Final = """
text { font: 14px ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace; }
text { fill: #e6edf3; white-space: pre; }
.window { fill: #0d1117; stroke: #3d444d; }
.once { visibility: hidden; animation-timing-function: step-end; animation-iteration-count: infinite; }
@media (prefers-reduced-motion: reduce) { .once { animation: none !important; } .last { visibility: visible; } }
"""


class Shown(NamedTuple):
    """A text in a line of the screen, including the cursor, with its begin and end in seconds."""

    line: int
    text: str
    begin: float
    end: float


class Recording(NamedTuple):
    columns: int
    lines: int
    events: tuple[tuple[float, str], ...]


def read(cast: str) -> Recording:
    """Read a cast in asciinema's format version 2. Raises ValueError for other formats."""
    head, *rest = cast.splitlines()
    header = json.loads(head)
    if header.get("version") != 2:
        raise ValueError(f"a cast of version {header.get('version')}, not 2")
    events = tuple((float(at), str(data)) for at, kind, data in map(json.loads, rest) if kind == "o")
    if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(events)):
        raise ValueError("the times of the cast go back")
    return Recording(header["width"], header["height"], events)


def shown(recording: Recording) -> list[Shown]:
    """Every text of the screen with its time."""
    screen = pyte.Screen(recording.columns, recording.lines)
    stream = pyte.Stream(screen)
    now: dict[int, tuple[str, float]] = {}
    found: list[Shown] = []
    for at, data in _gathered(recording.events):
        stream.feed(data)
        for number, text in enumerate(_with_cursor(screen)):
            before, since = now.get(number, ("", 0.0))
            if text != before:
                if before:
                    found.append(Shown(number, before, since, at))
                now[number] = (text, at)
    end = length(recording)
    return [*found, *(Shown(number, text, since, end) for number, (text, since) in now.items() if text)]


def _with_cursor(screen: pyte.Screen) -> list[str]:
    lines = [line.rstrip() for line in screen.display]
    at = lines[screen.cursor.y].ljust(screen.cursor.x)
    lines[screen.cursor.y] = f"{at[: screen.cursor.x]}{CURSOR}{at[screen.cursor.x + 1 :]}"
    return lines


def length(recording: Recording) -> float:
    return round(recording.events[-1][0] + REST, 2)


def _gathered(events: tuple[tuple[float, str], ...]) -> Iterator[tuple[float, str]]:
    begun, together = events[0][0], ""
    for at, data in events:
        if at - begun > TOGETHER:
            yield begun, together
            begun, together = at, ""
        together += data
    yield begun, together


def drawn(cast: str) -> str:
    """The picture of a cast."""
    recording = read(cast)
    width = 2 * PAD + recording.columns * CELL
    height = BAR + PAD + recording.lines * LINE
    whole = length(recording)
    frames: dict[tuple[float, float], str] = {}
    body: list[str] = []
    for one in shown(recording):
        begin, end = round(one.begin, 2), round(one.end, 2)
        if end <= begin:
            continue
        name = frames.setdefault((begin, end), f"t{len(frames)}")
        kind = f'class="once{" last" if end >= whole else ""}" style="animation-name:{name}"'
        y = BAR + (one.line + 1) * LINE - 4
        body.append(f'<text {kind} x="{PAD:g}" y="{y:.1f}">{escape(one.text)}</text>')
    rules = "\n".join(_keyframes(name, begin, end, whole) for (begin, end), name in frames.items())
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
            'aria-label="A terminal: a manifest is copied, its pod runs, is edited, and is removed">',
            f"<style>{STYLE}.once {{ animation-duration: {whole}s; }}\n{rules}\n</style>",
            f'<rect class="window" x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="8"/>',
            *(
                f'<circle cx="{18 + 18 * index}" cy="16" r="5.5" fill="{colour}"/>'
                for index, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
            ),
            *body,
            "</svg>\n",
        ]
    )


def _keyframes(name: str, begin: float, end: float, whole: float) -> str:
    """Visible from begin to end."""
    first, last = f"{begin / whole:.4%}", f"{end / whole:.4%}"
    start = f"{first}{{visibility:visible}}" if begin else "0%{visibility:visible}"
    hidden = "" if not begin else "0%{visibility:hidden}"
    after = "" if end >= whole else f"{last}{{visibility:hidden}}"
    return f"@keyframes {name}{{{hidden}{start}{after}to{{visibility:{'visible' if end >= whole else 'hidden'}}}}}"


def main() -> None:
    SVG.write_text(drawn(CAST.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
