"""config.md "Process", and exec: identity, limits, terminal, descriptors."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Bundle, Runtime
from tests.waiting import until


def fields(text: str) -> dict[str, str]:
    """`Name:\\tvalue` lines of /proc/<pid>/status."""
    return {k: v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}


def test_user_groups_umask_cwd(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o77}
    bundle.process["cwd"] = "/tmp"
    out = bundle.sh("id -u; id -g; id -G; umask; pwd", check=True).out.splitlines()
    assert out[:2] == ["1000", "1001"]
    assert {"5", "6"} <= set(out[2].split())
    assert out[3:] == ["0077", "/tmp"]


def test_home_comes_from_passwd(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert bundle.sh("echo $HOME", check=True).out == "/home/web\n"


def test_environment_is_what_was_given(bundle: Bundle) -> None:
    bundle.process["env"] = ["PATH=/bin", "A=1", "A=2", "EMPTY=", "HOME=/h"]
    assert sorted(bundle.run("env", check=True).out.split()) == ["A=2", "EMPTY=", "HOME=/h", "PATH=/bin"]


def test_capability_sets(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    seen = fields(bundle.run("cat", "/proc/self/status", check=True).out)
    assert int(seen["CapBnd"], 16) == 1 << 5 | 1 << 0 | 1 << 7
    assert int(seen["CapAmb"], 16) == int(seen["CapInh"], 16) == int(seen["CapPrm"], 16) == 1 << 0


def test_no_new_privileges(bundle: Bundle) -> None:
    bundle.process["noNewPrivileges"] = True
    assert fields(bundle.run("cat", "/proc/self/status", check=True).out)["NoNewPrivs"] == "1"


def test_rlimits(bundle: Bundle) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    assert bundle.sh("ulimit -Sn; ulimit -Hn", check=True).out.split() == ["100", "200"]


def test_oom_score(bundle: Bundle) -> None:
    bundle.process["oomScoreAdj"] = 123
    assert bundle.run("cat", "/proc/self/oom_score_adj", check=True).out == "123\n"


@pytest.mark.parametrize(("nnp", "uid"), [(True, 0), (False, 0), (True, 1000), (False, 1000)])
def test_seccomp(bundle: Bundle, nnp: bool, uid: int) -> None:
    bundle.process["user"] = {"uid": uid, "gid": uid}
    bundle.process["noNewPrivileges"] = nnp
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["uname", "a_call_of_the_future"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}
        ],
    }
    seen = fields(bundle.run("cat", "/proc/self/status", check=True).out)
    assert seen["Seccomp"] == "2"
    assert seen["NoNewPrivs"] == str(int(nnp))


def test_seccomp_holds_for_exec(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    bundle.start("sleep", "60")
    done = runtime("exec", bundle.id, "mkdir", "/x")
    assert done.code == 1
    assert "not permitted" in done.err


def test_exec_gives_output_and_exit_code(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    done = runtime("exec", bundle.id, "sh", "-c", "echo out; echo err >&2; exit 6")
    assert (done.code, done.out, done.err) == (6, "out\n", "err\n")


def test_exec_flags(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    script = 'id -u; id -g; id -G; pwd; echo $A; grep -E "CapBnd|NoNewPrivs" /proc/self/status'
    done = runtime(
        "exec", "--user", "1000:1001", "--additional-gids", "7", "--cwd", "/tmp", "--env", "A=b", "--cap",
        "CAP_NET_RAW", "--no-new-privs", bundle.id, "sh", "-c", script, check=True,
    )  # fmt: skip
    out = done.out.splitlines()
    assert out[:2] == ["1000", "1001"]
    assert "7" in out[2].split()
    assert out[3:5] == ["/tmp", "b"]
    seen = fields("\n".join(out[5:]))
    assert int(seen["CapBnd"], 16) >> 13 & 1
    assert seen["NoNewPrivs"] == "1"


def test_exec_of_a_process_file(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.start("sleep", "60")
    process = {
        "args": ["sh", "-c", "echo $A; touch /ran; sleep 60"],
        "cwd": "/",
        "env": ["PATH=/bin", "A=of the file"],
    }
    (tmp_path / "process.json").write_text(json.dumps({**process, "user": {"uid": 0, "gid": 0}}))
    files = ("--process", str(tmp_path / "process.json"), "--pid-file", str(tmp_path / "pid"))
    runtime("exec", "--detach", *files, bundle.id, check=True)
    pid = int((tmp_path / "pid").read_text())
    until((bundle.rootfs / "ran").exists)
    init = runtime.state(bundle.id)["pid"]
    for kind in ("pid", "mnt", "net", "ipc", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{init}/ns/{kind}")
    assert pid in json.loads(runtime("ps", "--format", "json", bundle.id, check=True).out)


def test_exec_of_a_missing_program(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    done = runtime("exec", bundle.id, "nowhere")
    assert done.code == 255
    assert "executable file not found in $PATH" in done.err


def test_exec_in_a_stopped_container(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("true")
    runtime.until(bundle.id, "stopped")
    done = runtime("exec", bundle.id, "true")
    assert done.code == 255
    assert "stopped" in done.err


def test_no_descriptor_reaches_the_container(bundle: Bundle) -> None:
    """Except for those of --preserve-fds."""
    read, write = os.pipe()
    try:
        os.set_inheritable(write, True)
        out = bundle.sh("ls -l /proc/self/fd", check=True, close_fds=False).out
    finally:
        os.close(read)
        os.close(write)
    targets = [line.split(" -> ")[1] for line in out.splitlines() if " -> " in line]
    assert len([t for t in targets if not t.startswith("/proc/")]) == 3, out


def test_preserved_descriptors(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("through\n")
    fd = os.open(tmp_path / "given", os.O_RDONLY)
    bundle.write("sh", "-c", "cat <&3")
    runtime = bundle.runtime
    command = runtime.command("run", "--preserve-fds", "1", "--bundle", str(bundle.path), bundle.id)
    done = subprocess.run(
        ["sh", "-c", f'exec 3</dev/fd/{fd}; exec "$@"', "sh", *command],
        pass_fds=[fd], capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    os.close(fd)
    assert (done.returncode, done.stdout) == (0, "through\n")


@pytest.mark.parametrize("way", ["--preserve-fds", "LISTEN_FDS"])
def test_an_exec_passes_no_descriptor_of_the_runtime(
    runtime: Runtime, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The caller announces descriptor 3 for the container but has none. Whatever descriptor the runtime has opened with
    that number must not be passed on."""
    if runtime.name == "runc":
        pytest.skip("runc 1.1 looks when it has opened descriptors of its own")
    bundle.start("sleep", "60")
    if way == "LISTEN_FDS":
        monkeypatch.setenv("LISTEN_FDS", "1")
    flags = ("--preserve-fds", "1") if way == "--preserve-fds" else ()
    done = runtime("exec", *flags, bundle.id, "ls", "-l", "/proc/self/fd")
    assert done.code == 255
    assert "unable to preserve fd 3" in done.err


@contextlib.contextmanager
def console_socket(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20)
        yield listener


def receive(listener: socket.socket) -> int:
    with listener.accept()[0] as peer:
        _, fds, _, _ = socket.recv_fds(peer, 4096, 1)
        return fds[0]


def read_terminal(master: int) -> str:
    said = b""
    with contextlib.suppress(OSError):  # EIO: the last slave is closed
        while data := os.read(master, 4096):
            said += data
    return said.decode()


def test_terminal_through_a_console_socket(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process.update(terminal=True, consoleSize={"height": 30, "width": 100})
    with console_socket(tmp_path / "c") as listener:
        bundle.create(
            "sh",
            "-c",
            "tty; test -c /dev/console && echo console",
            flags=("--console-socket", str(tmp_path / "c")),
        )
        master = receive(listener)
    assert os.get_terminal_size(master) == (100, 30)
    runtime("start", bundle.id, check=True)
    assert read_terminal(master).split() == ["/dev/pts/0", "console"]
    os.close(master)


def test_exec_with_a_terminal(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.start("sleep", "60")
    with console_socket(tmp_path / "c") as listener:
        flags = ("--tty", "--detach", "--console-socket", str(tmp_path / "c"))
        runtime("exec", *flags, bundle.id, "tty", check=True)
        master = receive(listener)
    assert read_terminal(master).strip().startswith("/dev/pts/")
    os.close(master)


def test_pidfd_through_a_socket(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    with console_socket(tmp_path / "p") as listener:
        bundle.create("sleep", "60", flags=("--pidfd-socket", str(tmp_path / "p")))
        pidfd = receive(listener)
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    assert fields(text)["Pid"] == str(runtime.state(bundle.id)["pid"])
    with console_socket(tmp_path / "e") as listener:
        runtime("start", bundle.id, check=True)
        runtime(
            "exec", "--detach", "--pidfd-socket", str(tmp_path / "e"), bundle.id, "sleep", "61", check=True
        )
        other = receive(listener)
    pid = int(fields(Path(f"/proc/self/fdinfo/{other}").read_text())["Pid"])
    assert pid in json.loads(runtime("ps", "--format", "json", bundle.id, check=True).out)
    os.close(pidfd)
    os.close(other)


IN_THE_BACKGROUND = """
import os, pty, sys
code = os.waitstatus_to_exitcode(pty.spawn(["sh", "-c", 'timeout 60 "$@"; echo "code $?"', "sh", *sys.argv[1:]]))
sys.exit(code)
"""


def test_terminal_of_a_caller_in_the_background(runtime: Runtime, bundle: Bundle) -> None:
    """timeout(1) creates a process group in the background of its terminal. Terminal settings and output work
    nevertheless; input goes to the foreground."""
    if runtime.name == "runc":
        pytest.skip("runc repeats a system call for ever: its own affair")
    bundle.process["terminal"] = True
    bundle.write("sh", "-c", "tty; stty size >/dev/null; echo hello")
    command = runtime.command("run", "--bundle", str(bundle.path), bundle.id)
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_BACKGROUND, *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert "hello" in done.stdout
    assert "code 0" in done.stdout


def test_terminal_without_a_console_socket(bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    done = bundle.create("true", check=False)
    assert done.code != 0
    assert "console socket" in done.err


@pytest.mark.parametrize("how", ["run", "exec"])
def test_a_terminal_in_the_foreground_needs_one(runtime: Runtime, bundle: Bundle, how: str) -> None:
    """Its input would never end."""
    if how == "run":
        bundle.process["terminal"] = True
        bundle.write("sh")
        command = runtime.command("run", "--bundle", str(bundle.path), bundle.id)
    else:
        bundle.start("sleep", "60")
        command = runtime.command("exec", "--tty", bundle.id, "sh")
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        start_new_session=True,
    )  # fmt: skip
    assert done.returncode not in (0, None)
    assert "open /dev/tty: no such device or address" in done.stderr
    if how == "run":
        assert runtime("state", bundle.id).code != 0, "there is no container"


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs a second processor")
def test_cpu_affinity_of_an_exec(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.start("sleep", "60")
    process: dict[str, Any] = {
        "args": ["grep", "Cpus_allowed_list", "/proc/self/status"],
        "cwd": "/",
        "env": ["PATH=/bin"],
    }
    process["execCPUAffinity"] = {"initial": "0", "final": "1"}
    (tmp_path / "process.json").write_text(json.dumps({**process, "user": {"uid": 0, "gid": 0}}))
    done = runtime("exec", "--process", str(tmp_path / "process.json"), bundle.id, check=True)
    assert done.out.split() == ["Cpus_allowed_list:", "1"]


def test_personality(runtime: Runtime, bundle: Bundle) -> None:
    """config-linux.md, "Personality"; an exec gets it, too (runc since 1.2)."""
    bundle.linux["personality"] = {"domain": "LINUX32"}
    pid = bundle.start("sleep", "60")
    assert Path(f"/proc/{pid}/personality").read_text(encoding="ascii") == "00000008\n"
    assert runtime("exec", bundle.id, "cat", "/proc/self/personality", check=True).out == "00000008\n"


def test_processors_are_the_cgroups(runtime: Runtime, bundle: Bundle) -> None:
    """The processors are those of the cgroup, not those that the caller is bound to; also for an exec."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs a second processor")
    bundle.write("sleep", "60")
    bound = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    subprocess.run(
        [*bound, *runtime.command("run", "--detach", "--bundle", str(bundle.path), bundle.id)],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    pid = int(runtime.state(bundle.id)["pid"])
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
    look = runtime.command("exec", bundle.id, "grep", "Cpus_allowed:", "/proc/self/status")
    done = subprocess.run([*bound, *look], check=True, capture_output=True, text=True, timeout=60)
    mask = int(done.stdout.split()[1].replace(",", ""), 16)
    assert {cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1} == os.sched_getaffinity(0)
