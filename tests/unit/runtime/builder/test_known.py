"""Known digests of context files: when they are used, and when the file is read again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.builder import known
from runtime.builder.copy import context
from runtime.builder.copy.context import Tree
from runtime.builder.known import SETTLED, Contents
from runtime.builder.language.ignore import Ignore

EXT4, TMPFS = 0xEF53, 0x01021994


class Reader:
    """Computes a context's digests and records which files it reads."""

    def __init__(self, root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.kept = root, kept
        self.read: list[str] = []
        real = context._content

        def content(fd: int) -> bytes:
            self.read.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            return real(fd)

        monkeypatch.setattr(context, "_content", content)

    @contextmanager
    def build(self, *, later: int = 2 * SETTLED, trusting: bool = True) -> Iterator[Callable[[str], str]]:
        fd = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
        self.read.clear()
        contents = Contents(str(self.kept), fd, trusting=trusting, now=lambda: time.time_ns() + later)
        tree = Tree(fd, known=contents)

        def digest(name: str) -> str:
            (found,) = context.find(tree, name)
            return context.digest(tree, found, Ignore(), lambda: None)

        try:
            yield digest
        finally:
            contents.save()
            os.close(fd)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr(known, "fstatfs_type", lambda _fd: EXT4)
    root = tmp_path / "context"
    (root / "d").mkdir(parents=True)
    (root / "one").write_text("1")
    (root / "d" / "two").write_text("2")
    return Reader(root, tmp_path / "kept", monkeypatch)


def test_unchanged_files_are_not_read_again(reader: Reader) -> None:
    with reader.build() as digest:
        first = digest("d"), digest("one")
        assert sorted(reader.read) == ["one", "two"]
    with reader.build() as digest:
        assert (digest("d"), digest("one")) == first
        assert reader.read == []


def test_one_file_is_read_once_in_a_build(reader: Reader) -> None:
    with reader.build() as digest:
        assert digest("one") == digest("one")
        assert reader.read == ["one"]


def overwrite(path: Path) -> None:
    st = path.stat()
    path.write_text("x")
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))  # same size, same mtime


def replace(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("x")
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.rename(path)


@pytest.mark.parametrize("change", [overwrite, replace])
def test_a_change_with_an_old_mtime_is_noticed(reader: Reader, change: Callable[[Path], None]) -> None:
    with reader.build() as digest:
        first = digest("one")
    change(reader.root / "one")
    with reader.build() as digest:
        assert digest("one") != first
        assert reader.read == ["one"]


def test_a_changed_mode_counts_although_the_content_is_known(reader: Reader) -> None:
    with reader.build() as digest:
        first = digest("d")
    (reader.root / "d" / "two").chmod(0o600)
    with reader.build() as digest:
        assert digest("d") != first


def test_recently_changed_files_are_not_recorded(reader: Reader) -> None:
    with reader.build(later=0) as digest:
        digest("one")
    with reader.build(later=0) as digest:
        digest("one")
        assert reader.read == ["one"]


def test_a_file_system_without_reliable_times_is_read(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "fstatfs_type", lambda _fd: TMPFS)
    for _ in range(2):
        with reader.build() as digest:
            digest("one")
            assert reader.read == ["one"]
    assert not reader.kept.exists()


def test_a_build_without_cache_reads_everything_and_records_it(reader: Reader) -> None:
    with reader.build() as digest:
        first = digest("one")
    (noted,) = reader.kept.iterdir()
    document = json.loads(noted.read_text())
    document["files"][0][-1] = "00" * 32
    noted.write_text(json.dumps(document))
    with reader.build() as digest:
        assert digest("one") != first  # the recorded digest is used
    with reader.build(trusting=False) as digest:
        assert digest("one") == first
    with reader.build() as digest:
        assert digest("one") == first
        assert reader.read == []


@pytest.mark.parametrize(
    "torn", [b"", b"{", b"[]", b'{"version":1,"files":[[1]]}', b'{"version":2,"files":[]}']
)
def test_damaged_records_are_ignored(reader: Reader, torn: bytes) -> None:
    with reader.build() as digest:
        first = digest("one")
    (noted,) = reader.kept.iterdir()
    noted.write_bytes(torn)
    with reader.build() as digest:
        assert digest("one") == first
        assert reader.read == ["one"]
    with reader.build() as digest:
        digest("one")
        assert reader.read == []


def test_records_of_other_files_are_retained(reader: Reader) -> None:
    with reader.build() as digest:
        digest("one")
    with reader.build() as digest:
        digest("d")
    with reader.build() as digest:
        digest("one"), digest("d")
        assert reader.read == []
