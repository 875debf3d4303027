"""Probes end to end: readiness in the status, restarts with kubelet's messages, and restarts of the daemon."""

from __future__ import annotations

import os
from typing import Any

from kubelite.node.probing.turns import PER_PROCESSOR
from tests.e2e.manifests import SLEEP, container, pod
from tests.e2e.node import Node

SOON = {"periodSeconds": 1, "failureThreshold": 1}
HTTPD = "mkdir -p /www && echo ok > /www/index.html && exec httpd -f -p 8080 -h /www"


def conditions(node: Node, name: str) -> dict[str, str]:
    return {c["type"]: c["status"] for c in node.pod(name)["status"].get("conditions", ())}


def said(node: Node, reason: str) -> list[str]:
    return [event["message"] for event in node.events(reason)]


def test_readiness_with_every_kind_of_probe(node: Node) -> None:
    file = {"exec": {"command": ["test", "-e", "/tmp/ready"]}}
    containers: list[dict[str, Any]] = [
        container("exec", readinessProbe={**file, **SOON}),
        container(
            "http",
            HTTPD,
            ports=[{"containerPort": 8080, "name": "web"}],
            readinessProbe={"httpGet": {"path": "/index.html", "port": "web"}, **SOON},
        ),
        container("tcp", readinessProbe={"tcpSocket": {"port": 8080}, **SOON}),
        container("grpc", readinessProbe={"grpc": {"port": 8080}, **SOON}),
    ]
    node.apply("r.yaml", pod("r", *containers))
    node.wait(lambda: node.container("r", "tcp").get("ready"), "the port to be open")
    node.wait(lambda: node.container("r", "http").get("ready"), "the page to be there")
    assert conditions(node, "r")["Ready"] == "False"
    assert not node.container("r", "exec")["ready"]
    message = "containers with unready status: [exec grpc]"
    assert message in [c.get("message") for c in node.pod("r")["status"]["conditions"]]
    row = node.cli("get", "pod", "r", "--no-headers").out.split()
    assert row[1:3] == ["2/4", "Running"]
    node.wait(lambda: any(m.startswith("Readiness probe failed: error: health rpc") for m in said(node, "Unhealthy")),
              "the gRPC probe to be answered by what is no gRPC server")  # fmt: skip
    node.cli("exec", "r", "-c", "exec", "--", "touch", "/tmp/ready")
    node.wait(lambda: node.container("r", "exec").get("ready"), "the file to be seen")
    assert all(c["restartCount"] == 0 for c in node.pod("r")["status"]["containerStatuses"])


def test_a_failed_liveness_probe_restarts_the_container_and_a_daemon_does_not(node: Node) -> None:
    live = {"exec": {"command": ["test", "!", "-e", "/tmp/ill"]}, **SOON}
    slow = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 2}
    containers = [
        container("live", "rm -f /tmp/ill; " + SLEEP, livenessProbe=live, readinessProbe={**live}),
        container(
            "starts", "trap '' TERM; sleep 1000 & wait", startupProbe={**slow, "failureThreshold": 100}
        ),
        container("plain"),
    ]
    node.apply("l.yaml", pod("l", *containers))
    node.wait_status("l", "Running")
    node.wait(lambda: node.container("l", "live").get("ready"), "the first to be ready")
    assert (node.container("l", "starts")["started"], node.container("l", "starts")["ready"]) == (
        False,
        False,
    )
    node.cli("exec", "l", "-c", "starts", "--", "touch", "/tmp/up")
    node.wait(lambda: node.container("l", "starts").get("started"), "its startup probe to succeed")
    pids = {name: node.pid("l", name) for name in ("live", "starts", "plain")}
    node.cli("exec", "l", "-c", "starts", "--", "rm", "/tmp/up")

    node.restart()
    assert node.container("l", "live")["ready"], "what was ready stays so until a probe says otherwise"
    assert node.container("l", "starts")["started"], "what had started is not asked again"
    node.cli("exec", "l", "-c", "live", "--", "touch", "/tmp/ill")
    node.wait(lambda: node.container("l", "live").get("restartCount") == 1, "the restart")
    node.wait(lambda: node.container("l", "live").get("ready"), "it to be ready again")
    assert {name: node.pid("l", name) for name in ("starts", "plain")} == {
        "starts": pids["starts"],
        "plain": pids["plain"],
    }
    node.wait(
        lambda: "Container live failed liveness probe, will be restarted" in said(node, "Killing"),
        "its event",
    )
    assert any(m.startswith("Liveness probe failed: ") for m in said(node, "Unhealthy"))
    assert node.container("l", "live")["lastState"]["terminated"]["exitCode"] == 0


def test_a_failed_startup_probe_under_never(node: Node) -> None:
    probe = {"exec": {"command": ["false"]}, **SOON, "terminationGracePeriodSeconds": 1}
    stubborn = container(script="trap '' TERM; while :; do sleep 0.1; done", startupProbe=probe)
    text = pod("never", stubborn, restartPolicy="Never", terminationGracePeriodSeconds=600)
    node.apply("n.yaml", text)
    node.wait_status("never", "Error")
    node.wait(lambda: node.pod("never")["status"].get("phase") == "Failed", "the end")
    ended = node.container("never")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "Error")
    node.wait(lambda: "Container main failed startup probe" in said(node, "Killing"), "its event")


def test_a_mended_probe_does_not_wait_and_diff_does_not_blame_the_edit(node: Node) -> None:
    def written(path: str) -> str:
        probe = {"exec": {"command": ["test", "-e", path]}, **SOON}
        slow = {"kubelite.io/crash-back-off-initial": "5m"}
        return pod("p", container(livenessProbe=probe), annotations=slow, terminationGracePeriodSeconds=1)

    node.apply("p.yaml", written("/missing"))
    node.wait_status("p", "CrashLoopBackOff", timeout=60)
    other = node.base / "other.yaml"
    other.write_text(
        node.manifests.joinpath("p.yaml").read_text().replace("name: p", "name: p\n  labels: {a: b}")
    )
    said_by_diff = node.cli("diff", "-f", str(other), check=False).out
    assert "nothing is restarted" in said_by_diff
    assert "CrashLoopBackOff" not in said_by_diff
    node.apply("p.yaml", written("/"))
    node.wait_status("p", "Running", timeout=10)


def test_hung_commands_do_not_keep_other_probes_from_starting(node: Node) -> None:
    """More of them than can start at a time, so that they hold every turn at once."""
    hung = {"exec": {"command": ["sleep", "20"]}, "timeoutSeconds": 20, "periodSeconds": 20}
    count = PER_PROCESSOR * len(os.sched_getaffinity(0)) + 2
    first = [container(f"hung{number}", readinessProbe=hung) for number in range(count)]
    last = container("quick", readinessProbe={"exec": {"command": ["true"]}, **SOON})
    node.apply("t.yaml", pod("t", *first, last))
    node.wait_status("t", "Running")
    node.wait(lambda: node.container("t", "quick").get("ready"), "the probe behind them", timeout=10)
    assert said(node, "Unhealthy") == [], "the wait for a turn is no part of a timeout"
