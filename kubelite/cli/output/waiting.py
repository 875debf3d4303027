"""A line on the terminal that shows what a command waits for, and for how long. Pipes and files do not get it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kubelite.cli.output.foreign import harmless

_PATIENCE = 0.5  # seconds until the line appears
_REDRAW = 0.1  # seconds
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Waiting:
    """What the command waits for. `now` changes it; `print` writes a line of output above it."""

    def __init__(self, words: str) -> None:
        self._words, self._began = words, time.monotonic()
        self._lock = threading.Lock()
        self._drawn = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._thread = threading.Thread(target=self._ticking, daemon=True)
            self._thread.start()

    def now(self, words: str) -> None:
        """Wait for something else. The time continues."""
        with self._lock:
            self._words = words

    def print(self, text: str, *, err: bool = False) -> None:
        """Print a line of output, or with `err` a message."""
        with self._lock:
            self._clear()
            print(text, file=sys.stderr if err else sys.stdout, flush=True)

    def close(self) -> None:
        """Remove the line."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._clear()

    def _ticking(self) -> None:
        if self._ended.wait(_PATIENCE):
            return
        frame = 0
        while not self._ended.wait(_REDRAW):
            with self._lock:
                self._draw(_FRAMES[frame % len(_FRAMES)])
            frame += 1

    def _draw(self, frame: str) -> None:
        text = f"{frame} {' '.join(harmless(self._words).split())}  {time.monotonic() - self._began:.0f}s"
        if not sys.stderr.encoding.lower().startswith("utf"):
            text = text[2:]
        sys.stderr.write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
        sys.stderr.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


@contextmanager
def waiting(words: str) -> Iterator[Waiting]:
    """Show the line until the block ends."""
    line = Waiting(words)
    try:
        yield line
    finally:
        line.close()
