"""Small files: their content and mode, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.files import read_bytes, write_new


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_new_file_has_its_content_and_mode(tmp_path: Path, umask: int) -> None:
    path, content = tmp_path / "file", bytes(range(256)) * 1024  # more than one read
    before = os.umask(umask)
    try:
        write_new(str(path), content, 0o666)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666
    assert path.read_bytes() == read_bytes(str(path)) == content


def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "link", tmp_path / "other"
    path.symlink_to(other)
    with pytest.raises(FileExistsError):
        write_new(str(path), b"new")
    assert not other.exists()


def test_a_missing_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bytes(str(tmp_path / "file"))
