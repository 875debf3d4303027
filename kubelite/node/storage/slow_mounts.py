"""Mounts that may take long: NFS, where mount(2) waits minutes for a server that does not answer, and disks that must
be checked or formatted first. Each runs in its own thread. Callers wait for at most `WAIT` seconds. After that the
mount continues, and the next attempt finds its result.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from typing import Protocol

from kubelite.node.model.errors import MountError
from runtime import syscalls
from runtime.errors import RuntimeFault, SyscallError

WAIT = 20.0  # seconds
_FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "noatime": syscalls.MS_NOATIME,
    "rw": 0,
    "defaults": 0,
}


class Slow(Protocol):
    """What to mount."""

    @property
    def step(self) -> str:
        """kubelet's name of the operation: SetUp, MountDevice."""

    @property
    def source(self) -> str: ...

    @property
    def delay(self) -> str:
        """The reason to report if the mount takes long."""

    def mount(self, path: str) -> None:
        """Called in a thread. Raises OSError, RuntimeFault."""

    def words(self, error: OSError) -> str: ...


def options(given: Iterable[str]) -> tuple[int, list[str]]:
    """Pure: a volume's mountOptions as flags of mount(2), and the remaining options of the file system."""
    flags, rest = 0, list[str]()
    for option in given:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        else:
            rest.append(option)
    return flags, rest


class SlowMounts:
    """The mounts in progress, by directory."""

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Future[None]] = {}

    async def mount(self, name: str, path: str, what: Slow) -> None:
        """Mount at `path`. Raises MountError that names the volume `name`."""
        if is_mounted(path):
            return
        os.makedirs(path, mode=0o750, exist_ok=True)
        future = self._pending.get(path) or self._begin(path, what)
        said = f'MountVolume.{what.step} failed for volume "{name}" : mount {what.source}: '
        try:
            await asyncio.wait_for(asyncio.shield(future), WAIT)
        except TimeoutError:
            raise MountError(f"{said}{what.delay}; still waiting") from None
        except OSError as error:
            raise MountError(said + what.words(error)) from error
        except SyscallError as error:
            raise MountError(said + what.words(OSError(error.errno or 0, str(error)))) from error
        except RuntimeFault as error:
            raise MountError(f"{said}{error}") from error

    def _begin(self, path: str, what: Slow) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        # retrieve the exception in any case, to avoid asyncio's warning
        future.add_done_callback(lambda done: done.exception())

        def ended(error: Exception | None) -> None:
            self._pending.pop(path, None)
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        def work() -> None:
            failed: Exception | None = None
            try:
                what.mount(path)
            except (OSError, RuntimeFault) as error:
                failed = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended, failed)

        self._pending[path] = future
        threading.Thread(target=work, name=f"mount {what.source}", daemon=True).start()
        return future


def is_mounted(path: str) -> bool:
    """Whether a file system is mounted at `path`. Reads the mount table, because stat(2) would wait for a server that
    does not answer."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return f" {path} " in file.read()
