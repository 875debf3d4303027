"""Commands on workloads of a whole node: the manifest changes in place, and the pods follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import IMAGE, Node, running_node
from tests.e2e.test_workloads import pods, processes

SHOP = f"""\
# The shop.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2 # for now
  selector:
    matchLabels: {{app: web}}
  template:
    metadata:
      labels: {{app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        # as old as the hills
        image: {IMAGE}
        imagePullPolicy: Never
        command: [sh, -c, ": the-first; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("commands"), images) as found:
        yield found


def test_a_deployment_by_commands(node: Node) -> None:
    file = node.apply("web.yaml", SHOP)
    rolled_out = 'deployment "web" successfully rolled out\n'
    node.wait(lambda: node.cli("get", "deployment", "web", check=False).code == 0, "the deployment")
    assert node.cli("rollout", "status", "deployment/web", "--timeout=60s").out.endswith(rolled_out)
    assert processes(node, "the-first") == 2

    assert (
        node.cli("scale", "deployment/web", "--replicas=3", "--timeout=30s").out
        == "deployment.apps/web scaled\n"
    )
    assert node.cli("rollout", "status", "web.yaml", "--timeout=60s").out.endswith(rolled_out)
    assert processes(node, "the-first") == 3
    assert file.read_text() == SHOP.replace("replicas: 2 # for now", "replicas: 3 # for now")
    assert "NewReplicaSet:" in node.cli("describe", "deployment", "web").out

    before = {pod["metadata"]["uid"] for pod in pods(node)}
    node.cli("rollout", "restart", "deployment/web")
    assert node.cli("rollout", "status", "deployment/web", "--timeout=60s").out.endswith(rolled_out)
    node.wait(lambda: before.isdisjoint(pod["metadata"]["uid"] for pod in pods(node)), "new pods")

    node.cli("rollout", "pause", "deployment/web")
    node.cli("set", "image", "deployment/web", "main=localhost/nowhere:1")
    assert {pod["spec"]["containers"][0]["image"] for pod in pods(node)} == {IMAGE}
    node.cli("rollout", "resume", "deployment/web")
    node.wait(lambda: "ErrImageNeverPull" in node.cli("why", "deployment/web").out, "the reason to be told")
    told = node.cli("why", "deployment/web").out
    line = 1 + file.read_text().splitlines().index("        image: localhost/nowhere:1")
    assert f"{file}:{line}" in told
    late = node.cli("rollout", "status", "deployment/web", "--timeout=1s", check=False)
    assert late.code == 1 and "localhost/nowhere:1 is not on the node" in late.err

    assert node.cli("rollout", "undo", "deployment/web").out == "deployment.apps/web rolled back\n"
    assert node.cli("rollout", "status", "deployment/web", "--timeout=60s").out.endswith(rolled_out)
    assert f"        # as old as the hills\n        image: {IMAGE}\n" in file.read_text()
    history = node.cli("rollout", "history", "deployment/web").out.splitlines()
    assert [row.split()[0] for row in history[2:] if row] == ["1", "3", "4"]
    file.unlink()
    node.wait(lambda: not pods(node), "all pods to be gone")
