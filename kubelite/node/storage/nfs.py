"""NFS volumes, mounted by the kernel's client (nfs(5)) without the helper program mount.nfs(8). Like mount.nfs, this
module tries the versions from the newest on, unless an option names one.

Locks of NFS version 3 are local (`nolock`), because otherwise a lock daemon would have to run.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import NamedTuple

from kubelite.node.spec.volume_plans import NfsExport
from kubelite.node.storage.slow_mounts import options
from runtime import syscalls
from runtime.errors import SyscallError

VERSIONS = ("4.2", "4.1", "4.0", "3")
#: The errors for a version that client or server does not support.
_NEXT = (errno.EPROTONOSUPPORT, errno.EINVAL)


class Share(NfsExport):
    """An NFS export as a slow mount (see `slow_mounts.Slow`)."""

    __slots__ = ()

    @property
    def source(self) -> str:
        return f"[{self.server}]:{self.path}" if ":" in self.server else f"{self.server}:{self.path}"

    @property
    def step(self) -> str:
        return "SetUp"

    @property
    def delay(self) -> str:
        return "the server does not answer"

    def mount(self, path: str) -> None:
        _mount(path, self)

    def words(self, error: OSError) -> str:
        return _words(error)


class Attempt(NamedTuple):
    """The arguments of one mount(2)."""

    kind: str
    flags: int
    data: str


def attempts(share: Share, address: str, own: str) -> Iterator[Attempt]:
    """Pure: the mounts to try, in order. `address`: the server's; `own`: this node's, as the server sees it."""
    (flags, given), rest, wanted = options(share.options), list[str](), list(VERSIONS)
    for option in given:
        name, _, value = option.partition("=")
        if name in ("vers", "nfsvers"):
            wanted = ["4.2", "4.1", "4.0"] if value == "4" else [value]
        else:
            rest.append(option)
    for version in wanted:
        if version.startswith("4"):
            data = [f"vers={version}", f"addr={address}", f"clientaddr={own}"]
            yield Attempt("nfs4", flags, ",".join([*data, *rest]))
        else:
            lock = [] if {"lock", "nolock"} & set(rest) else ["nolock"]
            data = [f"vers={version}", f"addr={address}", f"mountaddr={address}", *lock]
            yield Attempt("nfs", flags, ",".join([*data, *rest]))


def _mount(path: str, share: Share) -> None:
    """Mount the export. Call this in a thread, because it may take minutes. Raises OSError, SyscallError."""
    found = socket.getaddrinfo(share.server, 2049, type=socket.SOCK_STREAM)
    family, *_, place = found[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(place)  # sends nothing; selects the local address for this destination
        own = str(probe.getsockname()[0])
    last: SyscallError | None = None
    for attempt in attempts(share, str(place[0]), own):
        try:
            syscalls.mount(share.source, path, attempt.kind, attempt.flags, attempt.data, waits=True)
        except SyscallError as error:
            if error.errno not in _NEXT:
                raise
            last = error
        else:
            return
    if last is not None:
        raise last


def _words(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"{error.strerror}"
    known = {
        errno.ENODEV: "this kernel has no NFS client (modprobe nfs)",
        errno.EACCES: "access denied by server",
        errno.EPROTONOSUPPORT: "the server supports none of the requested versions",
    }
    return known.get(error.errno or 0) or os.strerror(error.errno or 0)
