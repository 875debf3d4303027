"""The stub for this machine: what it waits for, and when it exits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from runtime.oci import execve_stub, spawn
from runtime.security.capabilities import CapSets

pytestmark = pytest.mark.kernel
NOTHING = CapSets(0, 0, 0, 0, 0)
SAYS = [b"sh", b"-c", b"read -r a b c d e f g < /proc/$$/stat; echo $$ $f; exit 7"]  # its pid and session


def waiting(path: Path, program: bytes) -> tuple[subprocess.Popen[str], socket.socket]:
    """A stub that will execute `program`, and our end of its channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        last = execve_stub.Exec(program, [program, b"started"], {}, NOTHING, None, filter_last=True)
        path.write_bytes(execve_stub.at_once(last, theirs.fileno(), word=True).image())
        path.chmod(0o755)
        child = subprocess.Popen([path], stdout=subprocess.PIPE, text=True, pass_fds=[theirs.fileno()])
    ours.settimeout(30)
    return child, ours


def test_executes_after_a_byte_and_closes_the_channel(tmp_path: Path) -> None:
    child, channel = waiting(tmp_path / "stub", b"/bin/echo")
    with channel:
        channel.send(b"start")
        assert channel.recv(100) == b""
    assert child.communicate(timeout=30)[0] == "started\n"
    assert child.returncode == 0


def test_exits_when_its_parent_is_gone(tmp_path: Path) -> None:
    child, channel = waiting(tmp_path / "stub", b"/bin/echo")
    channel.close()
    assert child.communicate(timeout=30)[0] == ""
    assert child.returncode != 0


@pytest.mark.parametrize("word", [b"go", b""])
def test_clones_announces_and_waits_for_a_word(tmp_path: Path, word: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            last = execve_stub.Exec(b"/bin/sh", SAYS, {}, NOTHING, None, filter_last=True)
            made = execve_stub.cloning(last, theirs.fileno(), pdeathsig=signal.SIGKILL, terminal=False)
            (tmp_path / "stub").write_bytes(made.image())
            (tmp_path / "stub").chmod(0o755)
            first = subprocess.Popen([tmp_path / "stub"], stdout=subprocess.PIPE, pass_fds=[theirs.fileno()])
        ours.settimeout(30)
        packet, fds, _, _ = socket.recv_fds(ours, 100, 2)
        assert first.wait(30) == 0
        pid = execve_stub.announced(packet)
        assert [spawn.pid_of(fd) for fd in fds] == [pid]
        assert os.waitid(os.P_PIDFD, fds[0], os.WEXITED | os.WNOHANG) is None  # our child, and it waits
        os.close(fds[0])
        if word:
            ours.send(word)
            assert ours.recv(100) == b""  # closed by execve
        else:
            ours.shutdown(socket.SHUT_RDWR)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert first.stdout is not None
    with first.stdout:
        said = first.stdout.read()
    assert (code, said) == ((7, f"{pid} {pid}\n".encode()) if word else (1, b""))


def test_reports_a_failed_execve(tmp_path: Path) -> None:
    child, channel = waiting(tmp_path / "stub", b"/no/such")
    with channel:
        channel.send(b"start")
        assert execve_stub.failure(channel.recv(100)) == (2, "execve")
    assert child.communicate(timeout=30)[0] == ""
    assert child.returncode == 1
