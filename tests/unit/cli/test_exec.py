"""`kubelite exec` with pipes and on a terminal, and the progress of a pull on a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from tests.unit.api.server import Served
from tests.unit.cli.kit import KUBELITE, Terminal, environment, kubelite, line_of, ok, server, started
from tests.waiting import SECONDS

__all__ = ["server"]


def test_exec_streams_and_exit_code(server: Served) -> None:
    done = kubelite(server, "exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr == "err\ncommand terminated with exit code 7\n"
    assert kubelite(server, "exec", "-q", "web", "--", "false").stderr == ""
    assert kubelite(server, "exec", "web", "--", "sh", "-c", "kill -9 $$").returncode == 137
    missing = kubelite(server, "exec", "web", "--", "nix")
    assert missing.returncode == 127
    assert missing.stderr.splitlines()[0] == 'exec: "nix": executable file not found in $PATH'
    assert kubelite(server, "exec", "nix", "--", "true").returncode == 1
    assert ok(server, "exec", "web", "-c", "app", "--", "echo", "-n", "-c x") == "-c x"
    assert (
        ok(server, "exec", "web", "-i", "--", "cat", stdin="flags may stand behind")
        == "flags may stand behind"
    )


def test_exec_is_binary_safe_and_closes_stdin(server: Served) -> None:
    data = os.urandom(3 << 20)
    done = subprocess.run(
        [*KUBELITE, "exec", "-i", "web", "--", "cat"],
        env=environment(server),
        input=data,
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == data
    # without -i, stdin is not read: cat gets end of input at once
    assert ok(server, "exec", "web", "--", "cat", stdin="not read") == ""
    # a command that does not read its input does not block kubelite
    assert ok(server, "exec", "-i", "web", "--", "true", stdin=b"x" * (4 << 20)) == ""


def test_exec_process_ends_with_its_client(server: Served) -> None:
    with started(server, "exec", "web", "--", "sh", "-c", "echo up; exec sleep 60") as process:
        assert line_of(process) == "up\n"
        (session,) = server.node.sessions
        assert session._process.poll() is None
    deadline = time.monotonic() + SECONDS
    while session._process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert session._process.poll() == -signal.SIGKILL


def test_a_pull_on_a_terminal_shows_a_bar_for_each_layer(server: Served) -> None:
    terminal = Terminal(server, "pull", "busybox")
    terminal.size(30, 120)
    terminal.expect(b"2" * 12)  # the digest, as docker shortens it
    terminal.expect(b"100/100 bytes")
    terminal.expect(b"Pulled docker.io/library/busybox:latest\r\n")
    assert terminal.wait() == 0


def test_exec_on_a_terminal(server: Served) -> None:
    script = "trap 'echo got it; exit 9' INT; stty size; echo ready; while :; do read -r x && stty size; done"
    terminal = Terminal(server, "exec", "-it", "web", "--", "sh", "-c", script)
    terminal.expect(b"ready\r\n")
    terminal.size(31, 97)
    for _ in range(600):  # the new size is sent beside the keys, not before them
        terminal.type(b"\n")
        time.sleep(0.05)
        if terminal.sees(b"31 97"):
            break
    else:
        raise AssertionError(terminal.seen)
    # raw: Ctrl-C is the command's. A line ends a `read` that began just after the signal: the trap waits for its end
    terminal.type(b"\x03")
    for _ in range(600):
        terminal.type(b"\n")
        time.sleep(0.05)
        if terminal.sees(b"got it"):
            break
    assert terminal.wait() == 9


def test_a_tty_without_a_terminal_is_not_used(server: Served) -> None:
    done = kubelite(server, "exec", "-it", "web", "--", "tty", stdin="x")
    assert done.stderr.startswith("Unable to use a TTY - input is not a terminal or the right kind of file\n")
    assert "not a tty" in done.stdout
