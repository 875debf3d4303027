"""The text of a metrics page: Prometheus' text format 0.0.4, and OpenMetrics 1.0 for those who ask for it.

Sources: prometheus.io/docs/instrumenting/exposition_formats, the OpenMetrics specification, and what Go's
expfmt/openmetrics_create.go does where names do not fit it: a counter without `_total` is of type unknown there.
prometheus-client's writer takes 11 µs a sample, this one well below one: labels are text that is made once, and the
samples of a family are joined, not formatted, by C code.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Literal

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family by the name its samples have in the text format (counters mostly end in _total)."""

    name: str
    kind: Kind
    help: str


def gauge(name: str, text: str) -> Family:
    return Family(name, "gauge", text)


def counter(name: str, text: str) -> Family:
    return Family(name, "counter", text)


def histogram(name: str, text: str) -> Family:
    return Family(name, "histogram", text)


def escape(value: str) -> str:
    """A label's value as both formats quote it."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value


def labels(pairs: Mapping[str, str]) -> str:
    """`a="1",b="2"`, without braces."""
    return ",".join(f'{name}="{escape(value)}"' for name, value in pairs.items())


def number(value: float) -> str:
    """As short as it can be said exactly; whole numbers without a point."""
    if isinstance(value, int):
        return str(value)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


class Page:
    """Takes families one after the other and gives their text to `sink`, piece by piece."""

    def __init__(self, sink: Callable[[bytes], object], *, openmetrics: bool = False) -> None:
        self.openmetrics = openmetrics
        self._sink = sink

    def family(self, family: Family, samples: str) -> None:
        """A whole family: `samples` are its lines, each with its newline. Without any, nothing is written."""
        if samples:
            self._sink((self._head(family) + samples).encode())

    def column(self, family: Family, heads: Iterable[str], tail: str, values: Iterable[str]) -> None:
        """One sample for each of `heads` (`{a="1"`, the brace open) with the value of the same place; `tail` closes
        the brace and may add labels."""
        lines = zip(repeat(family.name), heads, repeat(tail), values, repeat("\n"), strict=False)
        self.family(family, "".join(chain.from_iterable(lines)))

    def one(self, family: Family, value: float, **pairs: str) -> None:
        """A family of one sample."""
        inside = f"{{{labels(pairs)}}}" if pairs else ""
        self.family(family, f"{family.name}{inside} {number(value)}\n")

    def raw(self, text: bytes) -> None:
        """Families in the page's own format, written elsewhere."""
        self._sink(text)

    def end(self) -> None:
        if self.openmetrics:
            self._sink(b"# EOF\n")

    def _head(self, family: Family) -> str:
        name, kind, text = family.name, str(family.kind), family.help
        text = text.replace("\\", "\\\\").replace("\n", "\\n")
        if self.openmetrics:
            text = text.replace('"', '\\"')
            if kind == "counter":
                kind = "counter" if name.endswith("_total") else "unknown"
                name = name.removesuffix("_total")
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def prefers_openmetrics(accept: str) -> bool:
    """Whether an Accept header ranks OpenMetrics (version 1.0.0 or any) at least as high as plain text."""
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        options = dict(p.split("=", 1) for p in parameters if "=" in p)
        if kind not in best or (kind.startswith("app") and options.get("version", "1.0.0") != "1.0.0"):
            continue
        try:
            weight = float(options.get("q", "1"))
        except ValueError:
            weight = 0.0
        best[kind] = max(best[kind], weight)
    return 0 < best["application/openmetrics-text"] >= best["text/plain"]


def render(write: Callable[[Page], None], *, openmetrics: bool, compressed: bool) -> bytes:
    """The page that `write` writes. Compressed as it is written, so that the whole text is never there at once."""
    if not compressed:
        parts: list[bytes] = []
        _write(write, parts.append, openmetrics)
        return b"".join(parts)
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)  # 31: with gzip's own header
    packed: list[bytes] = []
    _write(write, lambda text: packed.append(packer.compress(text)), openmetrics)
    packed.append(packer.flush())
    return b"".join(packed)


def _write(write: Callable[[Page], None], sink: Callable[[bytes], object], openmetrics: bool) -> None:
    page = Page(sink, openmetrics=openmetrics)
    write(page)
    page.end()
