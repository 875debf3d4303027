"""Computes every disk that a power cut may leave, from a record of all writes (tap.c).

POSIX guarantees only what fsync(2) has returned for. Of the rest, any part may be on the disk: bytes of a file without
the bytes before them, half of a write, a name without its content, a removal without an earlier creation. `Disk`
distinguishes certain and pending changes; `Disk.crash` draws one of the possible outcomes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.e2e.node import REPO

_ENTRY = struct.Struct("=I12sQQQqII")  # struct entry of tap.c
_SECTOR = 512  # bytes that a disk writes atomically


class Loss(StrEnum):
    """What happens to pending changes."""

    ALL = "all of it is lost"
    NOTHING = "nothing is lost"
    DATA = "names are there, data is not"
    NAMES = "data is there, names are not"
    ANY = "any part of it"
    TAIL = "names up to some moment, any part of the data"


@dataclass(frozen=True, slots=True)
class Entry:
    """A system call, or a mark of the recorded program."""

    kind: str
    inode: int
    directory: int
    other: int
    offset: int
    first: bytes
    second: bytes

    @property
    def mark(self) -> Any:
        return json.loads(self.first)


@dataclass(frozen=True, slots=True)
class _Data:
    offset: int
    content: bytes | None  # None: the file ends at `offset`


@dataclass(slots=True)
class _File:
    mode: int
    target: str = ""  # of a symbolic link
    content: bytearray = field(default_factory=bytearray)  # certain
    pending: list[_Data] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Name:
    """An atomic change of names: (directory, name) → file, None = removed."""

    changes: tuple[tuple[int, str, int | None], ...]


class Disk:
    """The directory `root`: initially empty, then changed by the record."""

    def __init__(self, root: Path) -> None:
        self._root = -1
        self._files: dict[int, _File] = {-1: _File(stat.S_IFDIR | 0o755)}
        self._current: dict[int, int] = {root.stat().st_ino: -1}  # inode → which of the files with this inode
        self._names: dict[int, dict[str, int]] = {}  # certain
        self._pending: list[_Name] = []
        self._links: dict[int, int] = {-1: 1}
        self._next = 0

    def apply(self, entry: Entry) -> None:
        getattr(self, f"_{entry.kind}")(entry)

    def _file(self, inode: int) -> _File:
        return self._files[self._current[inode]]

    def _write(self, entry: Entry) -> None:
        self._file(entry.inode).pending.append(_Data(entry.offset, entry.first))

    def _truncate(self, entry: Entry) -> None:
        self._file(entry.inode).pending.append(_Data(entry.offset, None))

    def _sync(self, entry: Entry) -> None:
        number = self._current[entry.inode]
        file = self._files[number]
        for data in file.pending:
            _put(file.content, data)
        file.pending.clear()
        if stat.S_ISDIR(file.mode):
            mine = [n for n in self._pending if any(change[0] == number for change in n.changes)]
            self._pending = [n for n in self._pending if n not in mine]
            for name in mine:
                _rename(self._names, name)

    def _syncfs(self, _entry: Entry) -> None:
        for name in self._pending:
            _rename(self._names, name)
        self._pending.clear()
        for file in self._files.values():
            for data in file.pending:
                _put(file.content, data)
            file.pending.clear()

    def _link(self, entry: Entry) -> None:
        number = self._current.get(entry.inode)
        if (
            number is None or self._links[number] == 0
        ):  # a new file, whose inode number may have been used before
            number = self._current[entry.inode] = self._next
            self._next += 1
            self._files[number] = _File(entry.offset, os.fsdecode(entry.second))
            self._links[number] = 0
        self._links[number] += 1
        self._change((self._current[entry.directory], os.fsdecode(entry.first), number))

    def _unlink(self, entry: Entry) -> None:
        self._links[self._current[entry.inode]] -= 1
        self._change((self._current[entry.directory], os.fsdecode(entry.first), None))

    def _rename(self, entry: Entry) -> None:
        number = self._current[entry.inode]
        source = (self._current[entry.directory], os.fsdecode(entry.first))
        target = (self._current[entry.other], os.fsdecode(entry.second))
        replaced = self._tree(self._pending).get(target[0], {}).get(target[1])
        if replaced is not None and replaced != number:
            self._links[replaced] -= 1
        self._change((*source, None), (*target, number))

    def _change(self, *changes: tuple[int, str, int | None]) -> None:
        self._pending.append(_Name(changes))

    def _tree(self, pending: list[_Name]) -> dict[int, dict[str, int]]:
        tree = {number: dict(names) for number, names in self._names.items()}
        for name in pending:
            _rename(tree, name)
        return tree

    # -- the outcomes -------------------------------------------------------------------------------------------

    def crash(self, loss: Loss, rng: random.Random, into: Path) -> None:
        """Write what remains into the directory `into`, which is recreated."""
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        kept = self._pending
        if loss in (Loss.ALL, Loss.NAMES):
            kept = []
        elif loss is Loss.ANY:
            kept = [name for name in kept if rng.random() < 0.5]
        elif loss is Loss.TAIL:
            kept = kept[: rng.randint(0, len(kept))]
        self._lay(self._root, into, _Layout(self._tree(kept), loss, rng))

    def _lay(self, directory: int, into: Path, layout: _Layout) -> None:
        for name, number in sorted(layout.tree.get(directory, {}).items()):
            file, path = self._files[number], into / name
            if stat.S_ISDIR(file.mode):
                path.mkdir(stat.S_IMODE(file.mode) | 0o700)
                self._lay(number, path, layout)
            elif stat.S_ISLNK(file.mode):
                path.symlink_to(file.target)
            elif number in layout.laid:
                path.hardlink_to(layout.laid[number])
            else:
                layout.laid[number] = path
                path.write_bytes(_content(file, layout.loss, layout.rng))


@dataclass(slots=True)
class _Layout:
    """Writes one outcome."""

    tree: dict[int, dict[str, int]]
    loss: Loss
    rng: random.Random
    laid: dict[int, Path] = field(default_factory=dict)


def _put(content: bytearray, data: _Data) -> None:
    if data.content is None:
        content[data.offset :] = bytes(max(0, data.offset - len(content)))
        return
    if len(content) < data.offset:
        content.extend(bytes(data.offset - len(content)))
    content[data.offset : data.offset + len(data.content)] = data.content


def _content(file: _File, loss: Loss, rng: random.Random) -> bytes | bytearray:
    if not file.pending or loss in (Loss.ALL, Loss.DATA):
        return file.content
    found = bytearray(file.content)
    for data in file.pending:
        if loss in (Loss.NOTHING, Loss.NAMES):
            _put(found, data)
        elif data.content is None or len(data.content) <= _SECTOR:
            if rng.random() < 0.5:
                _put(found, data)
        else:
            for part in _torn(data, data.content, rng):
                _put(found, part)
    return found


def _torn(data: _Data, content: bytes, rng: random.Random) -> Iterator[_Data]:
    """All, nothing, or some consecutive sectors of a write."""
    first, last = sorted(rng.choices(range(0, len(content) + _SECTOR, _SECTOR), k=2))
    if rng.random() < 0.3:
        first, last = 0, len(content)
    if first < last:
        yield _Data(data.offset + first, content[first:last])


def _rename(tree: dict[int, dict[str, int]], name: _Name) -> None:
    for directory, text, number in name.changes:
        if number is None:
            tree.setdefault(directory, {}).pop(text, None)
        else:
            tree.setdefault(directory, {})[text] = number


# -- the record ---------------------------------------------------------------------------------------------------


def entries(record: Path) -> Iterator[Entry]:
    data, at = record.read_bytes(), 0
    while at < len(data):
        size, kind, inode, directory, other, offset, first, second = _ENTRY.unpack_from(data, at)
        start = at + _ENTRY.size
        yield Entry(
            kind.rstrip(b"\0").decode(),
            inode,
            directory,
            other,
            offset,
            data[start : start + first],
            data[start + first : start + first + second],
        )
        assert size == _ENTRY.size + first + second
        at += size


def mark(what: Any) -> None:
    """Called by a recorded program: this has happened (or: this may happen from here on)."""
    content = json.dumps(what).encode()
    head = _ENTRY.pack(_ENTRY.size + len(content), b"mark", 0, 0, 0, 0, len(content), 0)
    with open(os.environ["CHAOS_MARKS"], "ab", buffering=0) as file:
        file.write(head + content)


def compile_tap(directory: Path) -> Path:
    library = directory / "tap.so"
    source = Path(__file__).with_name("tap.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


def recorded(base: Path, module: str, *arguments: str) -> tuple[Path, list[Entry]]:
    """Run a test module on an empty directory, which is its last argument. Return (the directory, the record)."""
    library, record, below = compile_tap(base), base / "record", base / "disk"
    below.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "CHAOS_RECORD": str(record),
        "CHAOS_MARKS": str(record),
        "CHAOS_BELOW": str(below),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", module, *arguments, str(below)]
    subprocess.run(command, cwd=REPO, env=environment, check=True)
    return below, list(entries(record))
