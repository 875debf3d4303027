"""podman --runtime kubelite-oci: what conmon and podman ask of a runtime, on a real image."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.callers.conftest import IMAGE, Caller, memory_limit
from tests.waiting import until


@pytest.fixture
def name(podman: Caller) -> Iterator[str]:
    made = f"klt-{secrets.token_hex(4)}"
    yield made
    podman("rm", "--force", "--time", "0", "--ignore", made)


@pytest.fixture
def sleeper(podman: Caller, name: str) -> str:
    podman("run", "--detach", "--name", name, "--network", "none", IMAGE, "sleep", "100")
    return name


def run(podman: Caller, *args: str, code: int = 0) -> str:
    return podman("run", "--rm", "--network", "none", *args, code=code).out


def test_run_gives_output_and_exit_code(podman: Caller) -> None:
    assert run(podman, IMAGE, "sh", "-c", "echo hello; exit 3", code=3) == "hello"


def test_run_with_a_terminal(podman: Caller) -> None:
    assert "/dev/pts/0" in run(podman, "--tty", IMAGE, "tty")


def test_run_what_is_not_there(podman: Caller) -> None:
    assert podman("run", "--rm", "--network", "none", IMAGE, "nowhere", code=127).code == 127
    assert podman("run", "--rm", "--network", "none", IMAGE, "/etc/passwd", code=126).code == 126


def test_stdin(podman: Caller) -> None:
    done = podman("run", "--rm", "-i", "--network", "none", IMAGE, "cat", input_="through\n")
    assert done.out == "through"


def test_identity_and_limits(podman: Caller) -> None:
    script = "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status; ulimit -n; pwd; hostname; test -w /data || echo ro"
    options = (
        "--user", "1000:1000", "--cap-add", "NET_ADMIN", "--security-opt", "no-new-privileges", "--ulimit",
        "nofile=123:123", "--workdir", "/data", "--hostname", "named", "--read-only",
    )  # fmt: skip
    out = run(podman, *options, IMAGE, "sh", "-c", script).splitlines()
    assert out[0] == "1000"
    assert out[2].split() == ["NoNewPrivs:", "1"]
    assert out[3:] == ["123", "/data", "named", "ro"]


def test_volumes(podman: Caller, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    assert run(podman, "--volume", f"{tmp_path}:/v:ro", IMAGE, "cat", "/v/file") == "of the host"
    named = f"klt-{secrets.token_hex(4)}"
    assert run(podman, "--volume", f"{named}:/data", IMAGE, "cat", "/data/seed") == "from the image"
    podman("volume", "rm", named)


def test_init_reaps(podman: Caller) -> None:
    if podman("info", "--format", "{{.Host.OCIRuntime.Name}}").out == "":
        pytest.fail("podman names no runtime")
    done = podman("run", "--rm", "--init", "--network", "none", IMAGE, "ps", code=None)
    if "catatonit" in done.err or "init binary" in done.err:
        pytest.skip("needs catatonit")
    assert done.code == 0
    assert "init" in done.out


def test_exec(podman: Caller, sleeper: str) -> None:
    assert podman("exec", sleeper, "id", "-u").out == "0"
    assert podman("exec", "--user", "web", sleeper, "id", "-u").out == "1000"
    assert "/dev/pts/" in podman("exec", "--tty", sleeper, "tty").out
    assert podman("exec", sleeper, "sh", "-c", "exit 5", code=5).code == 5
    assert podman("exec", sleeper, "nowhere", code=127).code == 127
    assert podman("exec", "-i", sleeper, "cat", input_="in\n").out == "in"


def test_pause_and_its_status(podman: Caller, sleeper: str) -> None:
    podman("pause", sleeper)
    assert podman("inspect", "--format", "{{.State.Status}}", sleeper).out == "paused"
    podman("unpause", sleeper)
    assert podman("exec", sleeper, "echo", "again").out == "again"


def test_stats_top_and_ps(podman: Caller, sleeper: str) -> None:
    assert sleeper in podman("ps").out
    assert "sleep 100" in podman("top", sleeper).out
    stats = json.loads(podman("stats", "--no-stream", "--format", "json", sleeper).out)
    assert stats[0]["pids"] == "1"


def test_update_changes_a_limit(podman: Caller, sleeper: str) -> None:
    podman("update", "--memory", "64m", sleeper)
    pid = podman("inspect", "--format", "{{.State.Pid}}", sleeper).out
    assert memory_limit(int(pid)) == 64 << 20


def test_stop_kill_restart(podman: Caller, name: str) -> None:
    script = "trap 'echo stopping; exit 4' TERM; echo up; while :; do sleep 0.05; done"
    podman("run", "--detach", "--name", name, "--network", "none", IMAGE, "sh", "-c", script)
    until(lambda: "up" in podman("logs", name).out, "it is up")
    podman("stop", name)
    assert podman("inspect", "--format", "{{.State.ExitCode}}", name).out == "4"
    podman("start", name)
    until(lambda: podman("logs", name).out.count("up") == 2, "it is up again")
    podman("kill", name)
    until(lambda: podman("inspect", "--format", "{{.State.Status}}", name).out == "exited", "it has ended")
    assert podman("inspect", "--format", "{{.State.ExitCode}}", name).out == "137"
    podman("restart", "--time", "0", name)
    assert podman("inspect", "--format", "{{.State.Status}}", name).out == "running"


def test_healthcheck(podman: Caller, name: str) -> None:
    podman(
        "run", "--detach", "--name", name, "--network", "none", "--health-cmd", "test -e /tmp/well",
        "--health-interval", "disable", IMAGE, "sleep", "100",
    )  # fmt: skip
    assert podman("healthcheck", "run", name, code=1).code == 1
    podman("exec", name, "touch", "/tmp/well")
    podman("healthcheck", "run", name)


def test_memory_limit_kills(podman: Caller, name: str) -> None:
    podman("run", "--name", name, "--network", "none", "--memory", "16m", "--memory-swap", "16m", IMAGE,
           "sh", "-c", "x=$(cat /dev/zero | head -c 200000000 | grep -c y); echo survived", code=None)  # fmt: skip
    assert (
        "survived" not in podman("logs", name).out
        or podman("inspect", "--format", "{{.State.OOMKilled}}", name).out
    )


def test_a_pod_shares_its_namespaces(podman: Caller) -> None:
    pod = f"klt-{secrets.token_hex(4)}"
    made = podman("pod", "create", "--name", pod, "--network", "none", "--share", "ipc,uts,net", code=None)
    if made.code and "pause" in made.err:
        pytest.skip("needs podman's pause image (catatonit)")
    assert made.code == 0, made
    script = "readlink /proc/self/ns/net; readlink /proc/self/ns/uts"
    try:
        one = podman("run", "--rm", "--pod", pod, IMAGE, "sh", "-c", script).out
        two = podman("run", "--rm", "--pod", pod, IMAGE, "sh", "-c", script).out
        assert one == two
    finally:
        podman("pod", "rm", "--force", "--time", "0", pod)


def test_user_namespace(podman: Caller) -> None:
    out = run(podman, "--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000", IMAGE, "sh", "-c",
              "id -u; cat /proc/self/uid_map; touch /tmp/mine; stat -c %u /tmp/mine")  # fmt: skip
    assert out.split() == ["0", "0", "100000", "5000", "0"]


def test_tmpfs_with_what_the_image_had(podman: Caller) -> None:
    out = run(podman, "--mount", "type=tmpfs,destination=/data,tmpcopyup", IMAGE, "cat", "/data/seed")
    assert out == "from the image"


def test_host_pid_namespace_and_stop(podman: Caller, name: str) -> None:
    """Without a pid namespace the end of the init ends nothing else: kill --all is what podman then asks for."""
    podman("run", "--detach", "--name", name, "--network", "none", "--pid", "host", IMAGE,
           "sh", "-c", "sleep 4321 & sleep 4321 & wait")  # fmt: skip
    podman("stop", "--time", "1", name)
    assert "4321" not in podman("top", name, code=None).out


KUBE = """
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  hostNetwork: true
  containers:
    - {name: one, image: localhost/klt:latest, imagePullPolicy: Never, command: [sh, -c, "echo one; sleep 100"]}
    - {name: two, image: localhost/klt:latest, imagePullPolicy: Never, command: [sleep, "100"]}
"""


def test_kube_play(podman: Caller, name: str, tmp_path: Path) -> None:
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(KUBE.replace("NAME", name))
    done = podman("kube", "play", str(manifest), code=None)
    if done.code and ("pause" in done.err or "catatonit" in done.err):
        pytest.skip("needs podman's pause image (catatonit)")
    assert done.code == 0, done
    try:
        until(lambda: podman("logs", f"{name}-one").out == "one", "the first one's log")
        assert podman("inspect", "--format", "{{.State.Status}}", f"{name}-two").out == "running"
        assert "kubelite-oci" in podman("inspect", "--format", "{{.OCIRuntime}}", f"{name}-one").out
    finally:
        podman("kube", "down", "--force", str(manifest), code=None)
    assert f"{name}-one" not in podman("ps", "--all", "--format", "{{.Names}}").out


def test_cap_add_is_what_the_program_has(podman: Caller) -> None:
    out = run(
        podman, "--cap-drop", "all", "--cap-add", "NET_RAW,KILL", IMAGE, "grep", "CapEff", "/proc/self/status"
    )
    assert int(out.split()[1], 16) == 1 << 13 | 1 << 5
