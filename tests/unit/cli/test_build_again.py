"""The fast path of an unchanged build: which result is reused, and every change after which it is not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kubelite.cli.build import build_again
from runtime.builder import known

WORDS = ["build", "-q", "-t", "x:1", "."]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run directory of a node with a running daemon, and a context without recent changes."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/kubelite.pid").write_text(f"{os.getpid()}\n")
    (tmp_path / "context").mkdir()
    (tmp_path / "context/file").write_text("before")
    (tmp_path / "record").touch()
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("KUBELITE_SOCKET", str(tmp_path / "run/kubelite.sock"))
    monkeypatch.setenv("VERSION", "1")
    monkeypatch.setenv("NEVER", "")
    monkeypatch.delenv("NEVER")
    monkeypatch.chdir(tmp_path / "context")
    return tmp_path


def noted(place: Path, *, began: int | None = None, progress: str = "quiet") -> None:
    paths = [place / "context", place / "context/file", place / "context/none"]
    build_again.keep(
        WORDS,
        began=time.time_ns() + 100_000_000_000 if began is None else began,
        files={str(path): build_again.stamp(str(path)) for path in paths},
        ours={str(place / "store"): build_again.stamp(str(place / "store"))},
        environ=["VERSION", "NEVER"],
        used=[str(place / "record")],
        progress=progress,
        events=[
            '{"event":"step","id":1,"state":"begin","name":"[s 1/1] COPY file /"}',
            '{"event":"step","id":1,"state":"cached","seconds":0.0}',
        ],
        answer=["sha256:0123"],
    )


def test_the_result_is_reused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_again.attempt(WORDS) is None
    noted(place)
    os.utime(place / "record", (1, 1))
    assert build_again.attempt(WORDS) == 0
    assert capsys.readouterr().out == "sha256:0123\n"
    assert (place / "record").stat().st_mtime > 1  # the note was used
    assert (place / "run/builds").stat().st_mode & 0o777 == 0o700


def test_the_steps_are_printed_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noted(place, progress="plain")
    assert build_again.attempt(WORDS) == 0
    assert capsys.readouterr().err == "#1 [s 1/1] COPY file /\n#1 CACHED\n"


def rewrite(place: Path) -> None:
    """Change the content and nothing else."""
    before = (place / "context/file").stat()
    (place / "context/file").write_text("after!")
    os.utime(place / "context/file", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        rewrite,
        lambda place: (place / "context/file").chmod(0o600),
        lambda place: (place / "context/file").unlink(),
        lambda place: (place / "context/none").touch(),
        lambda place: (place / "context/other").mkdir(),
        lambda place: (place / "record").unlink(),
        lambda place: (place / "store/layer").mkdir(),
        lambda place: (place / "run/kubelite.pid").unlink(),
        lambda place: (place / "run/kubelite.pid").write_text("999999999\n"),
        lambda _place: os.environ.update(VERSION="2"),
        lambda _place: os.environ.update(NEVER=""),
        os.chdir,
        lambda place: next((place / "run/builds").iterdir()).write_text("another's\n"),
        lambda place: next((place / "run/builds").iterdir()).write_bytes(b""),
    ],
)
def test_the_result_is_not_reused_after_a_change(place: Path, change: Callable[[Path], object]) -> None:
    noted(place)
    change(place)
    assert build_again.attempt(WORDS) is None


def test_other_arguments_are_another_build(place: Path) -> None:
    noted(place)
    assert build_again.attempt([*WORDS, "--no-cache"]) is None
    assert build_again.attempt(["images"]) is None


def test_a_file_changed_just_now_is_not_noted(place: Path) -> None:
    """It may change again within the same tick of the file system's clock."""
    noted(place, began=time.time_ns())
    assert not (place / "run/builds").exists()


def test_the_age_of_files_is_the_builders(place: Path) -> None:
    """A write by mmap to a page that is already dirty changes no timestamp (runtime.builder.known)."""
    assert build_again.SETTLED == known.SETTLED
    noted(place, began=time.time_ns() + known.SETTLED - 10**9)
    assert not (place / "run/builds").exists()
    noted(place, began=time.time_ns() + known.SETTLED + 10**9)
    assert build_again.attempt(WORDS) == 0


def test_the_number_of_notes_is_limited(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_again, "_KEEP", 2)
    for number in range(4):
        (place / f"context{number}").mkdir()
        os.chdir(place / f"context{number}")
        noted(place)
    assert len(list((place / "run/builds").iterdir())) == 2
    assert build_again.attempt(WORDS) == 0
