"""A disk that fills up in the middle of a file: the kernel writes a part, and the next write fails."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.oci.cli.store import Entry
from runtime.oci.rootfs import copyup

_ROOM = 8192


@pytest.fixture
def little_room() -> Iterator[None]:
    """RLIMIT_FSIZE in place of a full disk: write(2) up to the limit is short, and beyond it fails with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("little_room")
def test_a_record_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    entry = Entry(str(tmp_path), "x")
    entry.write("config.json", b"old")
    with pytest.raises(OSError, match="File too large"):
        entry.write("config.json", b"x" * (_ROOM + 1))
    assert os.listdir(tmp_path) == ["config.json"]
    assert (tmp_path / "config.json").read_bytes() == b"old"


def test_a_copy_that_does_not_fit_is_an_error(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").write_bytes(b"x" * (_ROOM + 1))
    request.getfixturevalue("little_room")
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    try:
        with pytest.raises(OSError, match="File too large"):
            copyup.copy(*fds)
    finally:
        for fd in fds:
            os.close(fd)
