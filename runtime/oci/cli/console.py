"""Terminals: their master goes to the caller's console socket, or is kept for us to relay.

The socket's protocol is runc's (docs/terminals.md): one message, the descriptor as SCM_RIGHTS, its name as data.
"""

from __future__ import annotations

import os
import socket
import sys

from runtime.errors import StateError, SyscallError


def send(path: str, master: int) -> None:
    """To who listens at `path`; the master is closed here."""
    try:
        give(path, master, b"/dev/ptmx", "the terminal to console socket")
    finally:
        os.close(master)


def give(path: str, fd: int, name: bytes, what: str) -> None:
    """A descriptor to who listens at `path`, with a name as the message (as runc)."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.connect(path)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
            channel.sendmsg([name], [rights])
    except OSError as error:
        raise SyscallError(error.errno or 0, "sendmsg", f"{what} {path}") from error


class Keeper:
    """Holds a master until it is relayed, or closes it."""

    def __init__(self) -> None:
        self._master = -1

    def take(self, master: int) -> None:
        from runtime.oci.cli import foreground

        foreground.plain_lines(master)
        self._master = master

    def release(self) -> int:
        if self._master < 0:
            raise StateError("the container gave no terminal")
        master, self._master = self._master, -1
        return master

    def close(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
