"""Disruption budgets, evictions and drains of one node, with a daemon that is killed in the middle."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.kubectl import forwarded
from tests.e2e.manifests import container, pod
from tests.e2e.node import KUBELITE, REPO, Finished, Node, running_node
from tests.programs import missing

PODS = "/api/v1/pods"
BUDGET = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/web"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("maintenance"), images) as found:
        yield found


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    """The shared node, emptied and uncordoned afterwards."""
    yield shared
    shared.cli("node", "uncordon")
    for file in shared.manifests.glob("*.yaml"):
        file.unlink()
    shared.wait(lambda: not items(shared, PODS), "everything to be gone")


def items(node: Node, path: str) -> list[dict[str, Any]]:
    code, body = node.ask(path)
    assert code == 200, body
    found: list[dict[str, Any]] = json.loads(body)["items"]
    return found


def get(node: Node, path: str) -> dict[str, Any]:
    code, body = node.ask(path)
    found: dict[str, Any] = json.loads(body) if code == 200 else {}
    return found


def dump(*docs: dict[str, Any]) -> str:
    return yaml.safe_dump_all(docs, sort_keys=False)


def deployment(name: str, replicas: int, **metadata: Any) -> dict[str, Any]:
    labels = {"app": name}
    spec = {"terminationGracePeriodSeconds": 2, "containers": [container()]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, **metadata},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def ready(node: Node, app: str = "web") -> list[str]:
    """The uids of the ready pods of a workload that are not terminating."""
    return [
        pod["metadata"]["uid"]
        for pod in items(node, f"{PODS}?labelSelector=app%3D{app}")
        if not pod["metadata"].get("deletionTimestamp")
        and any(
            one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ())
        )
    ]


def test_a_budget_guards_its_pods(node: Node) -> None:
    node.apply("web.yaml", dump(deployment("web", 2)))
    made = node.cli("create", "pdb", "web", "--selector=app=web", "--min-available=1").out
    assert made == "poddisruptionbudget.policy/web created\n"
    node.wait(
        lambda: get(node, BUDGET).get("status", {}).get("disruptionsAllowed") == 1,
        "a disruption to be allowed",
    )
    status = get(node, BUDGET)["status"]
    counts = [status[key] for key in ("currentHealthy", "desiredHealthy", "expectedPods")]
    assert counts == [2, 1, 2] and status["conditions"][0]["reason"] == "SufficientPods"
    why = node.cli("why", "pdb/web").out
    assert "1 may be evicted now; 2 of 2 pods are healthy, 1 must be (minAvailable: 1)" in why
    assert why.count("is ready; it may be evicted") == 2
    shown = node.cli("get", "pdb").out.splitlines()
    assert shown[0].split("  ")[0] == "NAME" and shown[1].split()[:4] == ["web", "1", "N/A", "1"]
    node.cli("delete", "-f", str(next(node.manifests.glob("*poddisruption*"))))
    node.wait(lambda: not get(node, BUDGET), "the budget to be gone")


def everything_runs(node: Node) -> bool:
    return len(ready(node)) == 2 and len(ready(node, "own")) == 1 and len(ready(node, "agent")) == 1


def test_a_drain_whose_daemon_is_killed(node: Node) -> None:
    """Pods of workloads and of manifests are evicted, as far as a budget allows, and wait; the pod of a DaemonSet and
    one that has ended stay. The drain survives its daemon: a second one goes on."""
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    agent = deployment("agent", 1)
    agent["kind"] = "DaemonSet"
    del agent["spec"]["replicas"]
    node.apply("web.yaml", dump(deployment("web", 2), budget, agent))
    node.apply("own.yaml", pod("own", labels={"app": "own"}))
    node.apply("once.yaml", pod("once", container(script="echo ran"), restartPolicy="Never"))
    node.wait(lambda: everything_runs(node), "all pods to run")
    node.wait_status("once", "Completed")
    before, once = ready(node, "agent"), node.pod("once")["metadata"]["uid"]
    node.wait(
        lambda: get(node, BUDGET).get("status", {}).get("disruptionsAllowed") == 1,
        "a disruption to be allowed",
    )
    refused = node.cli("drain", check=False)
    assert refused.code == 1 and "cannot delete DaemonSet-managed Pods" in refused.err
    assert len(ready(node)) == 2, "nothing is evicted after an error"
    drain = start(node, "drain", "--ignore-daemonsets")
    try:
        node.wait(lambda: len(ready(node)) == 1, "the first pod to be evicted")
        node.kill()
        _, said = drain.communicate(timeout=30)
    finally:
        drain.kill()
    assert drain.returncode == 1, said
    node.start()
    late = node.cli("drain", "--ignore-daemonsets", "--timeout=4s", check=False)
    assert late.code == 1 and "violate the pod's disruption budget" in late.err
    assert len(ready(node)) == 1 and not ready(node, "own")
    why = node.cli("why", get_names(node, ready(node))[0]).out
    assert (
        "it cannot be evicted now: The disruption budget web needs 1 healthy pods and has 1 currently" in why
    )
    done = drained_without_eviction(node)
    assert done.out.endswith(f"node/{node.name} drained\n"), done
    node.wait(lambda: pending(node) == 3, "replacements to wait")
    assert ready(node, "agent") == before and node.pod("once")["metadata"]["uid"] == once
    assert node.cli("uncordon").out == f"node/{node.name} uncordoned\n"
    node.wait(lambda: everything_runs(node), "all pods to run again")
    assert node.pod("once")["metadata"]["uid"] == once, "it does not run again"


def drained_without_eviction(node: Node) -> Finished:
    """Drain by kubectl, which sends DeleteOptions as protobuf, or by kubelite where there is none."""
    options = ("--ignore-daemonsets", "--disable-eviction")
    if missing("kubectl"):
        return node.cli("drain", *options)
    with forwarded(node) as kubectl:
        return kubectl("drain", node.name, "--pod-selector=app=web", *options)


def start(node: Node, *arguments: str) -> subprocess.Popen[str]:
    command = [*KUBELITE, *arguments]
    return subprocess.Popen(
        command,
        cwd=REPO,
        env=node.environ(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def pending(node: Node) -> int:
    return sum(one["status"].get("phase") == "Pending" for one in items(node, PODS))


def get_names(node: Node, uids: list[str]) -> list[str]:
    return [one["metadata"]["name"] for one in items(node, PODS) if one["metadata"]["uid"] in uids]
