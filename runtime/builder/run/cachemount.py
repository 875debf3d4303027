"""RUN --mount=type=cache: directories that outlive a build, shared among RUNs as their `sharing` says."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_PAUSE = 0.05  # seconds between looks at a cache that another RUN has


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a cache begins as: an empty directory of this owner and mode, or (`seed`) what that puts in its place, given
    a path on the same file system. Nothing of it counts for a cache that is there."""

    uid: int
    gid: int
    mode: int
    seed: Callable[[str], None] | None = None


@contextmanager
def held(top: str, identity: str, sharing: str, fresh: Fresh, check: Callable[[], None]) -> Iterator[str]:
    """The cache's directory, locked against pruning and (`locked`, `private`) against other RUNs. `check` is called
    while somebody else has it."""
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    kind = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
    number = 0
    while True:
        path = os.path.join(top, name if sharing != "private" else f"{name}-{number}")
        fd = _opened(path, fresh)
        if _locked(fd, kind) and _is_still(fd, path):  # else: another's, or pruned meanwhile
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


def _opened(path: str, fresh: Fresh) -> int:
    while True:
        if fresh.seed is not None and not os.path.lexists(path):
            fresh.seed(path)
        elif fresh.seed is None:
            _make(path, fresh)
        with suppress(FileNotFoundError):  # pruned in between
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _make(path: str, fresh: Fresh) -> None:
    with suppress(FileExistsError):
        os.mkdir(path, fresh.mode)
        os.chmod(path, fresh.mode)
        os.chown(path, fresh.uid, fresh.gid)


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
