"""NFS volumes, by the kernel's own client (nfs(5)): no program of the machine is needed. The version is agreed on as
mount.nfs does, the newest first, unless an option says which.

A server that does not answer holds mount(2) up for minutes. So each mount is a thread of its own, which nobody waits
for longer than `WAIT`; it goes on, and the next try finds what came of it. Locks of version 3 are the client's own
(`nolock`: a lock daemon would have to run beside us).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

from kubelite.node.faults import MountError
from runtime import syscalls
from runtime.errors import SyscallError

WAIT = 20.0  # seconds
VERSIONS = ("4.2", "4.1", "4.0", "3")
_NEXT = (
    errno.EPROTONOSUPPORT,
    errno.EINVAL,
)  # what a version that one of the two does not speak is answered with
_FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "noatime": syscalls.MS_NOATIME,
    "rw": 0,
    "defaults": 0,
}


class Share(NamedTuple):
    server: str
    path: str
    options: tuple[str, ...] = ()  # a PersistentVolume's mountOptions

    @property
    def source(self) -> str:
        return f"[{self.server}]:{self.path}" if ":" in self.server else f"{self.server}:{self.path}"


class Attempt(NamedTuple):
    """One mount(2)."""

    kind: str
    flags: int
    data: str


def attempts(share: Share, address: str, own: str) -> Iterator[Attempt]:
    """PURE: what is tried, in order. `address`: the server's; `own`: ours, as the server sees it."""
    flags, rest, wanted = 0, list[str](), list(VERSIONS)
    for option in share.options:
        name, _, value = option.partition("=")
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif name in ("vers", "nfsvers"):
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


class NfsMounts:
    """The mounts under way, by the directory that they are for."""

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Future[None]] = {}

    async def mount(self, name: str, path: str, share: Share) -> None:
        """Have the share at `path`. Raises MountError, of the volume `name`."""
        if is_mounted(path):
            return
        os.makedirs(path, mode=0o750, exist_ok=True)
        future = self._pending.get(path) or self._begin(path, share)
        said = f'MountVolume.SetUp failed for volume "{name}" : mount {share.source}: '
        try:
            await asyncio.wait_for(asyncio.shield(future), WAIT)
        except TimeoutError:
            raise MountError(f"{said}the server does not answer; it is waited for") from None
        except OSError as error:
            raise MountError(said + _words(error)) from error
        except SyscallError as error:
            raise MountError(said + _words(OSError(error.errno or 0, str(error)))) from error

    def _begin(self, path: str, share: Share) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        future.add_done_callback(lambda done: done.exception())  # asked for here, if by nobody else

        def ended(error: Exception | None) -> None:
            self._pending.pop(path, None)
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        def work() -> None:
            failed: Exception | None = None
            try:
                mount(path, share)
            except (OSError, SyscallError) as error:
                failed = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended, failed)

        self._pending[path] = future
        threading.Thread(target=work, name=f"nfs {share.source}", daemon=True).start()
        return future


def mount(path: str, share: Share) -> None:
    """In a thread: it may take minutes. Raises OSError, SyscallError."""
    found = socket.getaddrinfo(share.server, 2049, type=socket.SOCK_STREAM)
    family, *_, place = found[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(place)  # sends nothing: asks which address is ours on the way there
        own = str(probe.getsockname()[0])
    last: SyscallError | None = None
    for attempt in attempts(share, str(place[0]), own):
        try:
            syscalls.mount(share.source, path, attempt.kind, attempt.flags, attempt.data)
        except SyscallError as error:
            if error.errno not in _NEXT:
                raise
            last = error
        else:
            return
    if last is not None:
        raise last


def is_mounted(path: str) -> bool:
    """By the mount table: stat(2) would wait for a server that is away."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return f" {path} " in file.read()


def _words(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"{error.strerror}"
    known = {
        errno.ENODEV: "this kernel has no NFS client (modprobe nfs)",
        errno.EACCES: "access denied by server",
        errno.EPROTONOSUPPORT: "the server speaks none of the versions asked for",
    }
    return known.get(error.errno or 0) or os.strerror(error.errno or 0)
