"""Removal of trees that were made to be hard to remove."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from runtime.removal import remove_tree


def nested(top: Path, levels: int) -> None:
    """`levels` directories in each other, deeper than any path can name, a file beside each hundredth."""
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for level in range(levels):
        os.mkdir("d", dir_fd=here)
        if level % 100 == 0:
            os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_deeper_than_recursion_descriptors_and_paths_reach(tmp_path: Path) -> None:
    nested(tmp_path / "deep", 5000)
    before = len(os.listdir("/proc/self/fd"))
    begun = time.process_time()
    remove_tree(str(tmp_path / "deep"))
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before
    assert time.process_time() - begun < 20, "not quadratic"


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("")
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/link").symlink_to(kept)
    (tree / "link").symlink_to("/")
    os.mkfifo(tree / "pipe")
    remove_tree(str(tree))
    assert os.listdir(tmp_path) == ["kept"]
    assert (kept / "file").exists()


def test_a_link_itself_a_file_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").write_text("")
    for name in ("link", "file", "missing"):
        remove_tree(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["kept"]


def test_removal_continues_after_errors_and_reports_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "file").write_text("")
    real = os.unlink

    def unlink(path: str, *, dir_fd: int | None = None) -> None:
        if os.readlink(f"/proc/self/fd/{dir_fd}").endswith("/b"):
            raise PermissionError(1, "immutable", path)
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(PermissionError, match="immutable"):
        remove_tree(str(tmp_path / "tree"))
    monkeypatch.undo()
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == ["file"]
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []
