"""kill -9 of a process at its Nth system call that changes anything, done by the process itself (tap.c)."""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.powercut import compile_tap

_STRIKE = struct.Struct("@q16sqq48s")  # struct strike of tap.c
NEVER = 1 << 40  # of `at`: only count


@dataclass(frozen=True, slots=True)
class Strike:
    """Armed for one process at a time. Processes that are started with `environment` can be killed."""

    environment: dict[str, str]
    _page: mmap.mmap

    @classmethod
    @contextlib.contextmanager
    def ready(cls, directory: Path) -> Iterator[Strike]:
        path = directory / "strike"
        path.write_bytes(bytes(_STRIKE.size))
        with path.open("r+b") as file, mmap.mmap(file.fileno(), _STRIKE.size) as page:
            yield cls({"LD_PRELOAD": str(compile_tap(directory)), "CHAOS_STRIKE": str(path)}, page)

    def arm(self, *, pid: int = 0, name: str = "", at: int = NEVER) -> None:
        """Arm it for process `pid` (-1: the next that starts), or for a process called `name`."""
        self._page[:] = _STRIKE.pack(pid, name.encode(), at, 0, b"")

    def disarm(self) -> tuple[int, str]:
        """Return the number of calls, and the call at which the process was killed, or ""."""
        *_, count, call = _STRIKE.unpack(self._page[:])
        self.arm(at=0)
        return count, call.rstrip(b"\0").decode()
