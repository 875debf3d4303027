"""Graceful node shutdown: the pods terminate in order, within their time, and are recreated when the node is back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node
from tests.logind_peer import LogindPeer

LATE = "trap 'sleep 0.2; echo $NAME >> /data/log; exit 0' TERM; echo up; while :; do sleep 0.05; done"


def test_pods_terminate_before_the_machine_and_are_recreated(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = LogindPeer(tmp_path / "bus", delay=120.0)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    bus.start()
    wanted = {"shutdown_grace_period": "60s", "shutdown_grace_period_critical_pods": "20s"}
    try:
        with running_node(tmp_path / "node", images, **wanted) as node:
            _shut_down(node, bus)
    finally:
        bus.close()


def _pods(node: Node) -> None:
    (node.base / "data").mkdir()
    data = [{"name": "data", "hostPath": {"path": str(node.base / "data")}}]
    critical: dict[str, Any] = {"priorityClassName": "system-node-critical"}
    for name, spec in (("web", {}), ("dns", critical)):
        one = container(
            script=LATE,
            env=[{"name": "NAME", "value": name}],
            volumeMounts=[{"name": "data", "mountPath": "/data"}],
        )
        node.apply(f"{name}.yaml", pod(name, one, volumes=data, terminationGracePeriodSeconds=30, **spec))
    node.apply("once.yaml", pod("once", container(), restartPolicy="Never"))
    for name in ("web", "dns", "once"):
        node.wait_status(name, "Running")


def _shut_down(node: Node, bus: LogindPeer) -> None:
    _pods(node)
    node.wait(bus.held, "the lock")
    before = node.pod("web")["metadata"]["uid"]
    bus.prepare_for_shutdown(True)
    node.wait(lambda: not bus.held(), "the pods to have ended, and the lock to be let go")
    assert (node.base / "data/log").read_text().split() == ["web", "dns"], "the critical one last"
    for name in ("web", "dns", "once"):
        status = node.pod(name)["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "Terminated")
    assert not list((node.run_dir / "shims").iterdir())
    node.apply("late.yaml", pod("late"))
    node.wait_status("late", "NodeShutdown")
    told = [e["message"] for e in node.events("NodeShutdown") if e["involvedObject"]["kind"] == "Node"]
    assert told == ["Shutdown manager detected shutdown event"]
    bus.prepare_for_shutdown(False)
    for name in ("web", "dns", "late"):
        node.wait_status(name, "Running")
    node.wait(bus.held, "the lock to be held again")
    assert node.pod("web")["metadata"]["uid"] != before
    assert node.pod("once")["status"]["reason"] == "Terminated", "a pod that is not to be restarted stays"
    bus.prepare_for_shutdown(True)
    node.wait(lambda: not bus.held(), "the second shutdown")
    bus.shutting_down = False
    node.restart(9)  # as after the next start of the machine
    for name in ("web", "dns"):
        node.wait_status(name, "Running")
