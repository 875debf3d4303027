"""Workloads from files on one node: what controllers make of them, as the kernel and kubectl see it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.kubectl import forwarded
from tests.e2e.manifests import container
from tests.e2e.node import Node, running_node

APPS = "/apis/apps/v1/namespaces/default"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("workloads"), images) as found:
        yield found


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    """The shared node, emptied afterwards."""
    yield shared
    for file in shared.manifests.glob("*.yaml"):
        file.unlink()
    shared.wait(lambda: not items(shared, "/api/v1/pods"), "all pods to be gone")


def items(node: Node, path: str) -> list[dict[str, Any]]:
    code, body = node.ask(path)
    assert code == 200, body
    found: list[dict[str, Any]] = json.loads(body)["items"]
    return found


def pods(node: Node, name: str = "web") -> list[dict[str, Any]]:
    found = items(node, "/api/v1/namespaces/default/pods")
    return [pod for pod in found if (pod["metadata"].get("labels") or {}).get("app") == name]


def processes(node: Node, word: str) -> int:
    """How many containers run a script with this word, by /proc. A child between fork and exec has the command line of
    its parent; it does not count."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            inside = node.cgroup_parent in Path(f"/proc/{pid}/cgroup").read_text()
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if inside and word.encode() in line:
            found[pid] = parent
    return sum(parent not in found for parent in found.values())


def template(word: str, name: str = "web", **spec: Any) -> dict[str, Any]:
    script = f": {word}; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    body = {"terminationGracePeriodSeconds": 2, "containers": [container(script=script)], **spec}
    return {"metadata": {"labels": {"app": name}}, "spec": body}


def workload(kind: str, replicas: int | None, word: str, name: str = "web", **spec: Any) -> str:
    given = {} if replicas is None else {"replicas": replicas}
    doc = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": template(word, name),
            **given,
            **spec,
        },
    }
    return yaml.safe_dump(doc, sort_keys=False)


def deployed(node: Node, name: str = "web") -> dict[str, Any]:
    code, body = node.ask(f"{APPS}/deployments/{name}")
    assert code == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def complete(node: Node, replicas: int) -> bool:
    """Whether the Deployment has rolled out its newest generation."""
    found = deployed(node)
    status = found.get("status") or {}
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration") == found["metadata"]["generation"] and counts == [replicas] * 3


def test_a_deployment_runs_rolls_out_scales_and_goes(node: Node) -> None:
    file = node.apply("web.yaml", workload("Deployment", 3, "first-version"))
    node.wait(lambda: node.ask(f"{APPS}/deployments/web")[0] == 200 and complete(node, 3), "3 replicas")
    assert processes(node, "first-version") == 3
    (first,) = items(node, f"{APPS}/replicasets")
    assert {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods(node)} == {first["metadata"]["uid"]}
    assert all(pod["spec"]["nodeName"] == node.name for pod in pods(node))

    text = workload("Deployment", 3, "second-version")
    said = node.cli("diff", "-f", "-", stdin=text.encode(), check=False)
    assert "a new revision: 3 pods are replaced" in said.out
    node.apply("web.yaml", text)
    node.wait(lambda: deployed(node)["metadata"]["generation"] == 2 and complete(node, 3), "the rollout")
    node.wait(lambda: processes(node, "first-version") == 0, "the old pods to end")
    assert processes(node, "second-version") == 3
    assert sorted(found["spec"]["replicas"] for found in items(node, f"{APPS}/replicasets")) == [0, 3]

    node.apply("web.yaml", workload("Deployment", 1, "second-version"))
    node.wait(lambda: processes(node, "second-version") == 1 and len(pods(node)) == 1, "one replica")

    (gone,) = pods(node)
    done = node.cli("delete", "pod", gone["metadata"]["name"])
    assert f"{gone['metadata']['name']} belongs to replicaset" in done.err
    node.wait(lambda: complete(node, 1) and len(pods(node)) == 1, "a new pod")
    assert pods(node)[0]["metadata"]["uid"] != gone["metadata"]["uid"]

    file.unlink()
    node.wait(lambda: not pods(node) and not items(node, f"{APPS}/replicasets"), "everything to be gone")
    assert processes(node, "second-version") == 0


def test_a_touched_file_changes_nothing(node: Node) -> None:
    file = node.apply("web.yaml", workload("Deployment", 2, "touched"))
    node.wait(lambda: node.ask(f"{APPS}/deployments/web")[0] == 200 and complete(node, 2), "2 replicas")
    before = {pod["metadata"]["uid"] for pod in pods(node)}
    version = deployed(node)["metadata"]["resourceVersion"]
    file.write_text(f"# a comment\n{file.read_text()}")
    node.cli("get", "manifests")
    node.wait(lambda: node.cli("diff", "-f", str(file)).code == 0, "the file to be read")
    assert {pod["metadata"]["uid"] for pod in pods(node)} == before
    assert deployed(node)["metadata"]["resourceVersion"] == version


def test_a_killed_daemon_settles_with_the_exact_count(node: Node) -> None:
    node.apply("web.yaml", workload("Deployment", 6, "killed-first"))
    node.wait(lambda: len(pods(node)) > 0, "the first pods")
    node.restart(signal.SIGKILL)
    node.wait(lambda: complete(node, 6), "6 replicas")
    node.apply("web.yaml", workload("Deployment", 6, "killed-second"))
    node.wait(lambda: processes(node, "killed-second") >= 1, "the rollout to begin")
    node.restart(signal.SIGKILL)
    node.wait(lambda: processes(node, "killed-second") >= 4, "the rollout to go on")
    node.restart(signal.SIGKILL)
    node.wait(lambda: complete(node, 6) and len(pods(node)) == 6, "the rollout")
    node.wait(lambda: processes(node, "killed-first") == 0, "the old pods to end")
    assert processes(node, "killed-second") == 6

    # Its file is removed while the daemon is down: nothing of it is left afterwards.
    node.kill()
    (node.manifests / "web.yaml").unlink()
    node.start()
    node.wait(lambda: not pods(node) and not items(node, f"{APPS}/replicasets"), "everything to be gone")
    node.wait(lambda: processes(node, "killed-second") == 0, "the last process to end")


def test_a_replica_set_deleted_with_each_policy(node: Node) -> None:
    node.apply("web.yaml", workload("ReplicaSet", 2, "policies"))
    node.wait(lambda: processes(node, "policies") == 2, "2 replicas")
    first = {pod["metadata"]["uid"] for pod in pods(node)}
    done = node.cli("delete", "rs", "web", "--cascade=orphan")
    assert "still defines replicaset web, so it is recreated" in done.err
    node.wait(lambda: len(items(node, f"{APPS}/replicasets")) == 1, "the ReplicaSet from the file")

    def adopted() -> bool:
        owner = items(node, f"{APPS}/replicasets")[0]["metadata"]["uid"]
        owners = [(pod["metadata"].get("ownerReferences") or [{}])[0].get("uid") for pod in pods(node)]
        return owners == [owner, owner]

    node.wait(adopted, "the new one to adopt the pods")
    assert {pod["metadata"]["uid"] for pod in pods(node)} == first

    node.cli("delete", "rs", "web", "--cascade=foreground")
    node.wait(lambda: len(pods(node)) == 2 and processes(node, "policies") == 2, "new pods")
    assert not first & {pod["metadata"]["uid"] for pod in pods(node)}


def test_kubectl_sees_workloads(node: Node) -> None:
    node.apply("web.yaml", workload("Deployment", 2, "by-kubectl"))
    node.wait(lambda: node.ask(f"{APPS}/deployments/web")[0] == 200 and complete(node, 2), "2 replicas")
    with forwarded(node) as kubectl:
        for arguments in (
            ("get", "deploy,rs,pods"),
            ("get", "all"),
            ("get", "deployments.apps", "-o", "wide"),
            ("get", "deploy/web", "-o", "name"),
        ):
            by_kubectl, ours = kubectl(*arguments), node.cli(*arguments)
            assert by_kubectl.code == 0, by_kubectl.err
            assert _ageless(by_kubectl.out) == _ageless(ours.out)
        status = kubectl("rollout", "status", "deployment/web", "--timeout=20s")
        assert status.out == 'deployment "web" successfully rolled out\n', status.err
        waited = kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=20s")
        assert waited.out == "deployment.apps/web condition met\n", waited.err
        watching = subprocess.Popen(
            kubectl.command("rollout", "status", "deployment/web", "--timeout=60s"),
            env=kubectl.environ(), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        node.apply("web.yaml", workload("Deployment", 2, "by-kubectl-again"))
        out, _ = watching.communicate(timeout=90)
        assert out.endswith('deployment "web" successfully rolled out\n')
        deleted = kubectl("delete", "rs", "-l", "app=web", "--cascade=foreground")
        assert deleted.code == 0, deleted.err
    node.wait(lambda: complete(node, 2), "a new ReplicaSet")


def _ageless(text: str) -> str:
    return re.sub(r" {2,}", "  ", re.sub(r"\b(\d+m)?\d+s\b", "AGE", text))
