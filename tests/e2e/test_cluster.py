"""A whole node in a cluster: it joins a small API server in its network namespace, runs a pod of it, and leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.e2e import api
from tests.e2e.node import IMAGE, REPO, Node, running_node

PODS = "/api/v1/namespaces/default/pods"


class Cluster:
    """The API server of a cluster, and what an administrator does there."""

    def __init__(self, node: Node, directory: Path) -> None:
        self.node = node
        self.directory = directory
        command = node.in_netns(sys.executable, "-m", "tests.cluster.fake_api", str(directory))
        self.process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = api._Unix(str(self.directory / "admin.sock"), 30.0)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            found = json.loads(answer.read())
            return found if answer.status < 400 else None
        finally:
            connection.close()

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = (self.ask("GET", f"{PODS}/{name}") or {}).get("status") or {}
        return found

    def container(self, name: str) -> dict[str, Any]:
        statuses = self.status(name).get("containerStatuses") or [{}]
        found: dict[str, Any] = statuses[0]
        return found

    def port(self, *arguments: str) -> str:
        """Ask the node's server as the API server does. The port can open after the first pod is ready."""
        login = str(self.directory / "admin.pem")
        retry = ("--retry", "4", "--retry-connrefused")
        command = self.node.in_netns("curl", "-sk", *retry, "--cert", login, *arguments)
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture
def node(tmp_path: Path, images: Path) -> Iterator[Node]:
    with running_node(tmp_path, images) as found:
        yield found


@pytest.fixture
def cluster(node: Node, tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    found = Cluster(node, tmp_path / "cluster")
    yield found
    found.close()


def _pod(node: Node, name: str) -> dict[str, Any]:
    script = "cat /conf/a; echo $GREETING; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    container = {
        "name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script],
        "env": [{"name": "GREETING", "valueFrom": {"secretKeyRef": {"name": "words", "key": "a"}}}],
        "volumeMounts": [{"name": "conf", "mountPath": "/conf"}],
    }  # fmt: skip
    volumes = [{"name": "conf", "configMap": {"name": "conf"}}]
    spec = {
        "nodeName": node.name,
        "containers": [container],
        "volumes": volumes,
        "terminationGracePeriodSeconds": 5,
    }
    return {"metadata": {"name": name}, "spec": spec, "status": {"phase": "Pending"}}


def test_a_node_joins_a_cluster_runs_its_pod_and_leaves(node: Node, cluster: Cluster) -> None:
    if lacking := programs.missing("curl"):
        pytest.skip(f"needs {lacking}")
    node.apply("own.yaml", f"""
apiVersion: v1
kind: Pod
metadata: {{name: own}}
spec: {{containers: [{{name: main, image: "{IMAGE}", imagePullPolicy: Never, command: [sleep, "10000"]}}]}}
""")  # fmt: skip
    node.wait(lambda: node.status_of("own") == "Running", "the node's own pod to run")
    own = node.pid("own")
    said = node.cli("join", (cluster.directory / "line").read_text()).out
    assert f"node {node.name} is registered" in said
    node.wait(lambda: cluster.ask("GET", f"/api/v1/nodes/{node.name}"), "the Node to exist")

    place = "/api/v1/namespaces/default"
    cluster.ask("POST", f"{place}/configmaps", {"metadata": {"name": "conf"}, "data": {"a": "file\n"}})
    cluster.ask("POST", f"{place}/secrets", {"metadata": {"name": "words"}, "data": {"a": "aGVsbG8="}})
    cluster.ask("POST", PODS, _pod(node, "web"))
    node.wait(
        lambda: cluster.container("web").get("ready"), "the cluster's pod to be ready, as the cluster sees it"
    )
    assert cluster.status("web")["phase"] == "Running"
    assert cluster.status("web")["podIP"].startswith("10.77.0.")
    node.wait(
        lambda: cluster.port("https://127.0.0.1:10250/containerLogs/default/web/main") == "file\nhello\n",
        "the log over the node's port",
    )
    assert json.loads(cluster.port("https://127.0.0.1:10250/pods"))["kind"] == "PodList"

    instance, process = cluster.container("web")["containerID"], node.pid("web")
    node.kill()  # the daemon, in the middle of a membership
    node.start()
    assert node.pid("web") == process
    node.wait(lambda: cluster.ask("GET", f"{PODS}/web") is not None, "the cluster to know the pod")
    assert cluster.container("web")["containerID"] == instance

    cluster.ask("DELETE", f"{PODS}/web")
    node.wait(lambda: cluster.ask("GET", f"{PODS}/web") is None, "the pod to be gone from the cluster")
    assert node.status_of("web") == ""

    cluster.ask("POST", PODS, _pod(node, "last"))
    node.wait(lambda: cluster.container("last").get("ready"), "another pod to be ready")
    said = node.cli("leave", "--timeout=20s").out
    assert "1 pod is evicted" in said
    assert f"kubectl delete node {node.name}" in said
    node.wait(lambda: node.status_of("last") == "", "the cluster's pods to be gone")
    assert node.pid("own") == own
    assert not (node.root / "cluster").exists()
