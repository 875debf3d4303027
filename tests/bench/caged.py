"""The benchmark's side of cage.py: start a cage, send it orders, end it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.account import Account

SCRIPT = Path(__file__).with_name("cage.py")
PATIENCE = 180.0  # seconds that one order may take


class Refused(Exception):
    """A command of a peer failed or did not end. The message has its output."""


@dataclass(frozen=True, slots=True)
class Done:
    """Unix nanoseconds, and what the commands wrote."""

    began: int
    ended: int
    out: str


class Cage:
    """Processes, mounts, interfaces and rules of one peer, all gone with `close()` or with this process."""

    def __init__(self, account: Account, base: Path, *program: str) -> None:
        """With `program`, that one takes the orders, a line of JSON each, instead of cage.py itself."""
        self._base = base
        self._out = base / "out"
        base.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(SCRIPT), account.cgroup, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(base / "errors").open("wb"),
            start_new_session=True,
        )

    def order(self, **order: Any) -> dict[str, Any]:
        """Send an order. Raises Refused if there is no answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
                raise Refused(f"no answer within {PATIENCE:.0f} s to {str(order)[:80]}")
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise Refused(_end_of((self._base / "errors").read_text(errors="replace")) or "it ended")
        found: dict[str, Any] = json.loads(answer)
        return found

    def run(self, *commands: list[str], parallel: int = 1, text: str = "", out: Path | None = None) -> Done:
        """Commands after one another, or so many at once; `text` is the standard input of each."""
        out = out or self._out
        out.unlink(missing_ok=True)
        source = self._base / "in"
        source.write_text(text)
        found = self.order(
            commands=commands,
            parallel=parallel,
            input=str(source),
            out=str(out),
            err=str(self._base / "errors"),
        )
        said = out.read_text(errors="replace") if out.exists() else ""
        if any(found["codes"]):
            failed = next(argv for argv, code in zip(commands, found["codes"], strict=True) if code)
            why = _end_of((self._base / "errors").read_text(errors="replace") or said)
            raise Refused(f"{' '.join(failed)[-80:]}: {why}")
        return Done(found["began"], found["ended"], said)

    def spawn(self, *commands: list[str], out: Path) -> int:
        """Start commands in parallel and leave them running. Returns the start time of the first."""
        out.unlink(missing_ok=True)
        found = self.order(commands=commands, parallel=len(commands), out=str(out), stay=True)
        return int(found["began"])

    def close(self) -> None:
        """Close its standard input: the cage's process 1 exits, and the kernel kills all others."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _end_of(text: str) -> str:
    return " ".join(text.split())[-300:]
