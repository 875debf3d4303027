"""User namespaces as things to map mounts with (mount_setattr(2), "ID-mapped mounts").

An ID map of a mount is a user namespace's, and a user namespace needs a process to be made: one that does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from signal import SIGCHLD, SIGKILL
from typing import Any

from runtime import syscalls as sc
from runtime.errors import SyscallError


def lines(entries: Iterable[Mapping[str, Any]]) -> str:
    """uid_map, gid_map (user_namespaces(7))."""
    return "".join(f"{e['containerID']} {e['hostID']} {e['size']}\n" for e in entries)


def write_maps(pid: int, uids: Iterable[Mapping[str, Any]], gids: Iterable[Mapping[str, Any]]) -> None:
    for name, entries in (("uid_map", uids), ("gid_map", gids)):
        path = f"/proc/{pid}/{name}"
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(lines(entries))
        except OSError as error:
            raise SyscallError(error.errno or 0, "write", path) from error


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
        try:
            write_maps(pid, uids, gids)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            with contextlib.suppress(SyscallError):
                sc.pidfd_send_signal(pidfd, SIGKILL)
            os.close(pidfd)
            os.waitpid(pid, 0)
    finally:
        os.close(hold_read)
        os.close(hold_write)
