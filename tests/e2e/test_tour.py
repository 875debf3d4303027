"""`kubelite tour`: every station on a real node, and what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from kubelite.cli.tour.tour import NAMES
from tests.e2e.node import KUBELITE, REPO, Node
from tests.e2e.terminal import on_terminal
from tests.programs import missing

PROGRAMS = ("busybox", "ip", "nsenter", "ps", "nft", "curl", "ping")

pytestmark = [
    pytest.mark.skipif(bool(missing(*PROGRAMS)), reason=f"needs {missing(*PROGRAMS)}"),
    pytest.mark.timeout(600),
]


def started(node: Node, *arguments: str) -> subprocess.Popen[str]:
    command = node.in_netns(*KUBELITE, "tour", "--check", *arguments)
    return subprocess.Popen(
        command, cwd=REPO, env=node.environ(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def left(node: Node, tour: subprocess.Popen[str] | subprocess.Popen[bytes]) -> list[str]:
    """What the tour left on the node and on the machine. nsenter(1) becomes the tour, so the pid is the tour's."""
    found = [line for line in node.cli("get", "pods", "-A", "-o", "name").out.splitlines() if line]
    found += [line for line in node.cli("images", "-o", "name").out.splitlines() if "kubelite-tour" in line]
    found += [str(path) for path in node.manifests.iterdir()]
    places = {"/tmp", "/dev/shm", "/run", os.environ.get("TMPDIR", "/tmp")}
    found += [str(path) for place in places for path in Path(place).glob(f"kubelite-tour-{tour.pid}-*")]
    return found


OF_CGROUPS = ("inspect", "bundle", "limits", "start")


@pytest.mark.parametrize(
    "station",
    [pytest.param(name, marks=() if name in OF_CGROUPS else pytest.mark.either_cgroup) for name in NAMES],
)
def test_a_station(node: Node, station: str) -> None:
    tour = started(node, station, "--kill-daemon")
    said, _ = tour.communicate(timeout=500)
    assert tour.returncode == 0, said
    assert "✓" in said and "✗" not in said
    assert " checks passed, 0 failed." in said
    assert left(node, tour) == []


@pytest.mark.either_cgroup
def test_the_tour_cleans_up_after_ctrl_c(node: Node) -> None:
    tour = started(node, "overlay")
    node.wait(lambda: "overlay" in node.cli("get", "pods", "-A", "-o", "name").out, "the tour's pod", 60)
    tour.send_signal(signal.SIGINT)
    said, _ = tour.communicate(timeout=120)
    assert tour.returncode == 130, said
    assert left(node, tour) == []


@pytest.mark.either_cgroup
def test_on_a_terminal_it_waits_for_the_reader(node: Node) -> None:
    command = node.in_netns(*KUBELITE, "tour", "disk")
    with on_terminal(command, node.environ(), columns=120) as terminal:
        terminal.expect("2[.] What is on the disk")
        terminal.expect("Enter to go on")
        assert not terminal.read(1.0), "it waits"
        terminal.type("\n")
        terminal.expect("pod/disk created")
        terminal.expect("Enter to go on")
        # readline loses an interrupt that arrives while it sets up the terminal: press again, as a person does
        for _ in range(10):
            terminal.type("\x03")
            while "removing what it made" not in terminal.seen and terminal.read(2.0):
                pass
            if "removing what it made" in terminal.seen:
                break
        assert terminal.wait() == 130
        assert "removing what it made" in terminal.seen
        assert left(node, terminal.process) == []


@pytest.mark.either_cgroup
def test_without_a_node_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [*KUBELITE, "tour", "--socket", str(tmp_path / "none")], cwd=REPO, capture_output=True, text=True,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1
    assert "sudo make run" in done.stderr and "systemctl start kubelite" in done.stderr
