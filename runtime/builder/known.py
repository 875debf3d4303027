"""Known digests of context files: files that have not changed since the last build are not read again.

A file is unchanged if its device, inode, size, mtime and ctime are: only the kernel sets a ctime. Two kinds of writes
could still change a file without changing its ctime: one within the same tick of the clock, and one by mmap to a page
that is dirty already. So a file is not recorded while its ctime is younger than `SETTLED`. By then the kernel has
written such a page back and made it read-only again (Documentation/admin-guide/sysctl/vm.rst, dirty_expire_centisecs:
30 s). File systems without reliable times are not recorded at all: tmpfs, FUSE, network file systems.
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
# statfs f_type of file systems with a reliable ctime: ext2-4, xfs, btrfs, f2fs, overlay (linux/magic.h)
TRUSTED = frozenset({0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, OVERLAYFS_SUPER_MAGIC})
_MOST = 200_000  # files of one context; about 20 MB
_VERSION = 1

Identity = tuple[int, int, int, int]  # inode, size (bytes), mtime and ctime (ns)


class Contents:
    """SHA-256 digests of one context's files, stored in `<directory>/<device>-<inode>.json` (of the context directory).

    `trusting` False: ignore the stored digests and record them again. Thread-safe. If two builds of one context run at
    the same time, the records of the later one remain.
    """

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
        """The digest of the file's content, or None if it is unknown."""
        if st.st_dev != self._device:
            return None
        with self._lock:
            found = self._seen.get(st.st_ino) or self._before.get(st.st_ino)
            if found is None or found[0] != _identity(st):
                return None
            self._seen[st.st_ino] = found
        return bytes.fromhex(found[1])

    def read(self, fd: int, content: Callable[[int], bytes]) -> bytes:
        """Return `content(fd)`, and record it unless the file may be changing."""
        began = self._now()
        before = os.fstat(fd)
        digest = content(fd)
        settled = before.st_dev == self._device and before.st_ctime_ns < began - SETTLED
        if settled and _identity(os.fstat(fd)) == _identity(before):
            with self._lock:
                self._seen[before.st_ino] = (_identity(before), digest.hex())
        return digest

    def save(self) -> None:
        """Store the digests of this build and those that another Containerfile of this context may need. Never fails:
        without them the next build reads more files."""
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
        """The stored digests; {} if the file is missing or broken."""
        try:
            with open(self._path, "rb") as file:
                document = json.loads(file.read())
            if document["version"] != _VERSION:
                return {}
            found = {}
            for inode, size, mtime, ctime, digest in document["files"]:
                if len(bytes.fromhex(digest)) == 32:
                    found[inode] = ((inode, size, mtime, ctime), digest)
            os.utime(self._path)  # the time of the last use
            return found
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _identity(st: os.stat_result) -> Identity:
    return (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
