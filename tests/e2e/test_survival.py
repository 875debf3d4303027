"""Recovery after kills: daemon, helpers, shim, init, and a reboot of the machine."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import KUBELITE, REPO, Node

TICK = "trap 'exit 0' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"


def _log_links(node: Node) -> set[str]:
    """The names of the links to existing logs."""
    return {link.name for link in (node.log_dir / "containers").iterdir() if link.is_file()}


def test_kill_9_of_the_daemon_changes_nothing(node: Node) -> None:
    node.apply("a.yaml", pod("a", container(script=TICK)))
    node.apply("b.yaml", pod("b"))
    node.wait_status("a", "Running")
    node.wait_status("b", "Running")
    links = _log_links(node)
    assert len(links) == 2
    (node.log_dir / "containers" / min(links)).unlink()  # as if the daemon was killed before creating it
    pids, uid, ip = (
        (node.pid("a"), node.pid("b")),
        node.pod("a")["metadata"]["uid"],
        node.pod("a")["status"]["podIP"],
    )
    for _ in range(3):
        node.restart(signal.SIGKILL)
    assert (node.pid("a"), node.pid("b")) == pids
    assert _log_links(node) == links
    found = node.pod("a")
    assert (found["metadata"]["uid"], found["status"]["podIP"]) == (uid, ip)
    assert node.container("a")["restartCount"] == 0
    lines = node.cli("logs", "a").out.split()
    assert lines == [str(i) for i in range(len(lines))], "no line lost or doubled over the kills"
    assert node.cli("exec", "b", "--", "echo", "hello").out == "hello\n"


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.either_cgroup) for n in (2, 3))])
def test_kill_9_during_starts_and_stops(node: Node, seed: int) -> None:
    rng = random.Random(seed)
    names = [f"p{i}" for i in range(6)]
    for turn in range(4):
        present = rng.sample(names, 4)
        for name in names:
            if name in present:
                node.apply(f"{name}.yaml", pod(name, labels={"turn": str(turn // 2)}))
            else:
                (node.manifests / f"{name}.yaml").unlink(missing_ok=True)
        time.sleep(rng.uniform(0.0, 0.15))
        node.kill(signal.SIGKILL)
        node.start()
    for name in present:
        node.wait_status(name, "Running")
    node.wait(
        lambda: (
            sorted(r.split()[0] for r in node.cli("get", "pods", "--no-headers").out.splitlines())
            == sorted(present)
        ),
        "only those",
    )
    for name in present:
        node.pid(name)


@pytest.mark.either_cgroup
def test_the_trace_of_a_manifest_that_waited_for_the_daemon(node: Node) -> None:
    node.kill(signal.SIGTERM)
    path = node.apply("p.yaml", pod("p"))
    node.start()
    node.wait_status("p", "Running")
    waited = node.cli("trace", "p").out.splitlines()
    assert "daemon started" in waited[1] and waited[1].startswith("+0.00 ms"), waited
    path.unlink()
    node.wait_gone("p")
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    assert "manifest changed" in node.cli("trace", "p").out.splitlines()[1]


@pytest.mark.either_cgroup
def test_a_trace_survives_the_daemon(node: Node) -> None:
    path = node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    before = node.cli("trace", "p", "-o", "wide").out
    files = node.run_dir / "traces"
    node.wait(lambda: list(files.glob("*.json")), "the trace's file")
    node.restart(signal.SIGKILL)
    assert node.cli("trace", "p", "-o", "wide").out == before
    path.unlink()
    node.wait_gone("p")
    node.wait(lambda: list(files.iterdir()) == [], "the trace's file to go")


def test_containers_that_ended_without_a_daemon(node: Node) -> None:
    node.apply("once.yaml", pod("once", container(script="sleep 0.5; exit 4"), restartPolicy="Never"))
    node.apply("always.yaml", pod("always"))
    node.wait_status("once", "Running")
    node.wait_status("always", "Running")
    node.kill()
    os.kill(int(_state(node, "always")["containers"][0]["pid"]), signal.SIGKILL)
    time.sleep(0.8)
    node.start()
    node.wait_status("once", "Error")
    assert node.container("once")["state"]["terminated"]["exitCode"] == 4
    node.wait(lambda: node.container("always").get("restartCount") == 1, "a restart")
    node.wait_status("always", "Running")


def _state(node: Node, name: str) -> dict[str, Any]:
    """The last record that the pod's shim wrote."""
    for path in (node.run_dir / "shims").glob("*/state.json"):
        state: dict[str, Any] = json.loads(path.read_text())
        if state["annotations"]["name"] == name:
            return state
    raise AssertionError(f"no shim of {name}")


def test_kill_9_of_a_shim(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.apply("other.yaml", pod("other"))
    node.wait_status("p", "Running")
    node.wait_status("other", "Running")
    pid, other = node.pid("p"), node.pid("other")
    os.kill(int(_state(node, "p")["pid"]), signal.SIGKILL)
    node.wait(lambda: not Path(f"/proc/{pid}").exists(), "its container to end with it")
    node.wait(
        lambda: node.container("p").get("restartCount", 0) >= 1 and node.status_of("p") == "Running",
        "a new sandbox",
    )
    assert node.pid("other") == other


def test_kill_9_of_the_helpers(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    assert node.daemon is not None
    children = _children(node.daemon.pid)
    assert len(children) >= 2
    for child in children:
        os.kill(child, signal.SIGKILL)
    node.apply("q.yaml", pod("q"))
    node.wait_status("q", "Running")
    assert node.status_of("p") == "Running"


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_kill_9_of_an_init(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    pid = node.pid("p")
    os.kill(pid, signal.SIGKILL)
    node.wait(lambda: node.container("p").get("restartCount") == 1, "a restart")
    node.wait_status("p", "Running")
    assert node.container("p")["lastState"]["terminated"]["exitCode"] == 137


def test_a_reboot(node: Node) -> None:
    """Everything is lost but the disk."""
    node.apply("always.yaml", pod("always"))
    node.apply("done.yaml", pod("done", container(script="echo once"), restartPolicy="OnFailure"))
    node.wait_status("always", "Running")
    node.wait_status("done", "Completed")
    uid = node.pod("always")["metadata"]["uid"]
    node.reboot()
    node.wait(lambda: node.container("always").get("restartCount") == 1, "it to run again")
    node.wait_status("always", "Running")
    assert node.pod("always")["metadata"]["uid"] == uid
    assert node.status_of("done") == "Completed"
    assert node.container("done")["restartCount"] == 0


@pytest.mark.either_cgroup
def test_a_second_daemon_does_not_start(node: Node) -> None:
    second = subprocess.run(
        [*KUBELITE, "serve"],
        cwd=REPO,
        env=node.environ(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 1
    assert second.stderr.startswith("kubelite: another kubelite (pid ")
    assert node.cli("get", "pods").code == 0


@pytest.mark.either_cgroup
def test_a_damaged_state_file(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    pid, uid = node.pid("p"), node.pod("p")["metadata"]["uid"]
    node.kill()
    for name in ("state.db-wal", "state.db-shm"):
        (node.root / name).unlink(missing_ok=True)
    (node.root / "state.db").write_bytes(b"garbage" * 1000)
    node.start()
    assert "set aside" in node.tail(200)
    node.wait_status("p", "Running")
    assert (node.pid("p"), node.pod("p")["metadata"]["uid"]) == (pid, uid), "adopted, not started again"


@pytest.mark.either_cgroup
def test_a_lost_state_file_and_a_manifests_directory_that_is_not_mounted(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    pid, uid = node.pid("p"), node.pod("p")["metadata"]["uid"]
    node.kill()
    for path in node.root.glob("state.db*"):
        path.unlink()
    (node.manifests / "p.yaml").unlink()
    node.start()
    node.wait(lambda: "left alone until a manifest exists" in node.tail(200), "that it is left alone")
    os.kill(pid, 0)
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    assert (node.pid("p"), node.pod("p")["metadata"]["uid"]) == (pid, uid), "adopted, not started again"


@pytest.mark.either_cgroup
def test_a_sub_directory_of_manifests_that_is_unmounted(node: Node) -> None:
    """A pod keeps running if the file system with its manifest is unmounted, also after a restart of the daemon."""
    below = node.manifests / "disk"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "kubelite-test", below], check=True)
    try:
        node.apply("disk/a.yaml", pod("a"))
        node.apply("b.yaml", pod("b"))
        node.wait_status("b", "Running")
        node.wait_status("a", "Running", timeout=40)  # inotify does not report mounts: the next scan finds it
        pid = node.pid("a")
    finally:
        subprocess.run(["umount", below], check=True)
    (node.manifests / "b.yaml").unlink()
    node.wait(lambda: node.status_of("b") == "", "b is gone")
    node.restart(signal.SIGKILL)
    assert node.pid("a") == pid and node.container("a")["restartCount"] == 0
    below.rmdir()
    node.wait(lambda: node.status_of("a") == "", "a is gone")
