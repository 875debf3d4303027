"""Lifecycle hooks end to end: postStart before the container counts as running, preStop before its stop signal."""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.manifests import SLEEP, container, pod
from tests.e2e.node import Node

SHARED: dict[str, Any] = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}


def sh(script: str) -> dict[str, Any]:
    return {"exec": {"command": ["sh", "-c", script]}}


def data(node: Node) -> list[dict[str, Any]]:
    path = str(node.base / "data")
    return [{"name": "data", "hostPath": {"path": path, "type": "DirectoryOrCreate"}}]


def test_post_start_delays_later_containers(node: Node) -> None:
    first = container(
        "first", lifecycle={"postStart": sh("until [ -e /data/go ]; do sleep 0.05; done")}, **SHARED
    )
    text = pod("p", first, container("second"), volumes=data(node))
    node.apply("p.yaml", text)
    node.wait(lambda: node.container("p", "first").get("state"), "the first look")
    assert node.status_of("p") == "ContainerCreating"
    assert node.container("p", "second")["state"]["waiting"]["reason"] == "ContainerCreating"
    node.restart()  # during the hook: it runs again
    assert not node.container("p", "first")["ready"]
    (node.base / "data" / "go").touch()
    node.wait_status("p", "Running")
    pid = node.pid("p", "first")
    node.restart()
    node.wait_status("p", "Running")
    assert node.pid("p", "first") == pid
    assert node.container("p", "first")["restartCount"] == 0


def test_a_post_start_that_fails_kills_its_container(node: Node) -> None:
    failing = container(lifecycle={"postStart": sh("exit 1")})
    node.apply("f.yaml", pod("f", failing, restartPolicy="Never"))
    node.wait(lambda: node.pod("f")["status"].get("phase") in ("Failed", "Succeeded"), "the end")
    node.wait(lambda: node.events("FailedPostStartHook"), "its event")
    assert node.events("FailedPostStartHook")[0]["message"] == "PostStartHook failed"
    assert "FailedPostStartHook" in [e["message"] for e in node.events("Killing")]


def test_pre_stop_runs_before_the_signal_within_the_grace(node: Node) -> None:
    main = container(
        script="trap 'echo told >> /data/log; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        lifecycle={"preStop": sh("echo hook >> /data/log; sleep 0.3; echo done >> /data/log")},
        **SHARED,
    )
    node.apply("p.yaml", pod("p", main, volumes=data(node), terminationGracePeriodSeconds=20))
    endless = container(script=SLEEP, lifecycle={"preStop": {"sleep": {"seconds": 600}}})
    node.apply("e.yaml", pod("e", endless, terminationGracePeriodSeconds=600))
    node.wait_status("p", "Running")
    node.wait_status("e", "Running")
    (node.manifests / "p.yaml").unlink()
    node.wait_gone("p")
    assert (node.base / "data" / "log").read_text().split() == ["hook", "done", "told"]
    began = time.monotonic()
    (node.manifests / "e.yaml").unlink()
    node.wait(lambda: node.status_of("e") == "Terminating", "the deletion")
    node.kill()  # while the hook is sleeping
    node.start()
    node.cli("delete", "pod", "e", "--grace-period", "1")
    node.wait_gone("e")
    assert time.monotonic() - began < 60
    node.wait(
        lambda: "FailedPreStopHook" in [e["reason"] for e in node.events()], "that the hook was cut short"
    )
