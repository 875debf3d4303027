"""What a runtime refuses, and what it passes on unchanged, as runc does."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest

from tests.conformance.conftest import Bundle, Runtime


def test_a_page_size_that_does_not_exist(bundle: Bundle) -> None:
    """A limit that would not hold is no reason to start without it."""
    bundle.linux["resources"]["hugepageLimits"] = [{"pageSize": "3MB", "limit": 0}]
    done = bundle.create("true", check=False)
    assert done.code != 0
    assert "hugetlb" in done.err


@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_terminal_relayed_to_a_file_adds_no_carriage_returns(
    runtime: Runtime, bundle: Bundle, command: str
) -> None:
    master, slave = pty.openpty()
    try:
        if command == "run":
            bundle.process["terminal"] = True
            done = bundle.sh("echo one; echo two", stdin=slave)
        else:
            bundle.start("sleep", "60")
            done = runtime("exec", "--tty", bundle.id, "sh", "-c", "echo one; echo two", stdin=slave)
    finally:
        os.close(master)
        os.close(slave)
    assert (done.code, done.out) == (0, "one\ntwo\n")


def test_a_log_that_cannot_be_opened(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.write("true")
    log = tmp_path / "nowhere" / "log"
    done = runtime("--log", str(log), "run", "--bundle", str(bundle.path), bundle.id)
    assert done.code != 0
    assert f"{log}: no such file or directory" in done.err


def test_an_empty_memory_policy(bundle: Bundle) -> None:
    """runtime-spec config-linux.md, "Memory policy": mode is required."""
    bundle.linux["memoryPolicy"] = {}
    assert bundle.create("true", check=False).code != 0


def test_a_path_that_is_masked_twice(bundle: Bundle) -> None:
    (bundle.rootfs / "secret").write_text("secret\n")
    (bundle.rootfs / "hidden").mkdir()
    (bundle.rootfs / "hidden" / "file").write_text("secret\n")
    bundle.linux["maskedPaths"] = ["/secret", "/hidden", "/secret", "/hidden", "/hidden/", "//secret"]
    done = bundle.sh("cat /secret; ls /hidden")
    assert (done.code, done.out) == (0, ""), done
