"""Create and read user namespaces for id-mapped mounts (mount_setattr(2), "ID-mapped mounts").

A mount's id mappings are those of a user namespace. Creating one needs a process, so an idle child holds it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from signal import SIGCHLD, SIGKILL
from typing import Any, NoReturn

from runtime import syscalls as sc
from runtime.errors import CapabilityError, SpecError, SyscallError
from runtime.oci.nsfile import open_namespace


def lines(entries: Iterable[Mapping[str, Any]]) -> str:
    """The content for uid_map or gid_map (user_namespaces(7))."""
    return "".join(f"{e['containerID']} {e['hostID']} {e['size']}\n" for e in entries)


def write_maps(pid: int, uids: Iterable[Mapping[str, Any]], gids: Iterable[Mapping[str, Any]]) -> None:
    """Write the id mappings of `pid`'s user namespace.

    An ordinary user may map only its own id, and must first give up setgroups(2). For other mappings the distribution's
    set-user-ID programs newuidmap(1) and newgidmap(1) decide, using /etc/subuid and /etc/subgid.
    """
    if os.geteuid() != 0:
        _write(pid, "setgroups", "deny" if _only(gids, os.getegid()) else "allow")
        for program, name, entries, own in (
            ("newuidmap", "uid_map", uids, os.geteuid()),
            ("newgidmap", "gid_map", gids, os.getegid()),
        ):
            if _only(entries, own):
                _write(pid, name, lines(entries))
            else:
                _by_program(program, pid, entries)
        return
    _write(pid, "uid_map", lines(uids))
    _write(pid, "gid_map", lines(gids))


def _only(entries: Iterable[Mapping[str, Any]], own: int) -> bool:
    return [(entry["hostID"], entry["size"]) for entry in entries] == [(own, 1)]


def _write(pid: int, name: str, text: str) -> None:
    path = f"/proc/{pid}/{name}"
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise SyscallError(error.errno or 0, "write", path) from error


def _by_program(program: str, pid: int, entries: Iterable[Mapping[str, Any]]) -> None:
    """Run newuidmap (or newgidmap) PID INSIDE OUTSIDE COUNT …; its output goes to our stderr."""
    words = [program, str(pid), *lines(entries).split()]
    try:
        child = os.posix_spawnp(program, words, os.environ)
    except FileNotFoundError as error:
        message = (
            f"linux.uidMappings and gidMappings: other ids than your own need {program} (package uidmap)"
        )
        raise CapabilityError(message) from error
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise SpecError(f"linux.uidMappings and gidMappings: {' '.join(words)} failed with exit code {code}")


@contextlib.contextmanager
def _killed_after(pid: int, pidfd: int) -> Iterator[None]:
    """Kill and reap the child at the end of the block."""
    try:
        yield
    finally:
        with contextlib.suppress(SyscallError):
            sc.pidfd_send_signal(pidfd, SIGKILL)
        os.close(pidfd)
        os.waitpid(pid, 0)


def namespace(uids: Iterable[Mapping[str, Any]], gids: Iterable[Mapping[str, Any]]) -> int:
    """Create a user namespace with these mappings; returns its descriptor."""
    hold_read, hold_write = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = sc.clone3(sc.CLONE_NEWUSER, exit_signal=SIGCHLD)
        if pid == 0:
            os.close(hold_write)
            with contextlib.suppress(BaseException):
                os.read(hold_read, 1)  # returns when the parent closes its end or dies
            os._exit(0)
        with _killed_after(pid, pidfd):
            write_maps(pid, uids, gids)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(hold_read)
        os.close(hold_write)


def of_process(pid: int) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    """(uidMappings, gidMappings) of the process's user namespace, as seen from ours."""
    found = []
    for name in ("uid_map", "gid_map"):
        path = f"/proc/{pid}/{name}"
        try:
            with open(path, encoding="ascii") as file:
                rows = [[int(number) for number in line.split()] for line in file]
        except OSError as error:
            raise SyscallError(error.errno or 0, "read", path) from error
        found.append([dict(zip(("containerID", "hostID", "size"), row, strict=True)) for row in rows])
    return found[0], found[1]


def of_namespace(path: str) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    """(uidMappings, gidMappings) of the user namespace at `path`.

    The kernel shows them only for a process. So a child joins the namespace, reports that, and waits while its mappings
    are read.
    """
    namespace = open_namespace(path)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = sc.clone3(0, exit_signal=SIGCHLD)
        if pid == 0:
            _join_and_wait(namespace, writing)
        with _killed_after(pid, pidfd):
            os.close(writing)
            writing = -1
            answer = os.read(reading, 4)
            if answer != _JOINED:
                code = int.from_bytes(answer, "little") or errno.EIO
                raise SyscallError(code, "setns", path)
            return of_process(pid)
    finally:
        os.close(namespace)
        os.close(reading)
        if writing >= 0:
            os.close(writing)


_JOINED = bytes(4)


def _join_and_wait(namespace: int, writing: int) -> NoReturn:
    try:
        sc.prctl(sc.PR_SET_DUMPABLE, 0)  # processes in that namespace must not read our copy
        sc.setns(namespace, sc.CLONE_NEWUSER)
        sc.prctl(sc.PR_SET_DUMPABLE, 0)  # the change of credentials resets this and PDEATHSIG
        sc.prctl(sc.PR_SET_PDEATHSIG, SIGKILL)
        os.write(writing, _JOINED)
        signal.pause()
    except SyscallError as error:
        os.write(writing, (error.errno or errno.EIO).to_bytes(4, "little"))
    finally:
        os._exit(1)
