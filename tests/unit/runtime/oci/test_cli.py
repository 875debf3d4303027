"""Input from callers of the command: descriptors, invalid numbers, file names that are traps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import SpecError, StateError, SyscallError
from runtime.oci.cli import create, lifecycle, processes
from runtime.oci.cli.options import UsageError
from runtime.oci.config import spec_linux


@pytest.mark.parametrize("text", ["²", "", "-", "+9", "SIG_DFL", "SIGRTMIN+²", "65", "9 "])
def test_an_invalid_signal_is_one_error(text: str) -> None:
    with pytest.raises(StateError, match="unknown signal"):
        lifecycle.parse_signal(text)


def test_an_invalid_signal_has_runcs_message() -> None:
    with pytest.raises(StateError, match=r'^unknown signal "FOO"$'):
        lifecycle.parse_signal("FOO")


@pytest.mark.parametrize("flags", [{"user": "²"}, {"user": "1:²"}, {"additional-gids": ["²"]}])
def test_an_invalid_user_is_one_error(flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be numeric"):
        processes._user({}, flags)


@pytest.mark.parametrize("text", ["²", "0-²", "٣", "1-", "-1", "a"])
def test_an_invalid_list_of_numbers_is_one_error(text: str) -> None:
    with pytest.raises(SpecError, match="is not a list of numbers"):
        spec_linux.number_set(text, "linux.resources.cpu.cpus")


@pytest.mark.parametrize("text", ["8192", "0-8192", "0-9876543210", "9000-9001"])
def test_an_out_of_range_number_is_rejected(text: str) -> None:
    with pytest.raises(SpecError, match="contains a number out of range"):
        spec_linux.memory_policy({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": text}})


def test_an_invalid_number_of_descriptors_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "²")
    spec: dict[str, Any] = {"process": {}}
    assert create.preserved({}, spec) == 0
    assert spec == {"process": {}}


def test_a_pid_file_follows_no_link(tmp_path: Path) -> None:
    """The temporary file's name is predictable, and its directory may be shared with others."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".pid.{os.getpid()}").symlink_to(victim)
    with pytest.raises(SyscallError, match="pid file"):
        create.write_pid_file(str(tmp_path / "pid"), 7)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "pid").exists()
    (tmp_path / f".pid.{os.getpid()}").unlink()
    (tmp_path / "pid").symlink_to(victim)
    create.write_pid_file(str(tmp_path / "pid"), 7)
    assert (victim.read_text(), (tmp_path / "pid").read_text()) == ("precious", "7")
