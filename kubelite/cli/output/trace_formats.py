"""PURE: a start trace in other forms: the Chrome trace format (chrome://tracing, ui.perfetto.dev), and a waterfall.

Source: Trace Event Format, google/trace-viewer: complete events (ph X) and instants (ph i), times in microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubelite.kube.json import Json


PID = 1
WIDTH = 40  # characters of the waterfall
NAME = 48  # of a step's name, beside it


def chrome(answer: Json) -> Json:
    """One process for the pod, a thread for the pod's own steps and one for each container; where steps of one went on
    beside each other, one more (`_lane`). Times are whole microseconds from the first step on, which `otherData` has in
    Unix seconds: as such they would be so big that a float rounds them. Threads are counted from the process's id on,
    since in Perfetto thread 0 is no thread of any process, and what it did is the first one's.
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
    """The number of the first lane where the event lies within what is still going on there, or after it; a new one
    where there is none. Perfetto drops what ends after that which it began in. An end that a float has a microsecond
    after the next begin is set right."""
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
