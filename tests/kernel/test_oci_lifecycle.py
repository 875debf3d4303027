"""Create, start, kill, exec, update, delete on a real kernel; and that a failure at any step leaves nothing."""

from __future__ import annotations

import os
import select
import signal
import socket
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime import syscalls as sc
from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault, SpecError, StartError, StateError, SyscallError
from runtime.oci import birth, handshake, operations, program, rootfs
from runtime.oci import container as engine
from runtime.oci import init_steps as steps
from runtime.oci.container import Stdio
from runtime.security import capabilities, rlimits, seccomp
from tests.kernel.conftest import Engine, mount

pytestmark = pytest.mark.kernel


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


# --- states ---


def test_nothing_runs_before_start(oci: Engine) -> None:
    container = oci.create(oci.spec("sh", "-c", "echo ran > /ran"))
    assert alive(container.pid)
    assert open_cgroup(f"{oci.cgroup}/c0").pids() == [container.pid]
    time.sleep(0.05)
    assert not (oci.tmp / "bundle0/upper/ran").exists()
    container.start()
    assert oci.wait(container).code == 0
    assert (oci.tmp / "bundle0/upper/ran").exists()


def test_start_twice(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    with pytest.raises(StateError, match="not in the state created"):
        container.start()


def test_start_of_a_killed_init(oci: Engine) -> None:
    container = oci.create(oci.spec("true"))
    container.kill(9)
    until(lambda: not alive(container.pid))
    with pytest.raises(StateError):
        container.start()
    with pytest.raises(StateError, match="not running"):
        os.waitpid(container.pid, 0)
        container.kill(15)


def test_delete_of_a_created_one(oci: Engine) -> None:
    container = oci.create(oci.spec("true"))
    container.delete()
    os.waitpid(container.pid, 0)
    assert not open_cgroup(f"{oci.cgroup}/c0").exists()
    container.delete()  # idempotent


def test_delete_ends_what_runs(oci: Engine) -> None:
    spec = oci.spec("sh", "-c", "sleep 60 & sleep 60 & wait")
    spec["linux"]["namespaces"] = [{"type": "mount"}]  # the host's pids: the init's end ends nothing else
    container = oci.start(spec)
    until(lambda: len(container.cgroup.pids()) == 3)
    pids = container.cgroup.pids()
    oci.delete(container)
    assert not [pid for pid in pids if alive(pid)]


def test_a_cgroup_in_use_is_refused(oci: Engine) -> None:
    oci.start(oci.spec("sleep", "60"))
    with pytest.raises(StateError, match="in use"):
        engine.create(
            oci.spec("true"),  # type: ignore[arg-type]
            container_id="other", bundle=str(oci.tmp), stdio=None, rootfs=None, cgroup_path=f"{oci.cgroup}/c0",
        )  # fmt: skip


# --- signals ---


def test_kill_reaches_the_init(oci: Engine) -> None:
    container = oci.start(oci.spec("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"))
    until(lambda: os.fstat(oci.outputs[container.pid][0]).st_size > 0)
    container.kill(signal.SIGTERM)
    assert oci.wait(container).code == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_kill_everything(oci: Engine, number: int) -> None:
    spec = oci.spec("sh", "-c", "sleep 60 & sleep 60 & wait")
    spec["linux"]["namespaces"] = [{"type": "mount"}]
    container = oci.start(spec)
    until(lambda: len(container.cgroup.pids()) == 3)
    container.kill(number, everything=True)
    assert oci.wait(container).code == 128 + number
    until(lambda: container.cgroup.pids() == [])


def test_death_of_the_parent_ends_the_container(oci: Engine) -> None:
    """A shim that is killed leaves no orphan: neither a running container nor a created one."""
    for started in (True, False):
        reader, writer = os.pipe()
        shim = os.fork()
        if shim == 0:
            made = oci.create(oci.spec("sleep", "60", user={"uid": 1000, "gid": 1000}))
            if started:
                made.start()
            os.write(writer, str(made.pid).encode())
            time.sleep(60)
            os._exit(0)
        os.close(writer)
        pid = int(os.read(reader, 20))
        os.close(reader)
        assert alive(pid)
        os.kill(shim, signal.SIGKILL)
        os.waitpid(shim, 0)
        deadline = time.monotonic() + 5
        while alive(pid):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        open_cgroup(oci.cgroup).remove()


# --- exec ---


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


# --- update ---


def test_update_changes_the_limits(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    assert container.update({"pids": {"limit": 23}}) == []
    directory = container.cgroup.directory("pids")
    assert directory is not None
    assert Path(f"{directory}/pids.max").read_text(encoding="ascii") == "23\n"


# --- user namespaces ---


def test_user_namespace_with_mappings(oci: Engine) -> None:
    for directory in (oci.tmp, *oci.tmp.parents[:-2], oci.rootfs):  # root in there is nobody out here
        directory.chmod(directory.stat().st_mode | 0o555)
    spec = oci.spec(
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map; test -c /dev/null && echo x > /dev/null && echo dev; exec sleep 60",
    )
    spec["linux"]["namespaces"] += [
        {"type": "user"},
        {"type": "network"},
    ]  # sysfs wants a network of its owner's
    for key in ("uidMappings", "gidMappings"):
        spec["linux"][key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    container = oci.start(spec)
    assert oci.exec(container, "id", "-u").out == "0\n"
    assert os.stat(f"/proc/{container.pid}").st_uid == 100000
    container.kill(9)
    lines = oci.wait(container).out.splitlines()
    assert lines[0] == "0"
    assert lines[1].split() == ["0", "100000", "65536"]
    assert lines[2] == "dev"


# --- failures leave nothing ---


class Sabotage(Exception):
    """Not a RuntimeFault: even what nobody foresaw is reported and undone."""


def _sabotage(*_: Any, **__: Any) -> Any:
    raise Sabotage("sawn through")


CHILD_STEPS: list[tuple[Any, str]] = [
    (steps, "die_with_parent"), (steps, "default_signals"), (steps, "place_stdio"), (steps, "open_proc"),
    (steps, "set_oom_score"), (steps, "set_label"), (steps, "join_keyring"), (steps, "set_scheduling"),
    (steps, "chdir"), (steps, "own_stdio"), (steps, "set_groups"), (program, "environment"), (steps, "write_proc"),
    (rootfs.RootMount, "execute"), (operations.FsMount, "execute"), (operations.BindMount, "execute"),
    (operations.CgroupMount, "execute"), (operations.DeviceNode, "execute"), (operations.DevLinks, "execute"),
    (operations.MakeDirectory, "execute"), (operations.ReadonlyPath, "execute"), (operations.MaskPaths, "execute"),
    (operations.Readonly, "execute"), (rootfs, "pivot"), (rlimits, "apply"), (capabilities, "drop_bounding"),
    (sc, "sethostname"), (sc, "close_all_except"), (sc, "unshare"), (sc, "capset"), (os, "setsid"),
    (os, "setresuid"), (os, "setresgid"), (os, "umask"), (sc, "pivot_root"), (sc, "attach_mount"),
]  # fmt: skip
PARENT_STEPS: list[tuple[Any, str]] = [
    (engine, "_plan"), (engine, "_capabilities"), (engine, "_seccomp"), (birth, "make_directories"),
    (birth, "make_cgroup"), (birth, "channel_pair"), (birth, "into_cgroup"), (birth, "namespaces"),
    (birth, "own_pidfd"), (birth, "clone"), (engine, "converse"), (sc, "clone3"), (engine, "Container"),
]  # fmt: skip


def full_spec(oci: Engine) -> dict[str, Any]:
    spec = oci.spec("true", cwd="/made/here", oomScoreAdj=100, user={"uid": 5, "gid": 5})
    spec["hostname"] = "box"
    spec["root"]["readonly"] = True
    spec["mounts"] += [
        mount("/sys/fs/cgroup", "cgroup", "ro"),
        mount("/data", "bind", "rbind", source=str(oci.rootfs)),
    ]
    spec["linux"].update(maskedPaths=["/proc/kcore", "/sys/firmware"], readonlyPaths=["/proc/sys"])
    spec["linux"]["seccomp"] = seccomp.default_profile(frozenset())
    spec["linux"]["sysctl"] = {"kernel.msgmax": "4096"}
    return spec


@pytest.mark.parametrize(("holder", "name"), CHILD_STEPS, ids=[f"{h.__name__}.{n}" for h, n in CHILD_STEPS])
def test_a_failure_in_the_child_leaves_nothing(
    oci: Engine, no_leaks: Callable[[], None], monkeypatch: pytest.MonkeyPatch, holder: Any, name: str
) -> None:
    spec = full_spec(oci)
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, _sabotage)
        with pytest.raises(RuntimeFault, match=r"Sabotage: sawn through"):
            oci.create(spec)
    open_cgroup(oci.cgroup).remove()  # the parent cgroup was made on the way and is the test's
    no_leaks()
    assert os.listdir(oci.tmp / "bundle0") == []


@pytest.mark.parametrize(("holder", "name"), PARENT_STEPS, ids=[f"{h.__name__}.{n}" for h, n in PARENT_STEPS])
def test_a_failure_in_the_parent_leaves_nothing(
    oci: Engine, no_leaks: Callable[[], None], monkeypatch: pytest.MonkeyPatch, holder: Any, name: str
) -> None:
    spec = full_spec(oci)
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, _sabotage)
        with pytest.raises(Sabotage):
            oci.create(spec)
    open_cgroup(oci.cgroup).remove()
    no_leaks()
    assert os.listdir(oci.tmp / "bundle0") == []


def test_a_child_that_hangs_is_given_up(
    oci: Engine, no_leaks: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(handshake, "HANDSHAKE_SECONDS", 0.1)
        patch.setattr(steps, "set_scheduling", lambda *_: time.sleep(60))
        with pytest.raises(StateError, match="did not answer"):
            oci.create(oci.spec("true"))
    open_cgroup(oci.cgroup).remove()
    no_leaks()


@pytest.mark.parametrize("name", ["place_stdio", "chdir", "set_groups", "join_keyring"])
def test_a_failing_exec_leaves_nothing(
    oci: Engine, no_leaks: Callable[[], None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    before = container.cgroup.pids()
    fds = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(steps, name, _sabotage)
        with pytest.raises(RuntimeFault, match="sawn through"):
            oci.exec(container, "true")
    assert container.cgroup.pids() == before
    assert os.listdir("/proc/self/fd") == fds
    assert oci.exec(container, "true").code == 0
    oci.delete(container)
    open_cgroup(oci.cgroup).remove()
    no_leaks()


def test_the_error_names_the_step(oci: Engine) -> None:
    spec = oci.spec("true")
    spec["mounts"].append(mount("/data", "nosuchfs"))
    with pytest.raises(SyscallError, match=r"container c0: rootfs: mount nosuchfs on /data.*No such device"):
        oci.create(spec)


def test_a_memory_limit_too_low_says_so(oci: Engine, no_leaks: Callable[[], None]) -> None:
    spec = oci.spec("true")
    spec["linux"]["resources"] = {"memory": {"limit": 128 * 1024, "swap": 128 * 1024}}
    with pytest.raises(StateError, match="memory limit is too low"):
        oci.create(spec)
    open_cgroup(oci.cgroup).remove()
    no_leaks()


def test_a_signal_that_is_due_is_not_handled_by_the_child(oci: Engine) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(os.getpid()))
    try:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert oci.run(oci.spec("true")).code == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [os.getpid()] * 3


def test_many_starts_leave_nothing(oci: Engine, no_leaks: Callable[[], None]) -> None:
    for _ in range(10):
        assert oci.run(full_spec(oci)).code == 0
    open_cgroup(oci.cgroup).remove()
    no_leaks()


def test_no_channel_stays_open_in_a_sibling(oci: Engine) -> None:
    """A created container must not hold another's gate: the end of the one shows at once."""
    first = oci.create(oci.spec("true"))
    oci.start(oci.spec("sleep", "60"))
    first.kill(9)
    channel = first._channel
    assert isinstance(channel, socket.socket)
    assert select.select([channel], [], [], 5)[0] == [channel]
