"""`kubelite reset`: pods terminate gracefully, with and without a daemon, and it lists losses and asks."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import KUBELITE, PATIENCE, REPO, Finished, Node, running_node, wait_fd

DATA: dict[str, Any] = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
SLOW = "trap 'sleep 0.3; echo $NAME >> /data/log; exit 0' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture
def node(tmp_path: Path, images: Path) -> Iterator[Node]:
    """A node that can start again after its reset."""
    with running_node(tmp_path, images) as found:
        yield found
        if found.daemon is not None and found.daemon.poll() is not None:
            found.start()


def _named(name: str, **more: Any) -> dict[str, Any]:
    return container(name, script=SLOW, env=[{"name": "NAME", "value": name}], **DATA, **more)


def _start(node: Node) -> None:
    """A pod whose sidecar, hook and main container each leave a line when they end, and one that ignores its signal."""
    (node.base / "data").mkdir()
    volumes = [{"name": "data", "hostPath": {"path": str(node.base / "data")}}]
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /data/log"]}}}
    sidecar = _named("sidecar", restartPolicy="Always")
    more: dict[str, Any] = {
        "volumes": volumes,
        "initContainers": [sidecar],
        "terminationGracePeriodSeconds": 30,
    }
    whole = pod("whole", _named("main", lifecycle=hook), **more)
    node.apply("whole.yaml", whole)
    deaf = container(script="trap '' TERM; echo up; while :; do sleep 0.05; done")
    node.apply("deaf.yaml", pod("deaf", deaf, terminationGracePeriodSeconds=600))
    for name in ("whole", "deaf"):
        node.wait_status(name, "Running")
    node.wait(lambda: node.logs("deaf"), "its trap to be set")


def _stop(node: Node) -> None:
    assert node.daemon is not None
    assert node.daemon.poll() is None


def _kill(node: Node) -> None:
    node.kill()


def _lose_the_record(node: Node) -> None:
    node.kill()
    for path in node.root.glob("state.db*"):
        path.unlink()


@pytest.mark.parametrize("before", [_stop, _kill])
def test_pods_end_as_if_they_were_deleted(node: Node, before: Callable[[Node], None]) -> None:
    _start(node)
    before(node)
    began = time.monotonic()
    done = node.cli("reset", "--yes", "--timeout", "3s", timeout=60)
    assert time.monotonic() - began < 20 * PATIENCE
    assert (node.base / "data/log").read_text().split() == ["hook", "main", "sidecar"]
    lines = done.out.splitlines()
    assert "This ends gracefully, within 3 s: default/deaf, default/whole" in lines
    assert any(
        line.startswith("ended pod default/whole in ") and line.endswith("(1 of 2)") for line in lines
    ), lines
    assert "ended pod default/deaf: killed at the end of its grace period of 3 s (2 of 2)" in lines
    assert "uid" not in done.out
    assert not node.leftovers()


def test_pods_without_a_record_get_their_stop_signal(node: Node) -> None:
    _start(node)
    _lose_the_record(node)
    done = node.cli("reset", "--yes", "--timeout", "3s", timeout=60)
    assert sorted((node.base / "data/log").read_text().split()) == ["main", "sidecar"], (
        "no hook: it is unknown"
    )
    assert "ended pod default/whole in " in done.out
    assert "ended pod default/deaf: killed" in done.out
    assert not node.leftovers()


def test_a_pod_that_waits_for_a_port_does_not_start(node: Node) -> None:
    """It could start when the other pod has ended."""
    (node.base / "data").mkdir()
    volumes = [{"name": "data", "hostPath": {"path": str(node.base / "data")}}]
    more: dict[str, Any] = {"volumes": volumes, "hostNetwork": True, "terminationGracePeriodSeconds": 30}
    port = [{"containerPort": 7777, "hostPort": 7777}]
    node.apply("a.yaml", pod("first", _named("first", ports=port), **more))
    node.wait_status("first", "Running")
    late = container(script="echo late >> /data/log; sleep 100", ports=port, **DATA)
    node.apply("b.yaml", pod("late", late, **more))
    node.wait_status("late", "Pending")
    node.cli("reset", "--yes", timeout=60)
    assert (node.base / "data/log").read_text().split() == ["first"]


def test_reset_now_kills(node: Node) -> None:
    _start(node)
    done = node.cli("reset", "--yes", "--now", timeout=60)
    assert "This ends at once, without stop signal: default/deaf, default/whole" in done.out
    assert "killed pod default/whole" in done.out
    assert not (node.base / "data/log").exists()


def test_losses_are_listed_and_confirmed(node: Node) -> None:
    node.apply("p.yaml", pod("p", container(), terminationGracePeriodSeconds=30))
    node.wait_status("p", "Running")
    node.cli("node", "label", "disk=ssd")
    node.cli("node", "taint", "gpu=yes:NoSchedule")
    node.cli("node", "cordon")
    pid = node.pid("p")

    refused = node.cli("reset", check=False)
    assert refused.code == 1
    assert refused.err.strip() == (
        "error: reset asks before it removes this, and there is no terminal to ask on: use --yes"
    )
    for line in (
        "This ends gracefully, within 30 s: default/p",
        "  labels of the node: disk=ssd",
        "  taints of the node: gpu=yes:NoSchedule",
        "  that the node is cordoned",
    ):
        assert line in refused.out.splitlines(), refused.out
    assert "  of 1 pod: logs, events, restart counts" in refused.out
    assert "  the history since " in refused.out
    declined = _on_a_terminal(node, b"n\n", "reset")
    assert declined.code == 1
    assert "nothing was changed" in declined.out
    assert node.pid("p") == pid
    assert node.status_of("p") == "Running"

    agreed = _on_a_terminal(node, b"y\n", "reset", "--timeout", "1s")
    assert agreed.code == 0, agreed.out
    assert "removed bridge" in agreed.out
    again = node.cli("reset", timeout=60)
    assert again.out == f"nothing runs: {node.run_dir} has no daemon, pod or network to remove\n"


def _on_a_terminal(node: Node, answer: bytes, *arguments: str) -> Finished:
    ours, theirs = pty.openpty()
    try:
        command = node.in_netns(*KUBELITE, *arguments)
        process = subprocess.Popen(
            command, cwd=REPO, env=node.environ(), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        said = b""
        while b"Continue? [y/N]" not in said and wait_fd(ours):
            said += os.read(ours, 4096)
        os.write(ours, answer)
        while wait_fd(ours):
            try:
                said += os.read(ours, 4096)
            except OSError:  # EIO: the other end is closed
                break
        return Finished(process.wait(60 * PATIENCE), said.decode(), "")
    finally:
        os.close(ours)


def test_the_daemon_continues_an_interrupted_reset(node: Node) -> None:
    _start(node)
    before = node.pod("deaf")["metadata"]["uid"]
    process = subprocess.Popen(
        node.in_netns(*KUBELITE, "reset", "--yes"),
        cwd=REPO,
        env=node.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    while "ended pod default/whole" not in (line := process.stdout.readline()):
        assert line, "it ended early"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30 * PATIENCE)
    assert process.returncode == 130
    assert "interrupted: some pods may still run or end" in err
    node.start()
    assert node.status_of("deaf") == "Terminating"
    node.cli("delete", "pod", "deaf", "--now")
    node.wait_status("deaf", "Running")
    assert node.pod("deaf")["metadata"]["uid"] != before


POSTGRES = Path("/usr/lib/postgresql")


def _postgres() -> str:
    """The directory of the newest installed server, or ""."""
    found = sorted(POSTGRES.glob("*/bin/postgres"), key=lambda path: int(path.parents[1].name))
    return str(found[-1].parent) if found else ""


@pytest.mark.skipif(not _postgres(), reason="needs postgresql")
def test_postgres_is_shut_down_and_does_not_recover(node: Node) -> None:
    # below /tmp itself: pytest's directories are closed to the server's user
    with tempfile.TemporaryDirectory(prefix="kubelite-pg-") as data:
        _postgres_survives(node, data)


def _postgres_survives(node: Node, data: str) -> None:
    user = 65534
    os.chown(data, user, user)
    subprocess.run(
        [f"{_postgres()}/initdb", "-D", data, "-U", "postgres", "--no-locale", "--no-sync"],
        check=True, capture_output=True, user=user, group=user, extra_groups=[],
    )  # fmt: skip
    wanted = [f"{_postgres()}/postgres", "-D", "/pg", "-k", "/pg", "-h", "127.0.0.1"]
    places = {"/usr": "/usr", "/lib": "/lib", "/lib64": "/lib64", "/etc": "/etc", "/pg": data}
    places = {inside: path for inside, path in places.items() if os.path.exists(path)}
    mounts = [{"name": f"v{n}", "mountPath": inside} for n, inside in enumerate(places)]
    volumes = [{"name": f"v{n}", "hostPath": {"path": path}} for n, path in enumerate(places.values())]
    main = container(
        command=wanted, volumeMounts=mounts, securityContext={"runAsUser": user, "runAsGroup": user}
    )
    node.apply("db.yaml", pod("db", main, volumes=volumes, terminationGracePeriodSeconds=30))
    node.wait(lambda: "ready to accept connections" in node.logs("db"), "the first start")
    done = node.cli("reset", "--yes", timeout=90)
    assert "ended pod default/db in " in done.out
    node.start()
    node.wait(lambda: "ready to accept connections" in node.logs("db"), "the second start")
    said = node.logs("db")
    assert "database system was shut down at" in said, said
    assert "not properly shut down" not in said
