"""Additional processes in a container, and terminals, on a real kernel."""

from __future__ import annotations

import os
import socket
import termios
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import SpecError, StartError, StateError
from runtime.oci import execve_stub, spawn
from runtime.oci.container import Stdio
from runtime.oci.init_protocol import Command
from runtime.security import capabilities, seccomp
from tests.kernel.conftest import Engine
from tests.waiting import until

pytestmark = pytest.mark.kernel


def test_exec_joins_everything(oci: Engine) -> None:
    spec = oci.spec("sleep", "60")
    spec["hostname"] = "box"
    container = oci.start(spec)
    out = os.memfd_create("exec")
    handle = container.exec(
        {"args": ["sleep", "60"], "cwd": "/", "env": ["PATH=/bin"]}, stdio=Stdio(out, out, out)
    )
    for kind in ("pid", "mnt", "ipc", "uts", "net", "cgroup", "user"):
        assert os.readlink(f"/proc/{handle.pid}/ns/{kind}") == os.readlink(f"/proc/{container.pid}/ns/{kind}")
    assert sorted(container.cgroup.pids()) == sorted([container.pid, handle.pid])
    assert sorted(os.listdir(f"/proc/{handle.pid}/fd")) == ["0", "1", "2"]
    assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")
    container.kill(9)
    assert os.waitstatus_to_exitcode(os.waitpid(handle.pid, 0)[1]) == -9
    os.close(handle.pidfd)
    os.close(out)


def test_exec_output_code_user_place_environment(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    script = "id -u; id -g; pwd; echo $A; echo x > /made; exit 3"
    result = oci.exec(
        container, "sh", "-c", script, user={"uid": 0, "gid": 5}, cwd="/etc", env=["PATH=/bin", "A=b"]
    )
    assert (result.code, result.out) == (3, "0\n5\n/etc\nb\n")
    assert (oci.tmp / "bundle0/upper/made").exists()


def test_exec_is_as_confined_as_its_container(oci: Engine) -> None:
    spec = oci.spec("sleep", "60", noNewPrivileges=True, oomScoreAdj=321)
    spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]
    spec["linux"]["seccomp"] = seccomp.default_profile(frozenset())
    container = oci.start(spec)
    said = oci.exec(
        container, "cat", "/proc/self/status", "/proc/self/oom_score_adj", "/proc/self/limits"
    ).out
    found = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    caps = capabilities.mask(spec["process"]["capabilities"]["bounding"])
    assert (found["Seccomp"].strip(), found["NoNewPrivs"].strip()) == ("2", "1")
    assert int(found["CapBnd"], 16) == int(found["CapEff"], 16) == caps
    assert "\n321\n" in said
    assert [line.split()[3] for line in said.splitlines() if line.startswith("Max open files")] == ["64"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["nope"], 'exec: "nope": executable file not found in $PATH'),
        (["/nope"], 'exec: "/nope": stat /nope: no such file or directory'),
        (["/etc"], 'exec: "/etc": is a directory'),
    ],
)
def test_exec_errors(oci: Engine, args: list[str], text: str) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    with pytest.raises(StartError) as caught:
        oci.exec(container, *args)
    assert str(caught.value) == text
    with pytest.raises(SpecError, match=r"process\.args"):
        oci.exec(container)
    assert oci.exec(container, "true").code == 0


def test_exec_when_it_does_not_run(oci: Engine) -> None:
    container = oci.create(oci.spec("true"))
    with pytest.raises(StateError):
        oci.exec(container, "true")
    container.start()
    oci.wait(container)
    with pytest.raises(StateError):
        oci.exec(container, "true")


def test_exec_when_paused(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    container.cgroup.freeze()
    with pytest.raises(StateError, match="paused"):
        oci.exec(container, "true")
    container.cgroup.thaw()
    assert oci.exec(container, "true").code == 0


@pytest.mark.parametrize("fd", range(3, 10))
def test_no_descriptor_leads_out_of_an_exec(oci: Engine, fd: int) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    with pytest.raises((StartError, StateError)):
        oci.exec(container, "pwd", cwd=f"/proc/self/fd/{fd}")


# --- the process that enters the pid namespace last ---


def test_a_process_that_enters_the_pid_namespace_has_nothing_of_ours(oci: Engine) -> None:
    """It is visible in the container before its program runs; a container with CAP_SYS_PTRACE can read its memory."""
    container = oci.start(oci.spec("sleep", "60"))
    with ExitStack() as stack:
        out = os.memfd_create("exec")
        stack.callback(os.close, out)
        request = {"args": ["sleep", "60"], "cwd": "/", "env": ["PATH=/bin"]}
        pending = container.begin_exec(request, stdio=Stdio(out, out, out))
        stack.callback(pending.abandon)
        packet, fds, _, _ = socket.recv_fds(pending.channel, 100, 1)
        stack.callback(spawn.kill_and_reap, fds[0])
        pid = execve_stub.announced(packet)
        assert spawn.pid_of(fds[0]) == pid
        until(lambda: _state(pid) == "S")  # it waits for our message
        until(lambda: _state(pending.pid) == "Z")  # the first process has ended
        assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:")
        assert _mapped(pid) < 1 << 16
        assert _descriptors(pid) == {
            "0": "/memfd:exec (deleted)",
            "1": "/memfd:exec (deleted)",
            "2": "/memfd:exec (deleted)",
        }
        assert os.path.samefile(f"/proc/{pid}/root", f"/proc/{container.pid}/root")
        assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{container.pid}/ns/pid")
        pending.channel.send(b"go")
        pending.channel.settimeout(30)
        assert pending.channel.recv(100) == b""  # closed by execve
        assert os.readlink(f"/proc/{pid}/exe").endswith("/busybox")
        assert os.getsid(pid) == pid


def _mapped(pid: int) -> int:
    """The size of its memory, in bytes, without its stack and what the kernel maps into each process."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    ranges = [line.split()[0].split("-") for line in lines if "[" not in line]
    return sum(int(end, 16) - int(begin, 16) for begin, end in ranges)


def _descriptors(pid: int) -> dict[str, str]:
    """Its open files but for the socket to us."""
    links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    return {fd: link for fd, link in links.items() if not link.startswith("socket:")}


def _state(pid: int) -> str:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(line.split()[1] for line in lines if line.startswith("State:"))


@pytest.mark.parametrize("kind", ["RLIMIT_FSIZE", "RLIMIT_NOFILE"])
def test_exec_within_the_smallest_limits(oci: Engine, kind: str) -> None:
    """RLIMIT_FSIZE forbids writing the stub, so the interpreter goes on in its place."""
    spec = oci.spec("sleep", "60")
    least = 0 if kind == "RLIMIT_FSIZE" else 5
    spec["process"]["rlimits"] = [{"type": kind, "soft": least, "hard": least}]
    container = oci.start(spec)
    assert oci.exec(container, "sh", "-c", "exit 3").code == 3


@pytest.mark.parametrize("kind", ["CapPrm", "CapEff", "CapAmb"])
def test_without_the_stub_a_program_has_no_more_capabilities(oci: Engine, kind: str) -> None:
    """What the stub would have needed does not reach the program: by execve, a user other than root gets the ambient
    capabilities only (capabilities(7))."""
    words = ("grep", "-q", f"^{kind}:.0000000000000000$", "/proc/self/status")
    limits = [{"type": "RLIMIT_FSIZE", "soft": 0, "hard": 0}]
    given = {kind: ["CAP_NET_RAW"] for kind in ("bounding", "effective", "permitted", "inheritable")}
    process: dict[str, Any] = {"user": {"uid": 1000, "gid": 1000}, "capabilities": given}
    container = oci.start(oci.spec("sleep", "60", rlimits=limits))
    assert oci.exec(container, *words, **process).code == 0
    assert oci.run(oci.spec(*words, rlimits=limits, **process), command=Command()).code == 0


def test_exec_of_a_program_that_only_the_container_can_name(oci: Engine) -> None:
    """/proc/self of the container's procfs exists for processes of its pid namespace alone."""
    container = oci.start(oci.spec("sleep", "60"))
    assert oci.exec(container, "/proc/self/root/bin/sh", "-c", "exit 3").code == 3


def test_a_failed_execve_is_reported_by_the_process_inside(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    (oci.tmp / "bundle0/upper/odd").write_text("no program")
    (oci.tmp / "bundle0/upper/odd").chmod(0o755)
    with pytest.raises(StartError, match=r"^exec /odd: exec format error$"):
        oci.exec(container, "/odd")
    assert oci.exec(container, "true").code == 0


# --- terminals ---


def test_terminal_is_the_controlling_one_and_the_console(oci: Engine) -> None:
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (33, 99))
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.ONLCR
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    script = (
        "tty; echo hi > /dev/tty; stat -c '%F %a' /dev/console; echo con > /dev/console; cat /proc/self/stat"
    )
    container = oci.start(oci.spec("sh", "-c", script, terminal=True), stdio=None, console_slave=slave)
    os.close(slave)
    said = read_terminal(master)
    assert oci.wait(container).code == 0
    lines = said.splitlines()
    assert lines[0] in ("/dev/console", "/dev/pts/0", "not a tty")
    assert lines[1] == "hi"
    assert lines[2].startswith("character special file")
    assert lines[3] == "con"
    assert int(lines[4].rsplit(") ", 1)[1].split()[4]) != 0  # tty_nr
    os.close(master)


def read_terminal(master: int) -> str:
    said = b""
    try:
        while chunk := os.read(master, 4096):
            said += chunk
    except OSError:
        pass  # EIO: the last slave was closed
    return said.decode()


def test_terminal_asked_for_but_not_given(oci: Engine) -> None:
    with pytest.raises(SpecError, match="terminal"):
        oci.create(oci.spec("true", terminal=True))


def test_a_terminal_of_the_containers_own_devpts(oci: Engine) -> None:
    masters: list[int] = []
    script = "tty; stat -c '%F %u' /dev/console; echo hi > /dev/tty"
    spec = oci.spec("sh", "-c", script, terminal=True, user={"uid": 7, "gid": 7})
    container = oci.start(spec, stdio=None, console=masters.append)
    said = read_terminal(masters[0]).splitlines()
    assert oci.wait(container).code == 0
    assert said == ["/dev/pts/0", "character special file 7", "hi"]
    os.close(masters[0])


def test_exec_on_a_terminal(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    master, slave = os.openpty()
    handle = container.exec(
        {
            "args": ["sh", "-c", "test -t 0 && test -t 1 && echo yes > /dev/tty"],
            "cwd": "/",
            "env": ["PATH=/bin"],
        },
        stdio=None,
        console_slave=slave,
    )
    os.close(slave)
    assert read_terminal(master).strip() == "yes"
    assert os.waitpid(handle.pid, 0)[1] == 0
    os.close(handle.pidfd)
    os.close(master)


def test_a_terminal_of_the_containers_own_has_a_name(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    master, slave = container.open_terminal()
    request = {
        "args": ["sh", "-c", "tty; stat -c %u $(tty)"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 7},
    }
    request["consoleSize"] = {"height": 11, "width": 22}
    handle = container.exec(request, stdio=None, console_slave=slave)
    os.close(slave)
    assert termios.tcgetwinsize(master) == (11, 22)
    assert read_terminal(master).split() == ["/dev/pts/0", "7"]
    assert os.waitpid(handle.pid, 0)[1] == 0
    os.close(handle.pidfd)
    os.close(master)


def test_no_terminal_where_devpts_is_not_what_it_seems(oci: Engine) -> None:
    spec = oci.spec("sh", "-c", "mkdir -p /dev/pts; ln -s /etc/motd /dev/pts/ptmx; sleep 60")
    spec["mounts"] = [m for m in spec["mounts"] if m["destination"] != "/dev/pts"]
    container = oci.start(spec)
    with pytest.raises(StateError, match="/dev/pts"):
        container.open_terminal()
