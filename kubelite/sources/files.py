"""Scans the manifests directory: finds its manifests, and the sub-directories whose contents may be incomplete."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listing:
    """The result of one scan. Sub-directories are given by their paths."""

    identity: tuple[int, int]  # device and inode of the top directory
    files: dict[str, tuple[int, ...]]  # manifest → signature, which differs after a change
    unreadable: frozenset[str]
    mounts: frozenset[str]  # directories on another file system than their parents
    empty: frozenset[str]  # directories without any entry


_KINDS = {
    stat.S_IFIFO: "is a pipe, not a file",
    stat.S_IFSOCK: "is a socket, not a file",
    stat.S_IFCHR: "is a device, not a file",
    stat.S_IFBLK: "is a device, not a file",
    stat.S_IFDIR: "is a link to a directory, which is not followed",
}


def readable_name(name: str) -> bool:
    """Whether a file of this name is a manifest. kubelet reads all files except dotfiles, so it may use a backup
    instead of the file."""
    return not name.startswith((".", "#")) and name.endswith(SUFFIXES)


def list_manifests(directory: str) -> Listing:
    """Scan the directory and its sub-directories. Raises OSError if the directory itself cannot be read."""
    top = os.stat(directory)
    walk = _Walk()
    walk.enter(directory, top.st_dev, top=True)
    return Listing(
        (top.st_dev, top.st_ino),
        walk.files,
        frozenset(walk.unreadable),
        frozenset(walk.mounts),
        frozenset(walk.empty),
    )


class _Walk:
    def __init__(self) -> None:
        self.files: dict[str, tuple[int, ...]] = {}
        self.unreadable: set[str] = set()
        self.mounts: set[str] = set()
        self.empty: set[str] = set()

    def enter(self, directory: str, device: int, *, top: bool = False) -> None:
        try:
            entries = sorted(os.scandir(directory), key=lambda e: e.name)
        except OSError:
            if top:
                raise
            self.unreadable.add(directory)
            return
        if not entries:
            self.empty.add(directory)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                self._directory(entry, device)
            elif readable_name(entry.name):
                self._file(entry)

    def _directory(self, entry: os.DirEntry[str], device: int) -> None:
        try:
            own = entry.stat(follow_symlinks=False).st_dev
        except OSError:
            self.unreadable.add(entry.path)
            return
        if own != device:
            self.mounts.add(entry.path)
        self.enter(entry.path, own)

    def _file(self, entry: os.DirEntry[str]) -> None:
        if (path := os.fsencode(entry.path).decode(errors="replace")) != entry.path:
            self.files[path] = ()  # the name is not UTF-8; reported when the file is read
            return
        try:
            found = entry.stat()
        except OSError:
            self.files[entry.path] = ()  # for example a dangling link; reported when it is read
            return
        masked = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(
            1, 3
        )  # /dev/null counts as an empty file
        if stat.S_ISREG(found.st_mode) or masked:
            self.files[entry.path] = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        else:
            self.files[entry.path] = (stat.S_IFMT(found.st_mode),)  # reported, but never opened


def no_file(signature: tuple[int, ...]) -> str:
    """Return what a listed path is if it is not a regular file; "" if it is one, or if that is unknown."""
    return _KINDS.get(signature[0], "is not a regular file") if len(signature) == 1 else ""


def read_text(path: str) -> str:
    """Read a manifest. Raises UnicodeDecodeError, or OSError, also if the file is not regular (reading a FIFO would
    block for ever) or larger than MAX_BYTES."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, encoding="utf-8") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, _KINDS.get(stat.S_IFMT(found.st_mode), "is not a regular file"), path)
        if found.st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return stream.read()


def read_open(descriptor: int) -> str:
    """Read an open manifest, which stays open. Raises UnicodeDecodeError, or OSError if it is larger than MAX_BYTES."""
    with open(descriptor, "rb", closefd=False) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data.decode("utf-8-sig")


def below(file: str, directories: Iterable[str]) -> bool:
    return any(file.startswith(directory + "/") for directory in directories)


def identity_of(directory: str) -> tuple[int, int] | None:
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def being_written(descriptor: int) -> bool:
    """Whether any process has the file open for writing. The kernel then refuses a read lease with EAGAIN. On file
    systems without leases, which return another error, the result is False."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
