"""A container's log file: CRI lines out of what its pipes say, rotation by size, and life with a full disk.

Format (CRI, as containerd writes it): `<RFC3339Nano> <stdout|stderr> <P|F> <text>\\n`. A text longer than `LINE_MAX`
bytes is cut: leading parts carry P, the last one F; a text that ends without a newline at end of file is P; CR LF
loses its CR. Two classes: `LineSplitter` (pure: bytes in, CRI lines out; one per stream) and `LogFile` (the file;
one per container, shared by both streams).

Rotation renames the file to `<path>.YYYYMMDD-HHMMSS` (a second one within the same second gets `-0001`, … appended,
so that plain string order is oldest first) and opens a new one; never inside a line. Rotated files stay plain: log
shippers that follow inodes lose nothing.

A log that cannot be written never holds up the container: its lines are dropped and counted, and the first write that
works again is preceded by one line saying how many were lost and why.
"""

from __future__ import annotations

import errno
import os
import stat
import time

LINE_MAX = 16 * 1024  # bytes of text in one CRI line (containerd's max_container_log_line_size)
RETRY_SECONDS = 1.0  # between attempts to rotate, or to reopen a log that could not be opened

_CR = 0x0D


def rfc3339nano(when_ns: int) -> str:
    """`when_ns` (Unix time in nanoseconds) as 2026-11-24T14:33:01.123456789Z."""
    seconds, nanos = divmod(when_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanos:09d}Z"


class LineSplitter:
    """Turns the bytes of one stream into CRI lines. Holds back at most LINE_MAX + 1 bytes of an unfinished line."""

    __slots__ = ("_pending", "_stream")

    def __init__(self, stream: str) -> None:
        self._stream = stream.encode()
        self._pending = b""

    def feed(self, data: bytes, now_ns: int) -> bytes:
        """The complete CRI lines that `data` finishes; all carry the time the data was read."""
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
        """End of file: what never got its newline, as a partial line."""
        pending, self._pending = self._pending, b""
        prefix = self._prefix(now_ns)
        parts = [pending[at : at + LINE_MAX] for at in range(0, len(pending), LINE_MAX)]
        return b"".join(b"%s P %s\n" % (prefix, part) for part in parts)

    def _prefix(self, now_ns: int) -> bytes:
        return b"%s %s" % (rfc3339nano(now_ns).encode(), self._stream)

    def _lines(self, text: bytes, prefix: bytes) -> bytes:
        """`text` is complete lines without the last newline. One C-speed replace when no line is too long."""
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
        """Let go of full leading parts. A CR right behind a full part may still turn out to belong to a CR LF."""
        out, pending = [], self._pending
        while len(pending) > LINE_MAX + 1 or (len(pending) == LINE_MAX + 1 and pending[-1] != _CR):
            out.append(b"%s P %s\n" % (prefix, pending[:LINE_MAX]))
            pending = pending[LINE_MAX:]
        self._pending = pending
        return b"".join(out)


class LogFile:
    """The log of one container instance. `write` takes whole CRI lines and never raises OSError."""

    def __init__(self, path: str, *, max_bytes: int, max_files: int) -> None:
        """Raises OSError when the file cannot be opened now (its directory is made if missing)."""
        self.path = path
        self.lost_lines = 0  # since the last marker
        self.lost_bytes = 0
        self._max_bytes = max_bytes
        self._max_files = max(max_files, 1)
        self._fd = -1
        self._size = 0
        self._retry_at = 0.0
        self._lost_why = ""
        self._torn = False  # the file ends in the middle of a line
        self._last_stamp = ("", 0)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        self._open()

    def _open(self) -> None:
        # A pod with /var/log in its hands may put a link there, or a pipe: neither is written to, or waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self.path, flags, 0o640)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):  # a pipe that somebody reads, say
            os.close(fd)
            raise OSError(errno.ENXIO, "it is no regular file", self.path)
        self._fd, self._size = fd, found.st_size

    def close(self) -> None:
        """Says what was lost, if the disk lets it, and closes. Fine twice; later writes are lost."""
        if self._usable() and self.lost_lines:
            self._write_marker()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._retry_at = float("inf")

    def write(self, lines: bytes) -> None:
        """Append whole lines, rotating between lines so that no file grows past max_bytes (a longer line aside)."""
        if not lines:
            return
        if not self._usable() or (self.lost_lines and not self._write_marker()):
            self._lose(lines)
            return
        while lines:
            block = self._fitting(lines)
            if not block and self.rotate():
                continue
            block = block or lines  # cannot rotate now: better a file too big than a line lost
            written = self._append(block)
            self._lose(block[written:])
            lines = lines[len(block) :]
            if written < len(block):
                self._lose(lines)
                return

    def _fitting(self, lines: bytes) -> bytes:
        """The leading lines that still fit; b"" = rotate first."""
        if self._max_bytes <= 0 or self._size + len(lines) <= self._max_bytes:
            return lines
        end = lines.rfind(b"\n", 0, max(self._max_bytes - self._size, 0)) + 1
        if not end and not self._size:
            end = lines.find(b"\n") + 1  # one line longer than a whole file may be
        return lines[:end]

    def _append(self, block: bytes) -> int:
        """Returns how many bytes of whole lines are in the file now; a torn last line is cut off again."""
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
            self._torn = True  # an append-only file (chattr +a): the marker will end the torn line

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
        """Whether a file is open; a failed open (after a rotation) is tried again, not more than once a second."""
        if self._fd >= 0:
            return True
        if time.monotonic() < self._retry_at:
            return False
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
            self._open()
        except OSError as error:
            self._lost_why = error.strerror or str(error)
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False
        return True

    def rotate(self, *, force: bool = False) -> bool:
        """Rename the file away and open a new one. False: not now (the old file goes on); tried again in a second."""
        if not force and time.monotonic() < self._retry_at:
            return False
        try:
            os.rename(self.path, self._rotated_name())
        except FileNotFoundError:
            pass  # somebody moved it away: just open a new one
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
        """Unused, and later in string order than every rotated file before it, even if the clock was set back."""
        if not self._last_stamp[0]:
            newest = self.rotated()[-1:]
            self._last_stamp = _parse_stamp(newest[0][len(self.path) + 1 :]) if newest else ("", 0)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime())
        last, sequence = self._last_stamp
        self._last_stamp = (stamp, 0) if stamp > last else (last, sequence + 1)
        stamp, sequence = self._last_stamp
        return f"{self.path}.{stamp}-{sequence:04d}" if sequence else f"{self.path}.{stamp}"

    def rotated(self) -> list[str]:
        """Paths of the rotated files, oldest first."""
        directory, name = os.path.split(self.path)
        try:
            names = os.listdir(directory)
        except OSError:
            return []
        found = [n for n in names if n.startswith(name + ".") and _parse_stamp(n[len(name) + 1 :])[0]]
        return [os.path.join(directory, n) for n in sorted(found)]

    def _prune(self) -> None:
        rotated = self.rotated()
        for path in rotated[: max(len(rotated) - (self._max_files - 1), 0)]:
            try:
                os.unlink(path)
            except OSError:
                return  # the next rotation tries again


def _parse_stamp(suffix: str) -> tuple[str, int]:
    """("YYYYMMDD-HHMMSS", sequence) of a rotated file's suffix; ("", 0) when it is not one of ours."""
    stamp, sequence = suffix[:15], suffix[15:]
    date, dash, clock = stamp.partition("-")
    if not (dash and len(date) == 8 and date.isdigit() and len(clock) == 6 and clock.isdigit()):
        return ("", 0)
    if not sequence:
        return (stamp, 0)
    if sequence[0] != "-" or not sequence[1:].isdigit():
        return ("", 0)
    return (stamp, int(sequence[1:]))
