"""The daemon under a service manager: what it is told, and SIGHUP, which reads the settings again."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.manifests import pod
from tests.e2e.node import TIMEOUT, Node, running_node
from tests.waiting import PATIENCE

SILENCE = 2.0  # seconds without a ping after which the service manager acts


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(TIMEOUT * PATIENCE)
        yield systemd


def until(systemd: socket.socket, word: str) -> str:
    """The first message with that assignment."""
    while True:
        text = systemd.recv(4096).decode()
        if word in text.split("\n"):
            return text


def test_a_service_manager_hears_of_start_reload_and_stop(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(tmp_path / "notify") as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        with running_node(tmp_path / "node", images) as node:
            assert "STATUS=0 pods, 0 running" in until(systemd, "READY=1")
            node.apply("a.yaml", pod("a"))
            node.wait_status("a", "Running")
            while "STATUS=1 pods, 1 running" not in until(systemd, "WATCHDOG=1"):
                pass
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{node.pid('a')}/environ").read_bytes()
            check_reload(node, systemd)
            pid = node.pid("a")
            node.stop()
            until(systemd, "STOPPING=1")
            node.start()
            until(systemd, "READY=1")
            assert node.pid("a") == pid


def check_reload(node: Node, systemd: socket.socket) -> None:
    def reload(text: str) -> str:
        (node.base / "config.yaml").write_text(text)
        assert node.daemon is not None
        node.daemon.send_signal(signal.SIGHUP)
        until(systemd, "RELOADING=1")
        return until(systemd, "READY=1")

    said = reload("history_time: 1h\nmax_pods: 7\n")
    assert "applied history_time; max_pods need a restart" in said
    assert "max_pods need a restart" in node.tail()
    said = reload("history_tim: 1h\n")
    assert 'unknown setting "history_tim", did you mean "history_time"?' in said
    assert node.status_of("a") == "Running"
    assert "nothing has changed" in reload("history_time: 1h\n")


@pytest.mark.timeout(300)
def test_a_service_manager_restarts_a_daemon_that_is_stuck(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd with WatchdogSec= and Restart=always: no ping for so long, then SIGABRT, then the next daemon. Nobody
    else notices: the container stays the same process, and what was applied meanwhile starts."""
    with listening(tmp_path / "notify") as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(SILENCE * 1e6)))
        with running_node(tmp_path / "node", images) as node:
            until(systemd, "READY=1")
            node.apply("a.yaml", pod("a"))
            node.wait_status("a", "Running")
            before, restarts = node.pid("a"), node.container("a")["restartCount"]
            assert node.daemon is not None
            first = node.daemon.pid
            until(systemd, "WATCHDOG=1")
            node.daemon.send_signal(signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                systemd.settimeout(SILENCE)
                while True:  # pings that were sent before
                    systemd.recv(4096)
            systemd.settimeout(TIMEOUT * PATIENCE)
            node.apply("b.yaml", pod("b"))
            node.daemon.send_signal(signal.SIGABRT)
            node.daemon.send_signal(signal.SIGCONT)
            assert node.daemon.wait(TIMEOUT * PATIENCE) == -signal.SIGABRT
            node.start()
            until(systemd, "READY=1")
            until(systemd, "WATCHDOG=1")
            node.wait_status("b", "Running")
            assert node.daemon.pid != first
            assert node.pid("a") == before and node.container("a")["restartCount"] == restarts
