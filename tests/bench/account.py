"""The CPU account of a peer: a cgroup whose processes' time, and their children's, is counted by the kernel."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Self

V1 = Path("/sys/fs/cgroup/cpuacct")
V2 = Path("/sys/fs/cgroup")


class Account:
    """`used()` is nanoseconds of CPU since the cgroup was made, by whatever ran below it or below `others` (cgroup
    names that the peer makes itself)."""

    def __init__(self, name: str, others: tuple[str, ...]) -> None:
        self.cgroup = f"bench-{name}-{secrets.token_hex(3)}"
        self._root = V1 if V1.is_dir() else V2
        self._others = others
        self._home = ""
        self.path.mkdir()

    @property
    def path(self) -> Path:
        return self._root / self.cgroup

    def wrap(self, command: list[str]) -> list[str]:
        """The command, moved into the account before it begins."""
        leaf = self.path / "work" if self._root is V2 else self.path
        leaf.mkdir(exist_ok=True)
        return ["sh", "-c", f'echo $$ > {leaf}/cgroup.procs; exec "$@"', "sh", *command]

    def add_tree(self, pid: int) -> None:
        """Move a process and its children."""
        todo = [pid]
        leaf = self.path / "work" if self._root is V2 else self.path
        leaf.mkdir(exist_ok=True)
        while todo:
            one = todo.pop()
            with contextlib.suppress(OSError):
                todo.extend(int(c) for c in Path(f"/proc/{one}/task/{one}/children").read_text().split())
                (leaf / "cgroup.procs").write_text(str(one))

    def used(self) -> int:
        return sum(self._read(name) for name in (self.cgroup, *self._others))

    def _read(self, name: str) -> int:
        with contextlib.suppress(OSError):
            if self._root is V1:
                return int((V1 / name / "cpuacct.usage").read_text())
            stat = (V2 / name / "cpu.stat").read_text().split()
            return int(stat[stat.index("usage_usec") + 1]) * 1000
        return 0

    def close(self) -> None:
        for _ in range(100):
            try:
                for path, _, _ in os.walk(self.path, topdown=False):
                    os.rmdir(path)
                return
            except OSError:
                time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
