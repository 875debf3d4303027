"""A failure at any step of a start or exec leaves nothing behind, and its error names the cause."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from runtime import syscalls as sc
from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault, StateError, SyscallError
from runtime.oci import container as engine
from runtime.oci import execve_arguments, handshake, prepare, spawn
from runtime.oci import init_steps as steps
from runtime.oci.rootfs import binds, operations, rootfs
from runtime.security import capabilities, rlimits, seccomp
from tests.kernel.conftest import Engine, mount

pytestmark = pytest.mark.kernel


class Sabotage(Exception):
    """Not a RuntimeFault: unexpected exceptions are reported and undone too."""


def _sabotage(*_: Any, **__: Any) -> Any:
    raise Sabotage("sawn through")


CHILD_STEPS: list[tuple[Any, str]] = [
    (steps, "die_with_parent"), (steps, "default_signals"), (steps, "place_stdio"), (steps, "open_proc"),
    (steps, "set_oom_score"), (steps, "set_label"), (steps, "join_keyring"), (steps, "set_scheduling"),
    (steps, "chdir"), (steps, "own_stdio"), (steps, "set_groups"), (execve_arguments, "environment"),
    (steps, "write_proc"),
    (rootfs.RootMount, "execute"), (operations.FsMount, "execute"), (binds.BindMount, "execute"),
    (operations.CgroupMount, "execute"), (operations.DeviceNode, "execute"), (operations.DevLinks, "execute"),
    (operations.MakeDirectory, "execute"), (operations.ReadonlyPath, "execute"), (operations.MaskPaths, "execute"),
    (operations.Readonly, "execute"), (rootfs, "change_root"), (rlimits, "apply"), (capabilities, "drop_bounding"),
    (sc, "sethostname"), (sc, "close_all_except"), (sc, "unshare"), (sc, "capset"), (os, "setsid"),
    (os, "setresuid"), (os, "setresgid"), (os, "umask"), (sc, "pivot_root"), (sc, "attach_mount"),
]  # fmt: skip
PARENT_STEPS: list[tuple[Any, str]] = [
    (prepare, "plan"), (prepare, "caps"), (prepare, "compile_filter"), (spawn, "make_directories"),
    (spawn, "make_cgroup"), (spawn, "channel_pair"), (spawn, "into_cgroup"), (spawn, "namespaces"),
    (spawn, "own_pidfd"), (spawn, "clone"), (prepare, "converse"), (sc, "clone3"), (engine, "Container"),
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
    """A created container must not hold another one's channel open, so that the other's death is noticed at once."""
    first = oci.create(oci.spec("true"))
    oci.start(oci.spec("sleep", "60"))
    first.kill(9)
    channel = first._channel
    assert isinstance(channel, socket.socket)
    assert select.select([channel], [], [], 5)[0] == [channel]
