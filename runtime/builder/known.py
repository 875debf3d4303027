"""What a build's context held the last time: contents of files that were not touched since need not be read again.

A file is the same while its device, inode, size, mtime and ctime are; nobody but the kernel sets a ctime. Two things
could still change a file and leave its ctime: a write within the clock's tick, and a write by mmap to a page that is
dirty already. So nothing is noted of a file whose ctime is younger than `SETTLED`, by when the kernel has written such
a page back and made it read-only again (Documentation/admin-guide/sysctl/vm.rst, dirty_expire_centisecs: 30 s), and
nothing of a file system that does not keep times so: tmpfs, FUSE, the network's.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from runtime.images.store.disk import replace_file
from runtime.syscalls import OVERLAYFS_SUPER_MAGIC, fstatfs_type

SETTLED = 60 * 10**9  # ns
#: statfs f_type of what keeps a ctime that can be relied on: ext2-4, xfs, btrfs, f2fs, overlay (linux/magic.h)
TRUSTED = frozenset({0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, OVERLAYFS_SUPER_MAGIC})
_MOST = 200_000  # files of one context; about 20 MB
_VERSION = 1

Identity = tuple[int, int, int, int]  # inode, size (bytes), mtime and ctime (ns)


class Contents:
    """SHA-256 of the contents of one context's files, in `<directory>/<device>-<inode>.json` of the context.

    `trusting` False: believe nothing of it, and learn it anew. Safe for several threads; of two builds at once of one
    context the later one's notes stay."""

    def __init__(
        self,
        directory: str,
        context: int,
        *,
        trusting: bool = True,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        st = os.fstat(context)
        self._device = st.st_dev if fstatfs_type(context) in TRUSTED else None
        self._path = os.path.join(directory, f"{st.st_dev:x}-{st.st_ino:x}.json")
        self._now = now
        self._lock = threading.Lock()
        self._before = self._load() if self._device is not None and trusting else {}
        self._seen: dict[int, tuple[Identity, str]] = {}

    def get(self, st: os.stat_result) -> bytes | None:
        """The digest of this file's content, if it is known."""
        if st.st_dev != self._device:
            return None
        with self._lock:
            found = self._seen.get(st.st_ino) or self._before.get(st.st_ino)
            if found is None or found[0] != _identity(st):
                return None
            self._seen[st.st_ino] = found
        return bytes.fromhex(found[1])

    def read(self, fd: int, content: Callable[[int], bytes]) -> bytes:
        """`content(fd)`, noted unless the file may be in the middle of a change."""
        began = self._now()
        before = os.fstat(fd)
        digest = content(fd)
        settled = before.st_dev == self._device and before.st_ctime_ns < began - SETTLED
        if settled and _identity(os.fstat(fd)) == _identity(before):
            with self._lock:
                self._seen[before.st_ino] = (_identity(before), digest.hex())
        return digest

    def save(self) -> None:
        """Keep what was seen, and what another Containerfile of this context may ask for. Never fails: without it the
        next build reads more."""
        with self._lock:
            if self._device is None or all(
                self._before.get(inode) == new for inode, new in self._seen.items()
            ):
                return
            kept = self._seen if len(self._before) + len(self._seen) > _MOST else self._before | self._seen
            files = [[inode, *identity[1:], digest] for inode, (identity, digest) in kept.items()]
        with suppress(OSError):
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            document = {"version": _VERSION, "files": files}
            replace_file(self._path, json.dumps(document, separators=(",", ":")).encode(), sync=False)

    def _load(self) -> dict[int, tuple[Identity, str]]:
        """{} when there is none, or it is torn."""
        try:
            with open(self._path, "rb") as file:
                document = json.loads(file.read())
            if document["version"] != _VERSION:
                return {}
            found = {}
            for inode, size, mtime, ctime, digest in document["files"]:
                if len(bytes.fromhex(digest)) == 32:
                    found[inode] = ((inode, size, mtime, ctime), digest)
            os.utime(self._path)  # when it was used last
            return found
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _identity(st: os.stat_result) -> Identity:
    return (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
