"""The text of a metrics page: Prometheus' text format 0.0.4, and OpenMetrics 1.0 for clients that request it.

Sources: prometheus.io/docs/instrumenting/exposition_formats and the OpenMetrics specification. Names that OpenMetrics
does not allow are written as by Go's expfmt/openmetrics_create.go: a counter without `_total` has the type unknown.
prometheus-client's writer takes 11 µs a sample, this one well below 1 µs, because the text of labels is built once and
C code joins the samples of a family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from queue import Queue
from threading import Thread
from typing import Literal

from kubelite.telemetry.metrics.packed import Packer, Piece, Shelf

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

AHEAD = 16  # parts that may wait for compression; the limit keeps the whole text from being in memory

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family. `name`: the name of its samples in the text format (those of counters mostly end in _total)."""

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
    """Escape a label's value as both formats require."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value


def labels(pairs: Mapping[str, str]) -> str:
    """Format labels without braces: `a="1",b="2"`."""
    return ",".join(f'{name}="{escape(value)}"' for name, value in pairs.items())


def number(value: float) -> str:
    """Format a number as short as possible without loss; whole numbers without a decimal point."""
    if isinstance(value, int):
        return str(value)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


@dataclass(frozen=True, slots=True)
class Keep:
    """Text that is compressed as a separate piece, which is appended to `into`."""

    text: bytes
    into: list[Piece]


Part = bytes | Keep | Piece


class Page:
    """Takes families in order and passes their text to `sink`, part by part. With a `shelf` (for compressed pages),
    text that has not changed since an earlier page is not written again."""

    def __init__(
        self, sink: Callable[[Part], object], *, openmetrics: bool = False, shelf: Shelf | None = None
    ) -> None:
        self.openmetrics = openmetrics
        self._sink = sink
        self._shelf = shelf
        self._section: list[Piece] | None = None

    def family(self, family: Family, samples: str) -> None:
        """Write a whole family. `samples`: its lines, each with a newline; if there are none, nothing is written."""
        if samples:
            self.raw((self._head(family) + samples).encode())

    def kept(self, family: Family, version: object, lines: Callable[[], str], fresh: str = "") -> None:
        """Write a family. Its `lines` are unchanged as long as `version` is; `fresh`: additional lines, which may have
        changed."""
        if self._shelf is None:
            self.family(family, fresh + lines())
            return
        parts: list[Part] = []
        if (known := self._shelf.find(family.name, version)) is not None:
            parts += known
        else:
            text, known = lines().encode(), self._shelf.place(family.name, version)
            parts += [Keep(text, known)] if text else []
        if fresh or parts:
            self._sink((self._head(family) + fresh).encode())
        for part in parts:
            self._sink(part)

    def section(self, name: str, version: object, write: Callable[[Page], None]) -> None:
        """Write families that are all unchanged as long as `version` is. `write` must not call `kept`."""
        if self._shelf is None:
            write(self)
            return
        key = (name, self.openmetrics)
        if (known := self._shelf.find(key, version)) is not None:
            for piece in known:
                self._sink(piece)
            return
        self._section = self._shelf.place(key, version)
        write(self)
        self._section = None

    def column(self, family: Family, heads: Iterable[str], tail: str, values: Iterable[str]) -> None:
        """Write a family with a sample for each head and value. A head is the text of labels without the closing brace:
        `{a="1"`. `tail` closes the brace and may add labels."""
        lines = zip(repeat(family.name), heads, repeat(tail), values, repeat("\n"), strict=False)
        self.family(family, "".join(chain.from_iterable(lines)))

    def one(self, family: Family, value: float, **pairs: str) -> None:
        """Write a family of one sample."""
        inside = f"{{{labels(pairs)}}}" if pairs else ""
        self.family(family, f"{family.name}{inside} {number(value)}\n")

    def raw(self, text: bytes) -> None:
        """Write text that already has the page's format."""
        self._sink(text if self._section is None else Keep(text, self._section))

    def end(self) -> None:
        if self.openmetrics:
            self.raw(b"# EOF\n")

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


def render(
    write: Callable[[Page], None], *, openmetrics: bool, compressed: bool, shelf: Shelf | None = None
) -> bytes:
    """Return the page that `write` writes. A compressed page is compressed while it is written, so the whole text is
    never in memory. Parts that are in `shelf` are not compressed again."""
    if not compressed:
        parts: list[bytes] = []
        _write(write, Page(parts.append, openmetrics=openmetrics))  # type: ignore[arg-type]  # without a shelf: bytes
        return b"".join(parts)
    shelf = shelf if shelf is not None else Shelf()
    try:
        return _compressed(write, openmetrics, shelf)
    except BaseException:
        shelf.clear()  # some pieces may be missing
        raise


def _compressed(write: Callable[[Page], None], openmetrics: bool, shelf: Shelf) -> bytes:
    """Compress in another thread while the page is written. zlib releases the interpreter's lock."""
    packer = Packer()
    parts: Queue[Part | None] = Queue(AHEAD)
    failed: list[BaseException] = []

    def pack() -> None:
        while (part := parts.get()) is not None:
            if failed:
                continue  # keep reading, so that the writer never blocks
            try:
                _pack(packer, part)
            except BaseException as error:  # noqa: BLE001 - raised again in the writer's thread
                failed.append(error)

    thread = Thread(target=pack, name="pack-metrics", daemon=True)
    thread.start()
    try:
        _write(write, Page(parts.put, openmetrics=openmetrics, shelf=shelf))
    finally:
        parts.put(None)
        thread.join()
    if failed:
        raise failed[0]
    return packer.end()


def _pack(packer: Packer, part: Part) -> None:
    if isinstance(part, Piece):
        packer.again(part)
    elif isinstance(part, Keep):
        part.into.append(packer.piece(part.text))
    else:
        packer.text(part)


def _write(write: Callable[[Page], None], page: Page) -> None:
    write(page)
    page.end()
