"""`make run` when something on the machine is in the way: it says what, and does not wait for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import PATIENCE, REPO, TIMEOUT, Node

PROGRAM = Path(sys.executable).with_name("kubelite")
LISTEN = "import socket, sys; s = socket.create_server(('', 8080)); print(flush=True); sys.stdin.read()"


@pytest.fixture
def machine(tmp_path: Path, images: Path) -> Iterator[Node]:
    """A node that is not started yet, with the examples as its manifests and their image."""
    node = Node(tmp_path)
    node.prepare()
    subprocess.run(["cp", "-a", "--reflink=auto", str(images), str(node.root / "images")], check=True)
    try:
        yield node
    finally:
        node.destroy()
    assert not node.leftovers()


def test_a_port_that_another_program_has(machine: Node) -> None:
    shutil.copy(REPO / "manifests/examples/web.yaml", machine.manifests)
    taker = subprocess.Popen(
        machine.in_netns(sys.executable, "-c", LISTEN), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert taker.stdout is not None
        assert taker.stdout.readline(), "the port is taken"
        done = subprocess.run(
            machine.in_netns(str(REPO / "deploy/run"), str(PROGRAM), str(machine.manifests)),
            cwd=REPO, env=machine.environ(), capture_output=True, text=True, check=False,
            timeout=2 * TIMEOUT * PATIENCE,
        )  # fmt: skip
        assert done.returncode == 1
        assert (
            "waiting for pod default/web: ContainerCreating, Failed to create pod sandbox: host port"
            in done.stdout
        )
        assert "Another program has the port. Stop it, and the pod starts by itself" in done.stderr
        assert "is in use by a process of the host" in machine.cli("why", "web").out
        assert "once the port is free" in machine.cli("why", "web").out
    finally:
        taker.communicate()
    machine.wait_status("web", "Running", timeout=60)
