"""A container's log file: convert its output to CRI lines, rotate by size, and survive a full disk.

The format is CRI's, as containerd writes it: `<RFC3339Nano> <stdout|stderr> <P|F> <text>\\n`. A text longer than
`LINE_MAX` bytes is split: the leading parts are marked P, the last one F. A text without a newline at end of file is P.
CR LF becomes LF. There are two classes: `LineSplitter` (pure: bytes in, CRI lines out; one per stream) and `LogFile`
(the file; one per container, shared by both streams).

Rotation renames the file to `<path>.YYYYMMDD-HHMMSS` and opens a new one, never inside a line. Further rotations within
the same second get `-0001`, … appended, so that string order is oldest first. Rotated files are not compressed, so log
shippers that follow inodes lose nothing.

A log that cannot be written never blocks the container. Its lines are dropped and counted, and the next successful
write is preceded by a line that says how many were lost and why.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress

from runtime.tree import directory_of

LINE_MAX = 16 * 1024  # bytes of text in one CRI line (containerd's max_container_log_line_size)
RETRY_SECONDS = 1.0  # between attempts to rotate, or to reopen a log that could not be opened

_CR = 0x0D


def rfc3339nano(when_ns: int) -> str:
    """`when_ns` (Unix time in nanoseconds) as 2026-11-24T14:33:01.123456789Z."""
    seconds, nanos = divmod(when_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanos:09d}Z"


class LineSplitter:
    """Converts the bytes of one stream to CRI lines. Buffers at most LINE_MAX + 1 bytes of an unfinished line."""

    __slots__ = ("_pending", "_stream")

    def __init__(self, stream: str) -> None:
        self._stream = stream.encode()
        self._pending = b""

    def feed(self, data: bytes, now_ns: int) -> bytes:
        """The CRI lines that `data` completes. All get the time `now_ns`, when the data was read."""
        prefix = self._prefix(now_ns)
        whole, newline, rest = data.rpartition(b"\n")
        out = b""
        if newline:
            out = self._lines(self._pending + whole, prefix)
            self._pending = rest
        else:
            self._pending += data
        if len(self._pending) > LINE_MAX:
            out += self._cut_pending(prefix)
        return out

    def finish(self, now_ns: int) -> bytes:
        """At end of file: the text without a newline, as a partial line."""
        pending, self._pending = self._pending, b""
        prefix = self._prefix(now_ns)
        parts = [pending[at : at + LINE_MAX] for at in range(0, len(pending), LINE_MAX)]
        return b"".join(b"%s P %s\n" % (prefix, part) for part in parts)

    def _prefix(self, now_ns: int) -> bytes:
        return b"%s %s" % (rfc3339nano(now_ns).encode(), self._stream)

    def _lines(self, text: bytes, prefix: bytes) -> bytes:
        """`text` is complete lines without the last newline. If no line is too long, this is a single fast replace."""
        if b"\r" in text:
            text = (text + b"\n").replace(b"\r\n", b"\n")[:-1]
        full = b"%s F " % prefix
        if len(text) > LINE_MAX and any(len(line) > LINE_MAX for line in text.split(b"\n")):
            return b"".join(self._cut_line(line, prefix) for line in text.split(b"\n"))
        return b"%s%s\n" % (full, text.replace(b"\n", b"\n" + full))

    @staticmethod
    def _cut_line(line: bytes, prefix: bytes) -> bytes:
        parts = [line[at : at + LINE_MAX] for at in range(0, len(line), LINE_MAX)] or [b""]
        leading = b"".join(b"%s P %s\n" % (prefix, part) for part in parts[:-1])
        return b"%s%s F %s\n" % (leading, prefix, parts[-1])

    def _cut_pending(self, prefix: bytes) -> bytes:
        """Emit full leading parts. A CR just after a full part may belong to a CR LF, so it is kept."""
        out, pending = [], self._pending
        while len(pending) > LINE_MAX + 1 or (len(pending) == LINE_MAX + 1 and pending[-1] != _CR):
            out.append(b"%s P %s\n" % (prefix, pending[:LINE_MAX]))
            pending = pending[LINE_MAX:]
        self._pending = pending
        return b"".join(out)


class LogFile:
    """The log file of a container instance. `write` takes whole CRI lines and never raises OSError."""

    def __init__(self, path: str, *, max_bytes: int, max_files: int) -> None:
        """Open the file and create its directory if missing. Raises OSError."""
        self.path = path
        self.lost_lines = 0  # since the last marker line
        self.lost_bytes = 0
        self._max_bytes = max_bytes
        self._max_files = max(max_files, 1)
        self._fd = -1
        self._size = 0
        self._retry_at = 0.0
        self._lost_why = ""
        self._torn = False  # the file ends inside a line
        self._last_stamp = ("", 0)
        self._open()

    def _open(self) -> None:
        # A pod that can write to /var/log may put a link or a pipe there. Never follow it, write to it or wait for it.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with directory_of(self.path, create=True) as directory:
            fd = os.open(os.path.basename(self.path), flags, 0o640, dir_fd=directory)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):  # for example a pipe with a reader
            os.close(fd)
            raise OSError(errno.ENXIO, "not a regular file", self.path)
        self._fd, self._size = fd, found.st_size

    def close(self) -> None:
        """Write how many lines were lost, if possible, and close. Idempotent. Later writes are lost."""
        if self._usable() and self.lost_lines:
            self._write_marker()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._retry_at = float("inf")

    def write(self, lines: bytes) -> None:
        """Append whole lines, and rotate between lines so that no file exceeds max_bytes, unless a single line is
        longer."""
        if not lines:
            return
        if not self._usable() or (self.lost_lines and not self._write_marker()):
            self._lose(lines)
            return
        while lines:
            block = self._fitting(lines)
            if not block and self.rotate():
                continue
            block = block or lines  # cannot rotate now: exceed the limit rather than lose a line
            written = self._append(block)
            self._lose(block[written:])
            lines = lines[len(block) :]
            if written < len(block):
                self._lose(lines)
                return

    def _fitting(self, lines: bytes) -> bytes:
        """The leading lines that still fit; b"" to rotate first."""
        if self._max_bytes <= 0 or self._size + len(lines) <= self._max_bytes:
            return lines
        end = lines.rfind(b"\n", 0, max(self._max_bytes - self._size, 0)) + 1
        if not end and not self._size:
            end = lines.find(b"\n") + 1  # a line longer than the limit for a whole file
        return lines[:end]

    def _append(self, block: bytes) -> int:
        """Write the block; returns how many bytes of whole lines were written. A partially written line is removed
        again."""
        done = 0
        if self._fd < 0:
            return 0
        try:
            while done < len(block):
                done += os.write(self._fd, block[done:] if done else block)
        except OSError as error:
            self._lost_why = error.strerror or str(error)
            whole = block.rfind(b"\n", 0, done) + 1
            if whole < done:
                self._cut_back(self._size + whole)
            self._size += whole
            return whole
        self._size += done
        return done

    def _cut_back(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError:
            self._torn = True  # an append-only file (chattr +a): the marker terminates the partial line

    def _write_marker(self) -> bool:
        marker = (
            ("\n" if self._torn else "")
            + f"{rfc3339nano(time.time_ns())} stderr F [kubelite: {self.lost_lines} log lines ({self.lost_bytes} bytes)"
            f" were lost here: {self._lost_why}]\n"
        ).encode()
        if self._append(marker) < len(marker):
            return False
        self._torn = False
        self.lost_lines = self.lost_bytes = 0
        return True

    def _lose(self, lines: bytes) -> None:
        count = lines.count(b"\n")
        self.lost_lines += count
        self.lost_bytes += len(lines)

    def _usable(self) -> bool:
        """Whether a file is open. If opening it failed after a rotation, retry at most once per second."""
        if self._fd >= 0:
            return True
        if time.monotonic() < self._retry_at:
            return False
        try:
            self._open()
        except OSError as error:
            self._lost_why = error.strerror or str(error)
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False
        return True

    def rotate(self, *, force: bool = False) -> bool:
        """Rename the file and open a new one. False if that fails now: the old file stays in use, and the next attempt
        is in a second."""
        if not force and time.monotonic() < self._retry_at:
            return False
        try:
            new = os.path.basename(self._rotated_name())
            with directory_of(self.path) as directory:
                os.rename(os.path.basename(self.path), new, src_dir_fd=directory, dst_dir_fd=directory)
        except FileNotFoundError:
            pass  # another process has moved it: just open a new one
        except OSError:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False
        old, self._fd = self._fd, -1
        if old >= 0:
            os.close(old)
        self._prune()
        self._retry_at = 0.0
        return self._usable()

    def _rotated_name(self) -> str:
        """A new name that sorts after those of all earlier rotated files, even if the clock was set back."""
        if not self._last_stamp[0]:
            newest = self.rotated()[-1:]
            self._last_stamp = _parse_stamp(newest[0][len(self.path) + 1 :]) if newest else ("", 0)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime())
        last, sequence = self._last_stamp
        self._last_stamp = (stamp, 0) if stamp > last else (last, sequence + 1)
        stamp, sequence = self._last_stamp
        return f"{self.path}.{stamp}-{sequence:04d}" if sequence else f"{self.path}.{stamp}"

    def rotated(self) -> list[str]:
        """The paths of the rotated files, oldest first."""
        directory, name = os.path.split(self.path)
        try:
            with directory_of(self.path) as fd:
                names = os.listdir(fd)
        except OSError:
            return []
        found = [n for n in names if n.startswith(name + ".") and _parse_stamp(n[len(name) + 1 :])[0]]
        return [os.path.join(directory, n) for n in sorted(found)]

    def _prune(self) -> None:
        rotated = self.rotated()
        try:
            with directory_of(self.path) as directory:
                for path in rotated[: max(len(rotated) - (self._max_files - 1), 0)]:
                    os.unlink(os.path.basename(path), dir_fd=directory)
        except OSError:
            return  # the next rotation retries


def unlink(path: str) -> None:
    """Remove a log; do nothing if that is impossible."""
    with suppress(OSError), directory_of(path) as directory:
        os.unlink(os.path.basename(path), dir_fd=directory)


def _parse_stamp(suffix: str) -> tuple[str, int]:
    """("YYYYMMDD-HHMMSS", sequence) from a rotated file's suffix; ("", 0) if it is not such a suffix."""
    stamp, sequence = suffix[:15], suffix[15:]
    date, dash, clock = stamp.partition("-")
    if not (dash and len(date) == 8 and date.isdigit() and len(clock) == 6 and clock.isdigit()):
        return ("", 0)
    if not sequence:
        return (stamp, 0)
    if sequence[0] != "-" or not sequence[1:].isdigit():
        return ("", 0)
    return (stamp, int(sequence[1:]))
