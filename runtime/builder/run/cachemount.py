"""RUN --mount=type=cache: directories that persist between builds, shared among RUNs according to `sharing`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_PAUSE = 0.05  # seconds between attempts to lock a cache


@dataclass(frozen=True, slots=True)
class InitialState:
    """The initial state of a cache: an empty directory with this owner and mode, or what `seed` creates at a given path
    on the same file system. It does not apply to a cache that exists already."""

    uid: int
    gid: int
    mode: int
    seed: Callable[[str], None] | None = None


@contextmanager
def lock_cache(
    top: str, identity: str, sharing: str, initial: InitialState, check: Callable[[], None]
) -> Iterator[str]:
    """Yield the cache's directory, locked against pruning and, for `locked` and `private`, against other RUNs. `check`
    is called while the lock is taken and may raise."""
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    kind = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
    number = 0
    while True:
        path = os.path.join(top, name if sharing != "private" else f"{name}-{number}")
        fd = _opened(path, initial)
        if _locked(fd, kind) and _is_still(fd, path):  # otherwise it is in use or has been pruned
            break
        os.close(fd)
        check()
        number += 1
        if sharing != "private":
            time.sleep(_PAUSE)
    try:
        os.utime(path)
        yield path
    finally:
        os.close(fd)


def _opened(path: str, initial: InitialState) -> int:
    while True:
        if initial.seed is not None and not os.path.lexists(path):
            initial.seed(path)
        elif initial.seed is None:
            _make(path, initial)
        with suppress(FileNotFoundError):  # pruned meanwhile
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _make(path: str, initial: InitialState) -> None:
    with suppress(FileExistsError):
        os.mkdir(path, initial.mode)
        os.chmod(path, initial.mode)
        os.chown(path, initial.uid, initial.gid)


def _locked(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path)) and stat.S_ISDIR(os.fstat(fd).st_mode)
    except FileNotFoundError:
        return False
