"""PURE: a start trace in other forms: the Chrome trace format (chrome://tracing, ui.perfetto.dev), and a waterfall.

Source: Trace Event Format, google/trace-viewer: complete events (ph X) and instants (ph i), times in microseconds.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

WIDTH = 40  # characters of the waterfall
NAME = 48  # of a step's name, beside it


def chrome(answer: Json) -> Json:
    """One process for the pod, a thread for the pod's own steps and one for each container. Times are whole
    microseconds from the first step on, which `otherData` has in Unix seconds: as such they would be so big that a
    float rounds them, and where a step seems to end after the next one has begun, Perfetto drops it.
    """
    steps = answer["steps"]
    zero = min((step["at"] for step in steps), default=0.0)
    rows = {"": 0}
    for step in steps:
        rows.setdefault(step.get("container", ""), len(rows))
    events: list[Json] = [
        {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": f"pod {answer['pod']}"}}
    ]
    events += [
        {"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name or "pod"}}
        for name, tid in rows.items()
    ]
    last: dict[int, Json] = {}  # thread → the step before
    for step in steps:
        words = {key: step[key] for key in ("call", "detail", "error") if step.get(key)}
        begin, tid = round((step["at"] - zero) * 1e6), rows[step.get("container", "")]
        event = {"pid": 1, "tid": tid, "name": step["step"], "cat": "start", "ts": begin, "args": words}
        before = last.get(tid)
        if before is not None and before["ts"] + before["dur"] == begin + 1:
            before["dur"] = max(0, before["dur"] - 1)
        if took := step.get("took"):
            last[tid] = event = {**event, "ph": "X", "dur": round((step["at"] + took - zero) * 1e6) - begin}
        else:
            event |= {"ph": "i", "s": "t"}
        events.append(event)
    about = {"uid": answer.get("uid", ""), "start": zero}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}


def bar(step: Json, start: float, end: float) -> str:
    """The step's place in time, drawn."""
    whole = max(end - start, 1e-9)
    left = min(WIDTH - 1, int((step["at"] - start) / whole * WIDTH))
    length = max(1, round(step.get("took", 0.0) / whole * WIDTH))
    return " " * left + ("█" * min(length, WIDTH - left) if step.get("took") else "▏")


def short(step: str) -> str:
    """A step's name as it fits beside its waterfall: of many paths the first, of a long one the end."""
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
