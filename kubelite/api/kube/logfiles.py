"""Reads a container's CRI log files: complete lines, in order, across rotations and restarts.

Nothing here waits: `LogReader.read_some()` returns the data that is available and remembers the position. Files are
kept open, so a file that is renamed meanwhile is read to its end before its successor is opened. kubelet's reader
loses lines in that case (kubernetes#115701) and ignores rotated files; this one begins with the oldest file.

Format: kubernetes cri-client/pkg/logs, written by runtime.shim.logs: `<RFC3339Nano> <stdout|stderr> <P|F> <text>`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass

from kubelite.kube.times import rfc3339_nano
from runtime.tree import directory_of

CHUNK = 64 * 1024
JOIN_MAX = 1024 * 1024  # bytes; longer lines are returned in pieces


@dataclass(frozen=True, slots=True)
class LogQuery:
    follow: bool = False
    tail: int | None = None  # lines from the end; None = all
    since: float | None = None  # Unix seconds
    timestamps: bool = False
    limit: int | None = None  # bytes of output


def attempts(directory: str) -> list[int]:
    """Return the attempts that have a log in the directory, rotated ones included, oldest first."""
    with contextlib.suppress(OSError):
        heads = {name.partition(".log")[0] for name in os.listdir(directory) if ".log" in name}
        return sorted(int(head) for head in heads if head.isdigit())
    return []


def rotated(path: str) -> list[str]:
    """Return the rotated files of a log, oldest first (their names sort by time)."""
    directory, name = os.path.split(path)
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [os.path.join(directory, n) for n in sorted(names) if n.startswith(f"{name}.2")]


class LineJoiner:
    """Converts CRI lines into text. It joins the pieces of long lines, for each stream separately."""

    def __init__(self, query: LogQuery) -> None:
        self._timestamps = query.timestamps
        self._since = rfc3339_nano(query.since).encode() if query.since is not None else b""
        self._parts: dict[bytes, list[bytes]] = {}
        self._raw = b""

    def feed(self, data: bytes) -> bytes:
        lines = (self._raw + data).split(b"\n")
        self._raw = lines.pop()
        out: list[bytes] = []
        for line in lines:
            self._take(line, out)
        return b"".join(out)

    def _take(self, line: bytes, out: list[bytes]) -> None:
        fields = line.split(b" ", 3)
        if len(fields) < 3:
            return  # not a CRI line, for example an incomplete write
        stamp, stream, tags = fields[:3]
        if self._since and stamp < self._since:
            return
        text = fields[3] if len(fields) == 4 else b""
        parts = self._parts.get(stream)
        if parts is None:
            parts = [stamp + b" "] if self._timestamps else []
        parts.append(text)
        if tags.split(b":", 1)[0] == b"P" and len(parts) * len(text) < JOIN_MAX:
            self._parts[stream] = parts
            return
        self._parts.pop(stream, None)
        out.extend(parts)
        if tags.split(b":", 1)[0] != b"P":
            out.append(b"\n")

    def finish(self) -> bytes:
        """Return the pieces of a line that has no newline."""
        left = b"".join(b"".join(parts) for parts in self._parts.values())
        self._parts.clear()
        return left


class LogReader:
    """Reads the log of one attempt, oldest rotated file first; with `query.follow`, also of later attempts.

    `read_some()` returns the next piece of output, or b"" if there is none now. `done` is true when the limit is
    reached. The caller must call `close()`.
    """

    def __init__(self, directory: str, attempt: int, query: LogQuery) -> None:
        self._directory = directory
        self._attempt = attempt
        self._query = query
        self._joiner = LineJoiner(query)
        self._left = query.limit
        self._mid_line = False  # the output so far ends without a newline
        self._files = _open_all(self._path)
        if query.tail is not None:
            self._files = _seek_tail(self._files, query.tail)

    @property
    def done(self) -> bool:
        return self._left is not None and self._left <= 0

    @property
    def _path(self) -> str:
        return os.path.join(self._directory, f"{self._attempt}.log")

    def close(self) -> None:
        for fd in self._files:
            os.close(fd)
        self._files = []

    def read_some(self) -> bytes:
        while not self.done:
            if not self._files:
                self._files = _open_all(self._path)
                if not self._files:
                    newer = self._newer() if self._query.follow else []
                    if not newer:
                        return b""
                    # The log of this attempt is already deleted, because the container fails fast.
                    self._attempt = newer[0]
                    continue
            data = os.read(self._files[0], CHUNK)
            if data:
                out = self._joiner.feed(data)
                if out:
                    return self._limited(out)
            elif len(self._files) > 1:
                os.close(self._files.pop(0))
            else:
                ended = self._advance()
                if ended is None:
                    return b""
                if ended:
                    return self._limited(ended)
        return b""

    def _newer(self) -> list[int]:
        return [n for n in attempts(self._directory) if n > self._attempt]

    def finish(self) -> bytes:
        """Return the last line of an ended container, if it has no newline."""
        left = b"" if self.done else self._joiner.finish()
        self._mid_line = self._mid_line or bool(left)
        return self._limited(left)

    def _advance(self) -> bytes | None:
        """At the end of the newest known file, queue its successor. Return output, or None if there is no successor.

        The old file may have grown before the successor was found. It stays first in the list, so `read_some` reads it
        to its end once more.
        """
        successor = _successor(self._path, self._files[0])
        if successor is not None:
            self._files.append(successor)
            return b""
        if not self._query.follow:
            return None
        newer = self._newer()
        if not newer:
            return None
        if data := os.read(self._files[0], CHUNK):
            return self._joiner.feed(data)
        left = self._joiner.finish()
        if left or self._mid_line:
            left += b"\n"
        self._mid_line = False
        self._attempt = newer[0]
        self._files.extend(_open_all(self._path))
        os.close(self._files.pop(0))
        return left

    def _limited(self, out: bytes) -> bytes:
        if self._left is None:
            return out
        out = out[: self._left]
        self._left -= len(out)
        return out


def _open(path: str) -> int | None:
    """Open a log file. Return None if it is missing or not a regular file: a pod that mounts /var/log can create a
    link or a pipe there."""
    try:
        with directory_of(path) as directory:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(os.path.basename(path), flags, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _open_all(path: str) -> list[int]:
    """Open the log and its rotated files and return them, oldest first. The current file is opened first. If it is
    rotated at that moment, the list of rotated files contains it, too; its inode identifies it."""
    current = _open(path)
    found: list[int] = []
    inode = os.fstat(current).st_ino if current is not None else -1
    for name in rotated(path):
        fd = _open(name)
        if fd is not None and os.fstat(fd).st_ino == inode:
            os.close(fd)
            break
        if fd is not None:
            found.append(fd)
    return found if current is None else [*found, current]


def _successor(path: str, fd: int) -> int | None:
    """Open the file that follows `fd` after a rotation. Return None while `fd` is the newest file."""
    inode = os.fstat(fd).st_ino
    try:
        if os.stat(path).st_ino == inode:
            return None
    except FileNotFoundError:
        return None  # between the rename and the new file
    names = [*rotated(path), path]
    inodes = [_inode(name) for name in names]
    # If the file was pruned, all remaining files are newer.
    after = inodes.index(inode) + 1 if inode in inodes else 0
    for name in names[after:]:
        if (opened := _open(name)) is not None:
            return opened
    return None


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return -1


def _seek_tail(files: list[int], wanted: int) -> list[int]:
    """Seek to the last `wanted` lines. Close the files before them, and return the others."""
    for index in range(len(files) - 1, -1, -1):
        offset, found = tail_start(files[index], wanted)
        if found >= wanted or index == 0:
            os.lseek(files[index], offset, os.SEEK_SET)
            for fd in files[:index]:
                os.close(fd)
            return files[index:]
        wanted -= found
    return files


def tail_start(fd: int, wanted: int) -> tuple[int, int]:
    """Return the offset of the last `wanted` lines and the number of lines found. If the file has fewer lines, the
    offset is 0.

    Partial entries (tag P) belong to the same line as the next full entry (tag F). Partial entries at the end of the
    file count as one line.
    """
    position = os.fstat(fd).st_size
    data, found, last = b"", 0, True
    while position > 0:
        step = min(CHUNK, position)
        position -= step
        data = os.pread(fd, step, position) + data
        cut = data.find(b"\n") + 1 if position else 0
        if position and not cut:
            continue
        offset = len(data)
        lines = data[cut:].split(b"\n")
        for line in reversed(lines[:-1]):
            full = line.split(b" ", 3)[2:3] != [b"P"]
            if full and found == wanted:
                return position + offset, found
            found += full or last
            last = False
            offset -= len(line) + 1
        data = data[:cut]
    return 0, found
