"""The CRI log writer: format, splitting of long lines, rotation without loss, and a temporarily full disk."""

from __future__ import annotations

import errno
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.shim.logs import LINE_MAX, LineSplitter, LogFile, rfc3339nano

NOW = 1_795_530_781_000_000_123
LINE = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([PF]) (.*)$", re.DOTALL)


def parse(out: bytes) -> list[tuple[bytes, bytes]]:
    """(tag, text) of every line. Fails on a malformed line."""
    assert out == b"" or out.endswith(b"\n")
    found = []
    for line in out.split(b"\n")[:-1]:
        match = LINE.match(line)
        assert match, line[:100]
        found.append((match[3], match[4]))
    return found


def feed_all(chunks: list[bytes]) -> list[tuple[bytes, bytes]]:
    splitter = LineSplitter("stdout")
    return parse(b"".join([splitter.feed(c, NOW) for c in chunks]) + splitter.finish(NOW))


def reference(text: bytes) -> list[tuple[bytes, bytes]]:
    """The result of containerd's redirectLogs for `text`, in a slow and obvious implementation."""
    found = []
    *whole, rest = text.split(b"\n")
    for raw in whole:
        line = raw.removesuffix(b"\r")
        while len(line) > LINE_MAX:
            part, line = line[:LINE_MAX], line[LINE_MAX:]
            found.append((b"P", part))
        found.append((b"F", line))
    while len(rest) > LINE_MAX:
        found.append((b"P", rest[:LINE_MAX]))
        rest = rest[LINE_MAX:]
    if rest:
        found.append((b"P", rest))
    return found


def test_timestamp_is_rfc3339_with_nanoseconds() -> None:
    assert rfc3339nano(NOW) == "2026-11-24T14:33:01.000000123Z"


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"a\n"], [(b"F", b"a")]),
        ([b"a\nb\n"], [(b"F", b"a"), (b"F", b"b")]),
        ([b"\n\n"], [(b"F", b""), (b"F", b"")]),
        ([b"a", b"b\n"], [(b"F", b"ab")]),
        ([b"tail"], [(b"P", b"tail")]),
        ([b"dos\r\nunix\n"], [(b"F", b"dos"), (b"F", b"unix")]),
        ([b"dos\r", b"\n"], [(b"F", b"dos")]),
        ([b"50%\r100%\n"], [(b"F", b"50%\r100%")]),
        ([b"x\r\r\n"], [(b"F", b"x\r")]),
        ([b"x" * LINE_MAX + b"\n"], [(b"F", b"x" * LINE_MAX)]),
        ([b"x" * LINE_MAX, b"\n"], [(b"F", b"x" * LINE_MAX)]),
        ([b"x" * LINE_MAX + b"\r", b"\n"], [(b"F", b"x" * LINE_MAX)]),
        ([b"x" * LINE_MAX + b"y\n"], [(b"P", b"x" * LINE_MAX), (b"F", b"y")]),
        ([b"x" * LINE_MAX + b"y"], [(b"P", b"x" * LINE_MAX), (b"P", b"y")]),
        ([b"a\0b\xff\n"], [(b"F", b"a\0b\xff")]),
    ],
)
def test_lines(chunks: list[bytes], lines: list[tuple[bytes, bytes]]) -> None:
    assert feed_all(chunks) == lines


PIECES = st.tuples(
    st.sampled_from([b"\n", b"\r\n", b"\r", b"x", b"ab"]),
    st.sampled_from([1, 2, 3, LINE_MAX - 1, LINE_MAX, LINE_MAX + 1, 40_000]),
)


@given(st.lists(PIECES, max_size=8), st.lists(st.floats(0, 1), max_size=6))
def test_any_cut_of_the_stream_gives_the_same_lines(
    pieces: list[tuple[bytes, int]], cuts: list[float]
) -> None:
    text = b"".join(unit * min(count, 3 if unit.endswith(b"\n") else count) for unit, count in pieces)
    places = sorted(int(cut * len(text)) for cut in cuts)
    chunks = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    same = feed_all(chunks) == reference(text)
    assert same, "the cut changes the lines"


def test_memory_for_an_endless_line_is_limited() -> None:
    splitter = LineSplitter("stderr")
    out = b"".join(splitter.feed(b"x" * 32_768, NOW) for _ in range(64))
    assert len(parse(out)) >= 64 * 2 - 1
    assert len(splitter._pending) <= LINE_MAX + 1


def numbered(first: int, count: int) -> bytes:
    return b"".join(
        b"%s stdout F line %06d\n" % (rfc3339nano(NOW).encode(), n) for n in range(first, first + count)
    )


def everything(log: LogFile) -> bytes:
    return b"".join(Path(p).read_bytes() for p in [*log.rotated(), log.path])


def test_rotation_neither_loses_nor_duplicates_nor_cuts_a_line(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "ctr" / "0.log"), max_bytes=2_000, max_files=1_000)
    for start in range(0, 1_000, 50):
        log.write(numbered(start, 50))
    log.close()
    assert everything(log) == numbered(0, 1_000)  # also: rotated() is oldest first, many in one second
    files = [Path(log.path), *map(Path, log.rotated())]
    assert len(files) > 20
    assert all(f.stat().st_size <= 2_000 and f.read_bytes().endswith(b"\n") for f in files)


def test_only_the_newest_files_are_retained(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "0.log"), max_bytes=1_000, max_files=3)
    log.write(numbered(0, 500))
    log.close()
    assert len(log.rotated()) == 2
    assert numbered(0, 500).endswith(everything(log))


def test_rotated_names_are_the_cri_ones_and_foreign_files_stay(tmp_path: Path) -> None:
    (tmp_path / "0.log.gz-notes").write_text("mine")
    log = LogFile(str(tmp_path / "0.log"), max_bytes=1_000, max_files=2)
    log.write(numbered(0, 100))
    log.close()
    assert (tmp_path / "0.log.gz-notes").read_text() == "mine"
    (name,) = log.rotated()
    assert re.fullmatch(r".*/0\.log\.\d{8}-\d{6}(-\d{4})?", name)


def test_a_clock_that_goes_back_keeps_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = iter(["20261124-143301", "20261124-133301", "20261124-143301", "20261124-143302"])
    log = LogFile(str(tmp_path / "0.log"), max_bytes=0, max_files=10)
    monkeypatch.setattr(time, "strftime", lambda *_: next(stamps))
    for n in range(4):
        log.write(b"%d\n" % n)
        assert log.rotate(force=True)
    log.write(b"4\n")
    assert everything(log) == b"0\n1\n2\n3\n4\n"
    log.close()


def test_an_existing_log_is_continued(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_bytes(numbered(0, 3))
    log = LogFile(str(tmp_path / "0.log"), max_bytes=100_000, max_files=2)
    log.write(numbered(3, 1))
    log.close()
    assert (tmp_path / "0.log").read_bytes() == numbered(0, 4)


def test_rotate_recreates_a_moved_log(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "0.log"), max_bytes=0, max_files=2)
    os.rename(log.path, tmp_path / "taken")
    log.write(b"a\n")
    assert log.rotate(force=True)
    log.write(b"b\n")
    log.close()
    assert ((tmp_path / "taken").read_bytes(), (tmp_path / "0.log").read_bytes()) == (b"a\n", b"b\n")


class FullDisk:
    """os.write on a disk with `room` free bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._write = os.write

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = self._write(fd, data[: self.room])
        self.room -= done
        return done


def test_a_full_disk_drops_whole_lines_and_reports_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogFile(str(tmp_path / "0.log"), max_bytes=0, max_files=2)
    disk = FullDisk(len(numbered(0, 2)) + 7)  # two lines and a torn one
    monkeypatch.setattr(os, "write", disk)
    log.write(numbered(0, 5))
    log.write(numbered(5, 5))
    assert (tmp_path / "0.log").read_bytes() == numbered(0, 2)
    assert log.lost_lines == 8
    disk.room = 10**6
    log.write(numbered(10, 1))
    log.close()
    lines = parse((tmp_path / "0.log").read_bytes())
    assert lines[2][1].startswith(b"[kubelite: 8 log lines (")
    assert lines[2][1].endswith(b"were lost here: No space left on device]")
    assert [text for _, text in lines[3:]] == [b"line 000010"]
    assert log.lost_lines == 0


def test_losses_are_reported_at_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogFile(str(tmp_path / "0.log"), max_bytes=0, max_files=2)
    disk = FullDisk(0)
    monkeypatch.setattr(os, "write", disk)
    log.write(numbered(0, 3))
    disk.room = 1_000
    log.close()
    assert b"3 log lines" in (tmp_path / "0.log").read_bytes()


def test_a_rename_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogFile(str(tmp_path / "0.log"), max_bytes=500, max_files=2)

    def refuse(*_: str, **__: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        log.write(numbered(0, 50))
    assert everything(log) == numbered(0, 50)
    log._retry_at = 0.0
    log.write(numbered(50, 1))
    log.close()
    assert everything(log) == numbered(0, 51)
    assert len(log.rotated()) == 1


def test_a_log_that_cannot_be_reopened_counts_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogFile(str(tmp_path / "0.log"), max_bytes=0, max_files=2)

    kernel = os.open

    def refuse(path: str, *args: Any, **options: Any) -> int:
        if path == "0.log":
            raise OSError(errno.EMFILE, "Too many open files")
        return kernel(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert not log.rotate(force=True)
        log.write(numbered(0, 4))
    log._retry_at = 0.0
    log.write(numbered(4, 1))
    log.close()
    text = (tmp_path / "0.log").read_bytes()
    assert b"4 log lines" in text and b"Too many open files" in text and text.endswith(numbered(4, 1))


def test_a_fifo_in_place_of_the_log_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    before = len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(OSError, match="not a regular file"):
            LogFile(str(path), max_bytes=0, max_files=1)
        assert len(os.listdir("/proc/self/fd")) == before, "and is not kept open"
    finally:
        os.close(reader)
