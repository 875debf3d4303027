"""containerd's own client with `--runc-binary kubelite-oci`, on a real image."""

from __future__ import annotations

import secrets
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.callers.conftest import IMAGE, RUNTIME, Caller, need
from tests.waiting import until


@pytest.fixture
def name(ctr: Caller) -> Iterator[str]:
    made = f"klt-{secrets.token_hex(4)}"
    yield made
    ctr("tasks", "rm", "--force", made, code=None)
    ctr("containers", "rm", made, code=None)


def run(ctr: Caller, *args: str, code: int | None = 0) -> str:
    return ctr("run", "--snapshotter", "native", "--runc-binary", RUNTIME, *args, code=code).out


@pytest.fixture
def sleeper(ctr: Caller, name: str) -> str:
    run(ctr, "--detach", IMAGE, name, "sleep", "100")
    return name


def status(ctr: Caller, name: str) -> str:
    rows = [line.split() for line in ctr("tasks", "list").out.splitlines()]
    return next((row[2] for row in rows if row[0] == name), "")


def test_run_gives_output_and_exit_code(ctr: Caller, name: str) -> None:
    assert run(ctr, "--rm", IMAGE, name, "sh", "-c", "echo hello; exit 3", code=3) == "hello"


def test_run_what_is_not_there(ctr: Caller, name: str) -> None:
    done = ctr(
        "run", "--rm", "--snapshotter", "native", "--runc-binary", RUNTIME, IMAGE, name, "nowhere", code=1
    )
    assert "executable file not found in $PATH" in done.err


def test_exec_ps_metrics(ctr: Caller, sleeper: str) -> None:
    assert ctr("tasks", "exec", "--exec-id", "e1", sleeper, "id", "-u").out == "0"
    assert ctr("tasks", "exec", "--exec-id", "e2", sleeper, "sh", "-c", "exit 5", code=5).code == 5
    assert len(ctr("tasks", "ps", sleeper).out.splitlines()) == 2
    assert "memory" in ctr("tasks", "metrics", sleeper).out


def test_pause_and_resume(ctr: Caller, sleeper: str) -> None:
    ctr("tasks", "pause", sleeper)
    assert status(ctr, sleeper) == "PAUSED"
    ctr("tasks", "resume", sleeper)
    assert status(ctr, sleeper) == "RUNNING"


@pytest.mark.parametrize("signal", ["9", "SIGKILL"])
def test_kill(ctr: Caller, sleeper: str, signal: str) -> None:
    ctr("tasks", "kill", "--signal", signal, sleeper)
    until(lambda: status(ctr, sleeper) == "STOPPED", "it has stopped")
    assert "exit code 137" in ctr("tasks", "rm", sleeper, code=None).err


def test_kill_all(ctr: Caller, name: str) -> None:
    run(ctr, "--detach", IMAGE, name, "sh", "-c", "sleep 77 & sleep 77 & wait")
    ctr("tasks", "kill", "--all", "--signal", "9", name)
    until(lambda: status(ctr, name) == "STOPPED", "it has stopped")


def test_a_limit_and_a_user(ctr: Caller, name: str) -> None:
    assert run(ctr, "--rm", "--memory-limit", "33554432", "--user", "1000", IMAGE, name, "id", "-u") == "1000"


def test_a_terminal(ctr: Caller, name: str) -> None:
    """ctr wants a terminal of its own for --tty: script(1) gives it one."""
    need("script")
    words = [
        *ctr.command,
        "run",
        "--rm",
        "--tty",
        "--snapshotter",
        "native",
        "--runc-binary",
        RUNTIME,
        IMAGE,
        name,
        "tty",
    ]
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", shlex.join(words), "/dev/null"],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "/dev/pts/0" in done.stdout, done
