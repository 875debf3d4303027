"""The stub for this machine: what it waits for, and when it exits."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from runtime.oci import execve_stub
from runtime.security.capabilities import CapSets

pytestmark = pytest.mark.kernel
NOTHING = CapSets(0, 0, 0, 0, 0)


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


def test_reports_a_failed_execve(tmp_path: Path) -> None:
    child, channel = waiting(tmp_path / "stub", b"/no/such")
    with channel:
        channel.send(b"start")
        assert execve_stub.failure(channel.recv(100)) == (2, "execve")
    assert child.communicate(timeout=30)[0] == ""
    assert child.returncode == 1
