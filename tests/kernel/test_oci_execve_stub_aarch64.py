"""The stub for another architecture, run by qemu-user: its code, system call numbers and ELF file."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from runtime.oci import execve_stub
from runtime.security.capabilities import CapSets

QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(QEMU is None, reason="needs qemu-user")]
_EXECVE = 221


def run(made: execve_stub.Program, path: Path, *fds: int) -> subprocess.Popen[str]:
    path.write_bytes(made.image())
    path.chmod(0o755)
    assert QEMU is not None
    return subprocess.Popen([QEMU, str(path)], stdout=subprocess.PIPE, text=True, pass_fds=fds)


def test_calls_in_order_until_execve(tmp_path: Path) -> None:
    made = execve_stub.Program("aarch64")
    made.call("write", 1, b"first\n", 6)
    made.call("write", 999, b"x", 1, verdict=execve_stub.OPTIONAL)
    made.call("execve", b"/bin/echo\0", made.vector([b"echo", b"then"]), made.vector([]))
    child = run(made, tmp_path / "stub")
    assert child.communicate(timeout=30)[0] == "first\nthen\n"
    assert child.returncode == 0


def test_calls_are_left_out_after_a_zero(tmp_path: Path) -> None:
    made = execve_stub.Program("aarch64")
    made.call("fcntl", 1, fcntl.F_SETFD, 0, skip=2)  # returns 0
    made.call("write", 1, b"left out\n", 9)
    made.call("exit_group", 3)
    made.call("write", 1, b"first\n", 6, skip=1)  # returns 6
    made.call("write", 999, b"x", 1, verdict=execve_stub.OPTIONAL, skip=1)
    made.call("write", 1, b"then\n", 5)
    made.call("exit_group", 4)
    child = run(made, tmp_path / "stub")
    assert child.communicate(timeout=30)[0] == "first\nthen\n"
    assert child.returncode == 4


def test_failures_are_reported(tmp_path: Path) -> None:
    read, write = os.pipe()
    made = execve_stub.Program("aarch64")
    made.report_to(write)
    made.call("execve", b"/no/such/program\0", made.vector([b"x"]), made.vector([]))
    child = run(made, tmp_path / "stub", write)
    os.close(write)
    assert child.wait(30) == 1
    assert struct.unpack("=3q", os.read(read, 100)) == (0, 2, _EXECVE)
    os.close(read)


def test_waits_for_a_connection_and_reports_to_it(tmp_path: Path) -> None:
    nothing = CapSets(0, 0, 0, 0, 0)
    for program, report in ((b"/bin/true", b""), (b"/no/such", struct.pack("=3q", 0, 2, _EXECVE))):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(tmp_path / program.decode().replace("/", "-")))
        listener.listen()
        lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
        last = execve_stub.Exec(program, [program], {b"A": b"1"}, nothing, None, filter_last=True)
        made = execve_stub.waiting(last, listener.fileno(), lock, "aarch64")
        child = run(made, tmp_path / "stub", listener.fileno(), lock)
        os.close(lock)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gate:
            gate.settimeout(30)
            gate.connect(listener.getsockname())
            assert gate.recv(100) == report
        assert child.wait(30) == int(bool(report))
        listener.close()


@pytest.mark.parametrize("word", [b"start", b""])
def test_waits_for_a_byte_not_for_the_end_of_the_stream(tmp_path: Path, word: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nothing = CapSets(0, 0, 0, 0, 0)
    last = execve_stub.Exec(b"/bin/echo", [b"echo", b"started"], {}, nothing, None, filter_last=True)
    made = execve_stub.at_once(last, theirs.fileno(), "aarch64", word=True)
    child = run(made, tmp_path / "stub", theirs.fileno())
    theirs.close()
    with ours:
        if word:
            ours.send(word)
            assert ours.recv(100) == b""  # closed by execve
    assert child.communicate(timeout=30)[0] == ("started\n" if word else "")
    assert (child.returncode == 0) == bool(word)
