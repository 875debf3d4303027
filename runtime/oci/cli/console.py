"""Terminal masters: send one to the caller's console socket, or hold it to relay it ourselves.

The socket protocol is runc's (docs/terminals.md): one message with the descriptor as SCM_RIGHTS and its name as data.
"""

from __future__ import annotations

import os
import socket
import sys

from runtime.errors import StateError, SyscallError


def send(path: str, master: int) -> None:
    """Send the master to the socket at `path`, and close it. Raises SyscallError."""
    try:
        send_fd(path, master, b"/dev/ptmx", "the terminal to console socket")
    finally:
        os.close(master)


def send_fd(path: str, fd: int, name: bytes, what: str) -> None:
    """Send a descriptor to the socket at `path`, with a name as the message (as runc does). `what` names it in a
    SyscallError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.connect(path)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
            channel.sendmsg([name], [rights])
    except OSError as error:
        raise SyscallError(error.errno or 0, "sendmsg", f"{what} {path}") from error


class Keeper:
    """Holds a master until it is relayed or closed."""

    def __init__(self) -> None:
        self._master = -1

    def take(self, master: int) -> None:
        from runtime.oci.cli import foreground

        foreground.disable_onlcr(master)
        self._master = master

    def release(self) -> int:
        if self._master < 0:
            raise StateError("the container has sent no terminal")
        master, self._master = self._master, -1
        return master

    def close(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
