"""The starts of a pod: the steps of its trace, grouped into stages and drawn on one time scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from kubelite.kube.json import Json
from kubelite.telemetry.tracing.trace import spans

STARTS = 5  # number of the newest starts that are shown
SOURCE = "manifest"  # name of the stage before the first step that has a duration


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the daemon, and the steps of the engine and the container's init that are parts of it. Times are in
    seconds. `at` of a stage is relative to the begin of the start, `at` of a part to the begin of the stage."""

    name: str
    container: str
    at: float
    took: float
    error: str = ""
    parts: tuple[tuple[str, float, float], ...] = ()  # name, at, took


@dataclass(frozen=True, slots=True)
class Start:
    at: float  # Unix seconds
    took: float
    stages: tuple[Stage, ...]


def bare(step: str) -> str:
    """Remove the path from a step's name, because not everyone may see a pod's host directories."""
    return step.partition(" /")[0].removesuffix(" on")


def starts(steps: Sequence[Json]) -> list[Start]:
    """Group the steps of a trace into starts and their stages, the newest start first."""
    groups: dict[tuple[float, float], list[Json]] = {}
    for step, span in zip(steps, spans(steps), strict=True):
        groups.setdefault(span, []).append(step)
    found = [
        Start(begin, max(0.0, end - begin), _stages(group, begin)) for (begin, end), group in groups.items()
    ]
    return sorted(found, key=lambda start: -start.at)


def _stages(steps: Sequence[Json], begin: float) -> tuple[Stage, ...]:
    outer = [step for step in steps if not step.get("call") and step.get("took")]
    moments = [step for step in steps if not step.get("call") and not step.get("took")]
    inner = [step for step in steps if step.get("call")]
    stages = []
    if moments:
        until = outer[0]["at"] if outer else moments[-1]["at"]
        parts = tuple((bare(one["step"]), one["at"] - begin, 0.0) for one in moments if one["at"] <= until)
        stages.append(Stage(SOURCE, "", 0.0, max(0.0, until - begin), parts=parts))
    for step in outer:
        name, took = step.get("container", ""), step["took"]
        mine = [s for s in inner if s.get("container") == name and step["at"] <= s["at"] <= step["at"] + took]
        inner = [one for one in inner if all(one is not other for other in mine)]
        parts = tuple((bare(one["step"]), one["at"] - step["at"], one.get("took", 0.0)) for one in mine)
        stages.append(
            Stage(
                bare(step["step"]), name, step["at"] - begin, took, bool(step.get("error")) * "failed", parts
            )
        )
    return tuple(stages)


def milliseconds(seconds: float) -> str:
    """Format a duration: 0.02 ms, 17 ms, 1.2 s."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2f} ms"


def starts_section(steps: Sequence[Json], ages: Sequence[str]) -> str:
    """Return the section of the starts as HTML. `ages`: the age of each start as text, newest first."""
    found = starts(steps)
    head = '<section id="starts" aria-labelledby="s-h"><h2 id="s-h">Starts'
    if not found:
        return f'{head}</h2><p class="none">Not recorded: an earlier daemon started the pod.</p></section>'
    shown = found[:STARTS]
    scale = max(start.took for start in shown) or 1e-6
    blocks = [
        _start(start, age, place, scale) for place, (start, age) in enumerate(zip(shown, ages, strict=False))
    ]
    more = len(found) - len(shown)
    earlier = f'<p class="none">{more} earlier: <code>kubelite trace POD</code></p>' if more else ""
    return f"{head} <small>bars 0 – {milliseconds(scale)}</small></h2>{''.join(blocks)}{earlier}</section>"


def _start(start: Start, age: str, place: int, scale: float) -> str:
    rows = "".join(
        _stage(stage, f"st-{start.at:.6f}-{number}", scale) for number, stage in enumerate(start.stages)
    )
    opened = " open" if place == 0 else ""
    count = f"{len(start.stages)} stage{'' if len(start.stages) == 1 else 's'}"
    return (
        f'<details class="start" id="st-{start.at:.6f}"{opened}><summary>{escape(age)} ago '
        f"<b>{milliseconds(start.took)}</b> <small>{count}</small></summary>"
        f'<ol class="stages">{rows}</ol></details>'
    )


def _stage(stage: Stage, key: str, scale: float) -> str:
    who = f"<small>{escape(stage.container)}</small> " if stage.container else ""
    failed = f' <span class="mark failing">{escape(stage.error)}</span>' if stage.error else ""
    row = (
        f'<span class="what">{who}{escape(stage.name)}{failed}</span>{_bar(stage.at, stage.took, scale)}'
        f'<span class="took">{milliseconds(stage.took)}</span>'
    )
    if not stage.parts:
        return f'<li class="stage"><div class="row">{row}</div></li>'
    parts = "".join(
        f'<li class="row"><span class="what">{escape(name)}</span>{_bar(at, took, stage.took)}'
        f'<span class="took">{milliseconds(took) if took else "+" + milliseconds(at)}</span></li>'
        for name, at, took in stage.parts
    )
    return (
        f'<li class="stage"><details id="{key}"><summary class="row">{row}</summary>'
        f'<p class="none">{len(stage.parts)} steps; bars 0 – {milliseconds(stage.took)}</p>'
        f"<ol>{parts}</ol></details></li>"
    )


def _bar(at: float, took: float, scale: float) -> str:
    scale = max(scale, 1e-9)
    x = min(99.5, at / scale * 100)
    width = max(0.5, min(100 - x, took / scale * 100))
    return (
        '<svg class="span" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect x="{x:.2f}" width="{width:.2f}" height="8"/></svg>'
    )
