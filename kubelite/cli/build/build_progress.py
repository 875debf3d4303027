"""Print a build's progress on stderr: lines for a log, or on a terminal a list that ends with the running steps."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubelite.cli.output.foreign import harmless

if TYPE_CHECKING:
    from kubelite.kube.json import Json

Report = Callable[["Json"], None]
_TAIL = 5  # lines of output shown of a running step
_KEPT = 200  # lines of a failed step
_REDRAW = 0.1  # seconds


def kind(wanted: str) -> str:
    """Resolve --progress=auto; return any other value unchanged."""
    if wanted != "auto":
        return wanted
    return "tty" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"


@contextmanager
def shown(kind: str) -> Iterator[Report]:
    """Yield a function that takes a build's events (from any thread)."""
    if kind == "tty":
        live = _Live()
        try:
            yield live.report
        finally:
            live.close()
        return
    lock = threading.Lock()
    plain = _Plain()

    def report(event: Json) -> None:
        with lock:
            if kind == "json":
                print(json.dumps(event, separators=(",", ":")), file=sys.stderr, flush=True)
            elif kind == "plain":
                plain.report(event)
            elif event.get("event") == "step" and event["state"] == "error":
                pass  # the command prints the error

    yield report


def _seconds(event: Json) -> str:
    return f"{event.get('seconds', 0.0):.1f}s"


class _Plain:
    """Print lines as buildkit does: `#3 [stage 2/4] RUN …`, the output with its time, `#3 DONE 1.2s`."""

    def __init__(self) -> None:
        self._began: dict[int, float] = {}
        self._half: dict[int, str] = {}

    def report(self, event: Json) -> None:
        kind, number = event.get("event"), event.get("id", 0)
        if kind == "step":
            self._step(event, number)
        elif kind == "log":
            text = self._half.pop(number, "") + event["text"]
            *lines, rest = text.split("\n")
            for line in lines:
                self._say(number, f"{time.monotonic() - self._began.get(number, 0.0):.3f} {line}")
            if rest:
                self._half[number] = rest
        elif kind in ("warning", "retry"):
            print(f"{kind}: {harmless(event['message'])}", file=sys.stderr, flush=True)

    def _step(self, event: Json, number: int) -> None:
        if rest := self._half.pop(number, ""):
            self._say(number, rest)
        state = event["state"]
        if state == "begin":
            self._began[number] = time.monotonic()
            self._say(number, event["name"])
        elif state == "done":
            self._say(number, f"DONE {_seconds(event)}")
        elif state == "error":
            self._say(number, "ERROR")
        else:
            self._say(number, state.upper())

    @staticmethod
    def _say(number: int, text: str) -> None:
        print(f"#{number} {harmless(text)}", file=sys.stderr, flush=True)


@dataclass(slots=True)
class _Step:
    name: str
    began: float
    tail: list[str] = field(default_factory=lambda: [""])


class _Live:
    """Print finished steps once. Redraw the running steps below them with their last lines of output."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, _Step] = {}
        self._drawn = 0  # lines to clear before the next redraw
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ticking, daemon=True)
        self._thread.start()

    def report(self, event: Json) -> None:
        with self._lock:
            kind, number = event.get("event"), event.get("id", 0)
            if kind == "log" and number in self._running:
                self._output(self._running[number], event["text"])
            elif kind == "step" and event["state"] == "begin":
                self._running[number] = _Step(event["name"], time.monotonic())
            elif kind == "step" and (step := self._running.pop(number, None)) is not None:
                self._over(step, event)
            elif kind in ("warning", "retry"):
                self._above(f"{kind}: {event['message']}")

    @staticmethod
    def _output(step: _Step, text: str) -> None:
        first, *more = text.replace("\r\n", "\n").split("\n")
        step.tail[-1] += first
        step.tail += more
        del step.tail[:-_KEPT]

    def _over(self, step: _Step, event: Json) -> None:
        word = {"done": _seconds(event), "cached": "CACHED", "error": "ERROR"}.get(
            event["state"], event["state"]
        )
        lines = [f" {'✗' if event['state'] == 'error' else '✓'} {step.name}  {word}"]
        if event["state"] == "error":
            lines += [f"   | {line}" for line in step.tail if line]
        self._above(*lines)

    def _above(self, *lines: str) -> None:
        self._clear()
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        self._draw()

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _draw(self) -> None:
        width, height = shutil.get_terminal_size()
        lines: list[str] = []
        for step in self._running.values():
            lines.append(f" → {step.name}  {time.monotonic() - step.began:.1f}s")
            lines += [f"   | {_printable(line)}" for line in step.tail[-_TAIL:] if line]
        lines = [line[: width - 1] for line in lines[: max(height - 2, 1)]]
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()
        self._drawn = len(lines)

    def _ticking(self) -> None:
        while not self._ended.wait(_REDRAW):
            with self._lock:
                if self._running or self._drawn:
                    self._clear()
                    self._draw()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._clear()
            sys.stderr.flush()


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in line.rpartition("\r")[2] or line)
