"""dockerd with kubelite-oci as its runtime (daemon.json `runtimes`), on a real image."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.callers.conftest import IMAGE, Caller, memory_limit
from tests.waiting import until


@pytest.fixture
def name(docker: Caller) -> Iterator[str]:
    made = f"klt-{secrets.token_hex(4)}"
    yield made
    docker("rm", "--force", made, code=None)


@pytest.fixture
def sleeper(docker: Caller, name: str) -> str:
    docker("run", "--detach", "--name", name, IMAGE, "sleep", "100")
    return name


def test_it_is_the_runtime(docker: Caller, sleeper: str) -> None:
    assert docker("inspect", "--format", "{{.HostConfig.Runtime}}", sleeper).out == "kubelite"


def test_run_gives_output_and_exit_code(docker: Caller) -> None:
    assert docker("run", "--rm", IMAGE, "sh", "-c", "echo hello; exit 3", code=3).out == "hello"


def test_run_with_a_terminal(docker: Caller) -> None:
    assert docker("run", "--rm", "--tty", IMAGE, "tty").out == "/dev/pts/0"


def test_run_what_is_not_there(docker: Caller) -> None:
    assert "executable file not found" in docker("run", "--rm", IMAGE, "nowhere", code=127).err
    assert "permission denied" in docker("run", "--rm", IMAGE, "/etc/passwd", code=126).err


def test_its_network_is_set_by_a_hook(docker: Caller) -> None:
    """libnetwork-setkey, a prestart hook, tells dockerd the namespace to put eth0 into."""
    assert "eth0:" in docker("run", "--rm", IMAGE, "cat", "/proc/net/dev").out


def test_identity_and_limits(docker: Caller) -> None:
    script = "id -u; grep NoNewPrivs /proc/self/status; ulimit -n; pwd; hostname; test -w /data || echo ro"
    options = (
        "--user", "1000:1000", "--cap-add", "NET_ADMIN", "--security-opt", "no-new-privileges", "--ulimit",
        "nofile=123", "--workdir", "/data", "--hostname", "named", "--read-only", "--tmpfs", "/t",
    )  # fmt: skip
    out = docker("run", "--rm", *options, IMAGE, "sh", "-c", script).out.splitlines()
    assert out[0] == "1000"
    assert out[1].split() == ["NoNewPrivs:", "1"]
    assert out[2:] == ["123", "/data", "named", "ro"]


def test_volumes(docker: Caller, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    assert (
        docker("run", "--rm", "--volume", f"{tmp_path}:/v:ro", IMAGE, "cat", "/v/file").out == "of the host"
    )
    assert docker("run", "--rm", "--volume", "/data", IMAGE, "cat", "/data/seed").out == "from the image"


def test_init_reaps(docker: Caller) -> None:
    assert "docker-init" in docker("run", "--rm", "--init", IMAGE, "ps").out


def test_exec(docker: Caller, sleeper: str) -> None:
    assert docker("exec", sleeper, "id", "-u").out == "0"
    assert docker("exec", "--user", "web", sleeper, "id", "-u").out == "1000"
    assert docker("exec", "--tty", sleeper, "tty").out.startswith("/dev/pts/")
    assert docker("exec", sleeper, "sh", "-c", "exit 5", code=5).code == 5
    assert "executable file not found" in docker("exec", sleeper, "nowhere", code=None).out
    assert docker("exec", "-i", sleeper, "cat", input_="in\n").out == "in"


def test_pause_top_stats(docker: Caller, sleeper: str) -> None:
    docker("pause", sleeper)
    assert docker("inspect", "--format", "{{.State.Status}}", sleeper).out == "paused"
    docker("unpause", sleeper)
    assert "sleep 100" in docker("top", sleeper).out
    stats = json.loads(docker("stats", "--no-stream", "--format", "{{json .}}", sleeper).out)
    assert stats["PIDs"] == "1"


def test_update_changes_a_limit(docker: Caller, sleeper: str) -> None:
    docker("update", "--memory", "64m", "--memory-swap", "64m", sleeper)
    pid = docker("inspect", "--format", "{{.State.Pid}}", sleeper).out
    assert memory_limit(int(pid)) == 64 << 20


def test_stop_kill_restart(docker: Caller, name: str) -> None:
    script = "trap 'echo stopping; exit 4' TERM; echo up; while :; do sleep 0.05; done"
    docker("run", "--detach", "--name", name, IMAGE, "sh", "-c", script)
    until(lambda: "up" in docker("logs", name).out, "it is up")
    docker("stop", name)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", name).out == "4"
    docker("start", name)
    until(lambda: docker("logs", name).out.count("up") == 2, "it is up again")
    docker("kill", name)
    until(lambda: docker("inspect", "--format", "{{.State.Status}}", name).out == "exited", "it has ended")
    assert docker("inspect", "--format", "{{.State.ExitCode}}", name).out == "137"
    docker("restart", "--time", "0", name)
    assert docker("inspect", "--format", "{{.State.Status}}", name).out == "running"


def test_memory_limit_kills(docker: Caller, name: str) -> None:
    script = "head -c 200000000 /dev/zero | tail > /dev/null"
    docker(
        "run", "--name", name, "--memory", "16m", "--memory-swap", "16m", IMAGE, "sh", "-c", script, code=None
    )
    assert docker("inspect", "--format", "{{.State.OOMKilled}}", name).out == "true"


def test_healthcheck(docker: Caller, name: str) -> None:
    docker("run", "--detach", "--name", name, "--health-cmd", "test -e /tmp/well", "--health-interval", "1s",
           IMAGE, "sh", "-c", "touch /tmp/well; sleep 100")  # fmt: skip
    health = ("inspect", "--format", "{{.State.Health.Status}}", name)
    until(lambda: docker(*health).out == "healthy", "it is healthy")
