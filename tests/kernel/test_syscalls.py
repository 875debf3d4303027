"""The syscall door on a real kernel: results, errors with their errno, and a child that is a faithful copy."""

from __future__ import annotations

import errno
import os
import select
import signal
from pathlib import Path

import pytest

from runtime import syscalls as sc
from runtime.errors import SyscallError

pytestmark = pytest.mark.kernel


def test_clone3_gives_a_child_with_a_pidfd() -> None:
    pid, pidfd = sc.clone3(sc.CLONE_CLEAR_SIGHAND, exit_signal=signal.SIGCHLD)
    if pid == 0:
        os._exit(7 if os.getppid() != os.getpid() else 1)
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None
    assert (result.si_pid, result.si_status) == (pid, 7)
    assert not os.get_inheritable(pidfd)
    os.close(pidfd)


def test_clone3_into_namespaces() -> None:
    reader, writer = os.pipe()
    pid, pidfd = sc.clone3(sc.CLONE_NEWPID | sc.CLONE_NEWUTS, exit_signal=signal.SIGCHLD)
    if pid == 0:
        try:
            sc.sethostname("elsewhere")
            sc.setdomainname("example")
            os.write(writer, f"{os.getpid()} {os.uname().nodename}".encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 100) == b"1 elsewhere"
    assert os.uname().nodename != "elsewhere"
    for fd in (pidfd, reader, writer):
        os.close(fd)


def test_handlers_are_cleared_in_the_child() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
    try:
        pid, pidfd = sc.clone3(sc.CLONE_CLEAR_SIGHAND, exit_signal=signal.SIGCHLD)
        if pid == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGUSR1
        os.close(pidfd)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_pidfd() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    pidfd = sc.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(0) == []
    sc.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert poll.poll(5000) == [(pidfd, select.POLLIN)]
    os.waitpid(pid, 0)
    with pytest.raises(SyscallError) as caught:
        sc.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert caught.value.errno == errno.ESRCH
    os.close(pidfd)


def test_errors_carry_errno_call_and_object() -> None:
    with pytest.raises(SyscallError) as caught:
        sc.mount("none", "/not/there", "tmpfs")
    error = caught.value
    assert (error.errno, error.call) == (errno.ENOENT, "mount")
    assert str(error) == "mount tmpfs on /not/there: No such file or directory"
    with pytest.raises(SyscallError, match=r"openat2 /not/there: No such file"):
        sc.openat2(sc.AT_FDCWD, "/not/there", os.O_RDONLY)


def test_openat2_in_root(tmp_path: Path) -> None:
    (tmp_path / "up").symlink_to("/../../etc")
    (tmp_path / "magic").symlink_to("/proc/self/cwd")
    root = os.open(tmp_path, os.O_PATH)
    for path, flags, number in (
        ("up", sc.RESOLVE_IN_ROOT, errno.ENOENT),
        ("up", sc.RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ("up", sc.RESOLVE_BENEATH, errno.EXDEV),
        ("magic", sc.RESOLVE_NO_MAGICLINKS, errno.ELOOP),
    ):
        with pytest.raises(SyscallError) as caught:
            sc.openat2(root, path, os.O_PATH, 0, flags)
        assert caught.value.errno == number
    fd = sc.openat2(root, ".", os.O_PATH)
    assert not os.get_inheritable(fd)
    os.close(fd)
    os.close(root)


def test_mount_api_on_detached_mounts(tmp_path: Path) -> None:
    context = sc.fsopen("tmpfs")
    sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "mode", "0711")
    with pytest.raises(SyscallError) as caught:
        sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "nonsense", "1")
    assert caught.value.errno == errno.EINVAL
    assert "nonsense" in sc.fs_messages(context)
    sc.fsconfig(context, sc.FSCONFIG_CMD_CREATE)
    mounted = sc.fsmount(context)
    assert sc.fstatfs_type(mounted) == sc.TMPFS_MAGIC
    sc.mount_setattr(mounted, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY)
    target = os.open(tmp_path, os.O_PATH)
    sc.attach_mount(mounted, target, about="here")
    try:
        assert (tmp_path.stat().st_mode & 0o777) == 0o711
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "x").touch()
    finally:
        sc.umount2(str(tmp_path), sc.MNT_DETACH)
    for fd in (context, mounted, target):
        os.close(fd)


def in_child(work: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a test's child reports by its exit code
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_close_all_except() -> None:
    def work() -> None:
        fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
        sc.close_all_except({0, 1, 2, fds[1], fds[3]})
        for index, fd in enumerate(fds):
            try:
                os.fstat(fd)
                assert index in (1, 3)
            except OSError:
                assert index in (0, 2, 4)

    assert in_child(work) == 0


def test_capabilities_round() -> None:
    def work() -> None:
        effective, permitted, inheritable = sc.capget()
        high = 1 << 38  # CAP_PERFMON: in the second word
        sc.capset(0, permitted & ~high, 0)
        assert sc.capget() == (0, permitted & ~high, 0)
        assert effective and inheritable == 0

    assert in_child(work) == 0


def test_unshare_and_setns() -> None:
    def work() -> None:
        ours = os.open("/proc/self/ns/uts", os.O_RDONLY)
        before = os.stat("/proc/self/ns/uts").st_ino
        sc.unshare(sc.CLONE_NEWUTS)
        assert os.stat("/proc/self/ns/uts").st_ino != before
        sc.setns(ours, sc.CLONE_NEWUTS)
        assert os.stat("/proc/self/ns/uts").st_ino == before

    assert in_child(work) == 0


def test_scheduling_personality_keyring() -> None:
    def work() -> None:
        sc.sched_setattr(0, sc.pack_sched_attr(3, 0, 5, 0, 0, 0, 0))
        assert (os.sched_getscheduler(0), os.nice(0)) == (os.SCHED_BATCH, 5)
        sc.ioprio_set(1, 0, 3 << 13)
        assert sc.personality(0xFFFFFFFF) >= 0
        assert sc.keyctl(sc.KEYCTL_JOIN_SESSION_KEYRING, b"klt-test") > 0

    assert in_child(work) == 0
