"""User namespaces as things to map mounts with (mount_setattr(2), "ID-mapped mounts").

An ID map of a mount is a user namespace's, and a user namespace needs a process to be made: one that does nothing.
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
    """uid_map, gid_map (user_namespaces(7))."""
    return "".join(f"{e['containerID']} {e['hostID']} {e['size']}\n" for e in entries)


def write_maps(pid: int, uids: Iterable[Mapping[str, Any]], gids: Iterable[Mapping[str, Any]]) -> None:
    """An ordinary user may map itself alone, once it has given up setgroups(2); more is for the set-user-ID programs of
    its distribution to decide, by /etc/subuid and /etc/subgid (newuidmap(1))."""
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
    """newuidmap PID INSIDE OUTSIDE COUNT …; what it has to say goes to our stderr."""
    words = [program, str(pid), *lines(entries).split()]
    try:
        child = os.posix_spawnp(program, words, os.environ)
    except FileNotFoundError as error:
        message = f"linux.uidMappings and gidMappings: more than this user needs {program} (package uidmap)"
        raise CapabilityError(message) from error
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise SpecError(f"linux.uidMappings and gidMappings: {' '.join(words)} ended with {code}")


@contextlib.contextmanager
def _ended(pid: int, pidfd: int) -> Iterator[None]:
    """A child that is held for as long as the block lasts."""
    try:
        yield
    finally:
        with contextlib.suppress(SyscallError):
            sc.pidfd_send_signal(pidfd, SIGKILL)
        os.close(pidfd)
        os.waitpid(pid, 0)


def namespace(uids: Iterable[Mapping[str, Any]], gids: Iterable[Mapping[str, Any]]) -> int:
    """A descriptor of a new user namespace with these mappings."""
    hold_read, hold_write = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = sc.clone3(sc.CLONE_NEWUSER, exit_signal=SIGCHLD)
        if pid == 0:
            os.close(hold_write)
            with contextlib.suppress(BaseException):
                os.read(hold_read, 1)  # until the parent is done with us, or dead
            os._exit(0)
        with _ended(pid, pidfd):
            write_maps(pid, uids, gids)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(hold_read)
        os.close(hold_write)


def of_process(pid: int) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    """(uidMappings, gidMappings) of its user namespace, seen from ours."""
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
    """Those of the user namespace that `path` is. The kernel says them of a process only: one of ours goes there, says
    so, and waits to be looked at."""
    namespace = open_namespace(path)
    said, say = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = sc.clone3(0, exit_signal=SIGCHLD)
        if pid == 0:
            _go_there(namespace, say)
        with _ended(pid, pidfd):
            os.close(say)
            say = -1
            answer = os.read(said, 4)
            if answer != _THERE:
                code = int.from_bytes(answer, "little") or errno.EIO
                raise SyscallError(code, "setns", path)
            return of_process(pid)
    finally:
        os.close(namespace)
        os.close(said)
        if say >= 0:
            os.close(say)


_THERE = bytes(4)


def _go_there(namespace: int, say: int) -> NoReturn:
    try:
        sc.prctl(sc.PR_SET_DUMPABLE, 0)  # a copy of us is not for those who are in there
        sc.setns(namespace, sc.CLONE_NEWUSER)
        sc.prctl(sc.PR_SET_DUMPABLE, 0)  # other credentials: once more, and the next is forgotten with them
        sc.prctl(sc.PR_SET_PDEATHSIG, SIGKILL)
        os.write(say, _THERE)
        signal.pause()
    except SyscallError as error:
        os.write(say, (error.errno or errno.EIO).to_bytes(4, "little"))
    finally:
        os._exit(1)
