"""The files of the proxy on the host, and what the check of a configuration says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubelite.ingress.proxy import ProxyError, ProxyFiles
from kubelite.node.model.cri import ExecResult


@pytest.fixture
def chown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "chown", lambda *_: None)  # it takes root


def files(directory: Path, result: ExecResult | None = None) -> ProxyFiles:
    async def execute(_uid: str, _id: str, _command: list[str], _seconds: float) -> ExecResult:
        assert result is not None
        return result

    return ProxyFiles(directory, execute)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (ExecResult(0), ""),
        (ExecResult(1, "unknown keyword 'x'\n"), "unknown keyword 'x'"),
        (ExecResult(1), "exit code 1"),
    ],
)
async def test_what_the_check_says(tmp_path: Path, result: ExecResult, said: str) -> None:
    assert await files(tmp_path, result).check("uid", "id", "1") == said


@pytest.mark.parametrize("result", [ExecResult(137, timed_out=True), ExecResult(137), ExecResult(139)])
async def test_a_check_that_was_killed_says_nothing_about_the_configuration(
    tmp_path: Path, result: ExecResult
) -> None:
    with pytest.raises(ProxyError, match="more than 20 seconds" if result.timed_out else "killed by signal"):
        await files(tmp_path, result).check("uid", "id", "1")


@pytest.mark.usefixtures("chown")
def test_a_generation_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    found = files(tmp_path)
    with pytest.raises(IsADirectoryError):
        found.write({"a": b"1", "..": b"2"})
    assert os.listdir(tmp_path / "config") == []
    found.publish(found.write({"a": b"1"}))
    assert found.current() == "1" and (tmp_path / "config/current/a").read_bytes() == b"1"


@pytest.mark.usefixtures("chown")
def test_old_generations_are_removed(tmp_path: Path) -> None:
    found = files(tmp_path)
    for number in range(5):
        found.publish(found.write({"a": b"%d" % number}))
    assert sorted(os.listdir(tmp_path / "config")) == ["3", "4", "5", "current"]
