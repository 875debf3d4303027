"""Convert a start trace to the Chrome trace format (chrome://tracing, ui.perfetto.dev) or to a waterfall. Pure.

Source: Trace Event Format, google/trace-viewer: complete events (ph X) and instants (ph i), times in microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubelite.kube.json import Json


PID = 1
WIDTH = 40  # characters of the waterfall
NAME = 48  # characters of a step's name beside it


def chrome(answer: Json) -> Json:
    """Convert the trace. The pod is a process with a thread for its own steps and one per container. Steps that overlap
    get another thread (`_lane`). Times are whole microseconds since the first step, whose Unix time (in seconds) is in
    `otherData`: a float would round absolute times. Thread ids start at the process id, because Perfetto attributes
    thread 0 to the first process.
    """
    steps = sorted(answer["steps"], key=lambda step: (step["at"], -step.get("took", 0.0)))
    zero = min((step["at"] for step in steps), default=0.0)
    lanes: dict[str, list[list[Json]]] = {"": [[]]}
    rows = {("", 0): PID}
    events: list[Json] = []
    for step in steps:
        words = {key: step[key] for key in ("call", "detail", "error") if step.get(key)}
        begin, who = round((step["at"] - zero) * 1e6), step.get("container", "")
        event: Json = {"pid": PID, "name": step["step"], "cat": "start", "ts": begin, "args": words}
        if took := step.get("took"):
            event |= {"ph": "X", "dur": round((step["at"] + took - zero) * 1e6) - begin}
            lane = _lane(event, lanes.setdefault(who, [[]]))
        else:
            event |= {"ph": "i", "s": "t"}
            lane = 0
        event["tid"] = rows.setdefault((who, lane), PID + len(rows))
        events.append(event)
    named = [("process_name", PID, f"pod {answer['pod']}")]
    named += [
        ("thread_name", tid, (name or "pod") + (f" ({lane + 1})" if lane else ""))
        for (name, lane), tid in rows.items()
    ]
    about = [
        {"ph": "M", "pid": PID, "tid": tid, "name": kind, "args": {"name": name}} for kind, tid, name in named
    ]
    return {
        "traceEvents": about + events,
        "displayTimeUnit": "ms",
        "otherData": {"uid": answer.get("uid", ""), "start": zero},
    }


def _lane(event: Json, lanes: list[list[Json]]) -> int:
    """Return the first lane in which the event nests in, or follows, the open events; add a lane if there is none.
    Perfetto drops an event that ends after the one it started in. Correct an end that rounding put a microsecond after
    the next start."""
    begin, end = event["ts"], event["ts"] + event["dur"]
    for number, going in enumerate(lanes):
        while going and going[-1]["ts"] + going[-1]["dur"] <= begin + 1:
            over = going.pop()
            over["dur"] = min(over["dur"], begin - over["ts"])
        if not going or end <= going[-1]["ts"] + going[-1]["dur"]:
            going.append(event)
            return number
    lanes.append([event])
    return len(lanes) - 1


def bar(step: Json, start: float, end: float) -> str:
    """Draw the step on the time axis."""
    whole = max(end - start, 1e-9)
    left = min(WIDTH - 1, int((step["at"] - start) / whole * WIDTH))
    length = max(1, round(step.get("took", 0.0) / whole * WIDTH))
    return " " * left + ("█" * min(length, WIDTH - left) if step.get("took") else "▏")


def short(step: str) -> str:
    """Shorten a step's name to fit beside the waterfall: the first of several paths, the end of a long path."""
    if len(step) <= NAME:
        return step
    first, *more = step.split(", ")
    if more:
        return f"{first} and {len(more)} more"
    words = (
        f"…/{w.rpartition('/')[2]}" if w.startswith("/") and len(w) > NAME // 2 else w
        for w in step.split(" ")
    )
    return " ".join(words)
