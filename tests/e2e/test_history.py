"""History on a whole node: across restarts and kill -9, pods of a past moment, and rollback."""

from __future__ import annotations

import signal

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node


def manifest(script: str) -> str:
    return pod(
        "web",
        container(script=f"trap 'exit 0' TERM; {script}; while :; do sleep 0.1; done"),
        terminationGracePeriodSeconds=1,
    )


def says(node: Node, word: str) -> bool:
    return word in node.cli("logs", "web", check=False).out.split()


def test_a_rollout_waits_for_the_container_of_the_new_definition(node: Node) -> None:
    """By its status, the pod is ready with its last generation while the old container is in its grace period."""
    slow = "trap 'sleep 3; exit 0' TERM; echo first; while :; do sleep 0.1; done"
    node.apply("web.yaml", pod("web", container(script=slow), terminationGracePeriodSeconds=20))
    assert "successfully rolled out" in node.cli("rollout", "status", "web").out
    before = node.pod("web")["status"]["containerStatuses"][0]["containerID"]
    new = pod("web", container(script=slow.replace("first", "second")), terminationGracePeriodSeconds=20)
    (node.base / "new.yaml").write_text(new)
    node.cli("apply", "-f", str(node.base / "new.yaml"))
    assert "successfully rolled out" in node.cli("rollout", "status", "web").out
    (after,) = node.pod("web")["status"]["containerStatuses"]
    assert after["containerID"] != before and "running" in after["state"]
    node.wait(lambda: says(node, "second"), "the new script")


def test_history_and_rollback(node: Node) -> None:
    node.apply("web.yaml", manifest("echo one"))
    node.wait(lambda: says(node, "one"), "the first version")
    node.wait_status("web", "Running")
    moment = node.cli("history", "web", "--limit", "1").out.splitlines()[-1].split()[0]
    uid = node.pod("web")["metadata"]["uid"]

    node.apply("web.yaml", manifest("echo two"))
    node.wait(lambda: says(node, "two"), "the second version")
    node.kill(signal.SIGKILL)
    node.start()
    assert node.pod("web")["metadata"]["uid"] == uid

    undone = node.cli("rollout", "undo", "pod/web").out
    assert undone.startswith(f"{node.manifests}/web.yaml rolled back to revision 1")
    node.wait(lambda: says(node, "one"), "the first version again")
    assert "rolled back" in node.cli("rollout", "undo", "pod/web").out
    node.wait(lambda: says(node, "two"), "the undo of the undo")
    assert (node.manifests / "web.yaml").read_text() == manifest("echo two")

    (node.manifests / "web.yaml").unlink()
    node.wait_gone("web")
    then = node.json("get", "pod", "web", "--at", moment, "-o", "json")
    assert then["metadata"]["uid"] == uid
    assert then["status"]["containerStatuses"][0]["restartCount"] == 0
    assert "Running" in node.cli("get", "pods", "--at", moment).out
    assert node.cli("get", "pods", "-o", "name").out == ""

    entries = node.json("history", "web", "-o", "json")["entries"]
    words = [(entry["what"], entry["reason"], entry["message"]) for entry in entries]
    assert words[0] == ("ADDED", "", f"created from {node.manifests}/web.yaml")
    assert words[-1][0] == "DELETED"
    assert any(what == "Normal" and reason == "Started" for what, reason, _ in words)
    assert any(what == "Decision" and "because" in message for what, _, message in words)
    assert any(what == "MODIFIED" and "phase Pending → Running" in message for what, _, message in words)
    assert any("spec.containers[0]" in message for what, _, message in words if what == "MODIFIED")
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)

    assert "rolled back" in node.cli("rollout", "undo", "web.yaml").out, (
        "a manifest that was removed comes back"
    )
    node.wait_status("web", "Running")
