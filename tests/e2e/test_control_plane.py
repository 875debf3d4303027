"""A node in a cluster whose control plane is Kubernetes' own: it joins, runs a Deployment, is drained, outlives the API
server and its own death, comes back after it was deleted, and leaves."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.cluster.control_plane import ControlPlane, missing
from tests.e2e.node import IMAGE, Node, running_node
from tests.waiting import until

OWN = f"""
apiVersion: v1
kind: Pod
metadata: {{name: own}}
spec:
  containers:
  - {{name: main, image: "{IMAGE}", imagePullPolicy: Never, command: [sh, -c, "echo own; exec sleep 10000"]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: words}}
data: {{a: b}}
---
apiVersion: v1
kind: Pod
metadata: {{name: reader}}
spec:
  containers:
  - name: main
    image: "{IMAGE}"
    imagePullPolicy: Never
    command: [sleep, "10000"]
    envFrom: [{{configMapRef: {{name: words}}}}]
"""
LONG = 90.0  # seconds: controllers of a cluster look every few seconds


@pytest.fixture
def cluster(tmp_path: Path, images: Path) -> Iterator[tuple[Node, ControlPlane]]:
    if lacking := missing() or programs.missing("kubectl"):
        pytest.skip(f"needs {lacking}")
    with running_node(tmp_path / "node", images) as node:
        (tmp_path / "plane").mkdir()
        plane = ControlPlane(tmp_path / "plane", node.in_netns)
        try:
            plane.start()
            yield node, plane
        finally:
            plane.close()


def _deployment() -> dict[str, Any]:
    script = "echo hello; trap 'exit 0' TERM; while :; do sleep 0.2; done"
    container = {
        "name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script],
    }  # fmt: skip
    labels = {"app": "web"}
    pod = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def _ready(plane: ControlPlane) -> int:
    return int((plane.get("deployment", "web").get("status") or {}).get("readyReplicas") or 0)


def _node_is_ready(plane: ControlPlane, name: str) -> bool:
    conditions = (plane.get("node", name).get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _joins_although_it_is_killed(node: Node, plane: ControlPlane) -> None:
    """Kill the daemon at different moments of joining. It has joined or not, and can join again."""
    for moment in (0.05, 0.2, 0.4, 0.8):
        command = node.in_netns(*node.program, "join", plane.line)
        joining = subprocess.Popen(
            command, env=node.environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moment)  # no condition says where joining is, and each place must do
        node.kill()
        joining.wait(30)
        node.start()
    done = node.cli("join", plane.line, check=False, timeout=90)
    assert f"node {node.name} is registered" in done.out or "is a member" in done.out + done.err


def _has_mirrors(node: Node, plane: ControlPlane) -> None:
    """The cluster sees the node's own pods, and a mirror that somebody deletes comes back. The pod runs on."""
    name = f"own-{node.name}"

    def mirror() -> Any:
        found = plane.get("pod", name)
        return found if (found.get("status") or {}).get("phase") == "Running" else None

    first, process = until(mirror, "the mirror pod to run", LONG), node.pid("own")
    assert first["metadata"]["ownerReferences"][0]["kind"] == "Node"
    assert plane.kubectl("logs", name) == "own\n"
    plane.kubectl("delete", "pod", name, "--wait=false")
    again = until(
        lambda: (one := mirror()) and one["metadata"]["uid"] != first["metadata"]["uid"] and one,
        "a new one",
        LONG,
    )
    assert again and node.pid("own") == process
    assert not plane.get("pod", f"reader-{node.name}")
    (event,) = until(lambda: node.events("MirrorPodRefused"), "the refusal to be told", LONG)
    assert "reader" in event["involvedObject"]["name"] and "configmap" in event["message"]


def test_a_node_of_a_real_cluster(cluster: tuple[Node, ControlPlane]) -> None:
    node, plane = cluster
    node.apply("own.yaml", OWN)
    _joins_although_it_is_killed(node, plane)
    until(lambda: _node_is_ready(plane, node.name), "the node to be ready", LONG)

    plane.kubectl("apply", "-f", "-", given=json.dumps(_deployment()))
    until(lambda: _ready(plane) == 2, "the Deployment to be ready", LONG)
    assert plane.kubectl("logs", "deployment/web") == "hello\n"
    assert plane.kubectl("exec", "deployment/web", "--", "sh", "-c", "echo $0 there") == "sh there\n"

    _has_mirrors(node, plane)
    plane.kubectl("drain", node.name, "--timeout=60s")
    assert not plane.get("pods", "-l", "app=web", "--field-selector=status.phase=Running")["items"]
    plane.kubectl("uncordon", node.name)
    until(lambda: _ready(plane) == 2, "the Deployment to be ready after the drain", LONG)

    (first, *_) = plane.get("pods", "-l", "app=web")["items"]
    name, instance = first["metadata"]["name"], first["status"]["containerStatuses"][0]["containerID"]
    process = node.pid(name)
    plane.stop_server()
    node.kill()
    node.start()  # without an API server
    assert node.pid(name) == process
    plane.start_server()
    until(lambda: _ready(plane) == 2, "the Deployment to be ready again", LONG)
    assert plane.get("pod", name)["status"]["containerStatuses"][0]["containerID"] == instance

    plane.kubectl("delete", "node", node.name)
    until(lambda: _node_is_ready(plane, node.name), "the deleted node to be registered again", LONG)
    until(lambda: _ready(plane) == 2, "the Deployment to be ready on the node that came back", LONG)

    said = node.cli("leave", "--timeout=60s", timeout=90).out
    assert "pods are evicted" in said
    assert f"kubectl delete node {node.name}" in said
    until(
        lambda: {one["metadata"]["name"] for one in node.json("get", "pods")["items"]} == {"own", "reader"},
        "the cluster's pods to be gone", LONG,
    )  # fmt: skip
    assert not plane.get("pod", f"own-{node.name}"), "mirror pods are deleted"
    assert plane.get("node", node.name)["spec"]["unschedulable"]
