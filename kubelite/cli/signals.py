"""SIGTERM and SIGHUP as exceptions, so that a command which they end undoes what it did."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from kubelite.cli.errors import Exit


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Raise Exit, with a shell's exit code, at a SIGTERM or SIGHUP that arrives within the block."""

    def leave(number: int, _: object) -> None:
        raise Exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
