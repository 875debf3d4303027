"""Disruption budgets, evictions and drains of one node, with a daemon that is killed in the middle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.manifests import container
from tests.e2e.node import Node, running_node

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
    shown = node.cli("get", "pdb").out.splitlines()
    assert shown[0].split("  ")[0] == "NAME" and shown[1].split()[:4] == ["web", "1", "N/A", "1"]
    node.cli("delete", "-f", str(next(node.manifests.glob("*poddisruption*"))))
    node.wait(lambda: not get(node, BUDGET), "the budget to be gone")
