"""Format the common parts of descriptions: aligned columns, labels, annotations, dates, and the events. Pure.

Layout and wording are kubectl's (kubectl pkg/describe/describe.go). Columns align as in Go's text/tabwriter: a column
is as wide as its widest cell in consecutive lines that have the column, plus two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from kubelite.kube.durations import age_of, human_duration
from kubelite.kube.times import parse_time

if TYPE_CHECKING:
    from kubelite.kube.json import Json


_ANNOTATION_MAX = 140
_HIDDEN = ("kubectl.kubernetes.io/last-applied-configuration",)
_PADDING = 2


def with_events(lines: Sequence[str], events: Sequence[Json] | None, now: float) -> str:
    """Align a description and append its events; with None, there is no Events section."""
    if events is None:
        return tabbed(lines)
    if not events:
        return tabbed([*lines, "Events:\t<none>"])
    return tabbed(lines) + tabbed(_event_lines(events, now))


def tabbed(lines: Iterable[str]) -> str:
    """Align lines with tabs."""
    rows = [line.split("\t") for line in lines]
    columns = max((len(row) for row in rows), default=1) - 1
    for column in range(columns):
        for has, group in groupby(rows, key=lambda row: len(row) - 1 > column):
            block = list(group)
            if not has:
                continue
            width = max(len(row[column]) for row in block) + _PADDING
            for row in block:
                row[column] = row[column].ljust(width)
    return "".join("".join(row) + "\n" for row in rows)


def label_lines(title: str, labels: Json) -> list[str]:
    if not labels:
        return [f"{title}:\t<none>"]
    pairs = [f"{key}={value}" for key, value in sorted(labels.items())]
    return [f"{title}:\t{pairs[0]}", *(f"\t{pair}" for pair in pairs[1:])]


def annotation_lines(annotations: Json) -> list[str]:
    shown = {key: value for key, value in annotations.items() if key not in _HIDDEN}
    if not shown:
        return ["Annotations:\t<none>"]
    out: list[str] = []
    for key, raw in sorted(shown.items()):
        value = str(raw).removesuffix("\n")
        lead = "\t" if out else "Annotations:\t"
        if len(value) + len(key) + 2 > _ANNOTATION_MAX or "\n" in value:
            out.append(f"{lead}{key}:")
            out += [f"\t  {_shorten(line)}" for line in value.split("\n")]
        else:
            out.append(f"{lead}{key}: {value}")
    return out


def _shorten(line: str) -> str:
    limit = _ANNOTATION_MAX - 2
    return line if len(line) <= limit else line[:limit] + "..."


def _event_lines(events: Sequence[Json], now: float) -> list[str]:
    out = ["Events:", "  Type\tReason\tAge\tFrom\tMessage", "  ----\t------\t----\t----\t-------"]
    for event in sorted(events, key=event_time):
        source = (event.get("source") or {}).get("component") or event.get("reportingComponent") or ""
        age, message = event_age(event, now), str(event.get("message", "")).strip()
        out.append(f"  {event.get('type', '')}\t{event.get('reason', '')}\t{age}\t{source}\t{message}")
    return out


def event_time(event: Json) -> float:
    """Return the time of the event's last occurrence."""
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return parse_time(text or event.get("firstTimestamp")) or 0.0


def event_age(event: Json, now: float) -> str:
    """Return `5s`, or `5s (x3 over 2m)` for an event that occurred several times."""
    first = age_of(event.get("eventTime") or event.get("firstTimestamp"), now)
    series = event.get("series") or {}
    count = series.get("count") or event.get("count") or 1
    if series or count > 1:
        return f"{human_duration(now - event_time(event))} (x{count} over {first})"
    return first


def date(text: str | None) -> str:
    """Format local time as RFC 1123 with a numeric zone, as Go's RFC1123Z."""
    at = parse_time(text)
    if at is None:
        return "Mon, 01 Jan 0001 00:00:00 +0000"
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%a, %d %b %Y %H:%M:%S %z")


def truth(value: Any) -> str:
    return str(bool(value)).lower()
