"""Runs `kubelite` as a separate process against a served API, with pipes or on a terminal."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api.fake_node import event_doc, pod_doc
from tests.unit.api.fake_session import TAKE_TERMINAL
from tests.unit.api.server import Served
from tests.waiting import SECONDS

KUBELITE = [sys.executable, "-c", "from kubelite.cli.main import main; main()"]
WEB = """\
apiVersion: v1
kind: Pod
metadata:
  name: nginx
spec:
  containers:
  - name: a
    image: nginx:1
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served.at(tmp_path) as served:
        for name in ("web", "db"):
            served.run(served.node.store.create("Pod", pod_doc(name)))
        served.run(served.node.store.create("Pod", pod_doc("api", namespace="prod")))
        event = event_doc("e1", "web", "Started", "Started container app")
        served.run(served.node.store.create("Event", event))
        yield served


def environment(server: Served) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KUBELITE_")}
    return {**kept, "KUBELITE_SOCKET": server.socket, "PYTHONWARNINGS": "error"}


def kubelite(
    server: Served, *arguments: str, stdin: bytes | str | None = None
) -> subprocess.CompletedProcess[str]:
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*KUBELITE, *arguments],
        env=environment(server),
        input=data or b"",
        capture_output=True,
        timeout=20,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def ok(server: Served, *arguments: str, stdin: bytes | str | None = None) -> str:
    done = kubelite(server, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def started(server: Served, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*KUBELITE, *arguments],
        env=environment(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


class Terminal:
    """kubelite on a pty, as in a user's terminal."""

    def __init__(self, server: Served, *arguments: str) -> None:
        self.master, slave = os.openpty()
        command = [sys.executable, "-c", TAKE_TERMINAL, *KUBELITE, *arguments]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env={**environment(server), "TERM": "xterm"}
        )
        os.close(slave)
        self.seen = b""

    def size(self, rows: int, columns: int) -> None:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: bytes, seconds: float = SECONDS) -> None:
        import select

        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 4096)
                except OSError:  # EIO: the other end is closed
                    assert text in self.seen, self.seen
        self.seen = self.seen.partition(text)[2]

    def sees(self, text: bytes) -> bool:
        """Whether the text has arrived. Does not wait for it."""
        import select

        while select.select([self.master], [], [], 0)[0]:
            try:
                self.seen += os.read(self.master, 4096)
            except OSError:  # EIO: the command has exited, and with it the other end of the terminal
                break
        return text in self.seen

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def wait(self) -> int:
        code = self.process.wait(30)
        os.close(self.master)
        return code
