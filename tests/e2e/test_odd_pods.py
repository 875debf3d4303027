"""Unusual but valid pods (odd_pods.yaml): all on one node, each works as documented."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.corpus_runs import containers, wrong
from tests.e2e.manifests import container
from tests.e2e.node import Node, running_node

CASES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("odd_pods.yaml").read_text())
pytestmark = pytest.mark.either_cgroup


def documents(case: dict[str, Any], namespace: str) -> list[dict[str, Any]]:
    metadata = {"name": case["name"], "annotations": case.get("annotations", {})}
    spec = {"terminationGracePeriodSeconds": 2, **case["spec"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    for one in containers(pod):
        one |= {**container(), **one}
    docs = [*({"apiVersion": "v1", **doc} for doc in case.get("objects", [])), pod]
    return [{**doc, "metadata": {**doc["metadata"], "namespace": namespace}} for doc in docs]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("odd"), images) as node:
        for index, case in enumerate(CASES):
            items = documents(case, f"c{index}")
            node.apply(f"c{index}.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        yield node


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case["name"][:40] for case in CASES])
def test_an_unusual_pod_works_as_documented(odd: Node, index: int) -> None:
    case, namespace = CASES[index], f"c{index}"
    problems: list[str] = []

    def right() -> bool:
        problems[:] = wrong(odd, case, case["name"], namespace)
        return not problems

    try:
        odd.wait(right, case["name"])
    except AssertionError as error:
        shown = odd.cli("describe", "pod", case["name"], "-n", namespace, check=False).out
        raise AssertionError(f"{problems}\n{shown}\n{error}") from None


def test_an_edit_updates_limits_and_files_at_once(node: Node) -> None:
    """Neither waits for the next periodic sync."""
    limits = {"path": "memory", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory"}}
    mounted = {"volumeMounts": [{"name": "d", "mountPath": "/d"}]}
    volumes = [{"name": "d", "downwardAPI": {"items": [limits]}}]

    def written(**spec: Any) -> str:
        fields: dict[str, Any] = {**mounted, "resources": {"limits": {"memory": spec.pop("memory")}}}
        doc = {"terminationGracePeriodSeconds": 2, "containers": [container(**fields)], "volumes": volumes}
        metadata = {"name": "p"}
        return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**doc, **spec}})

    node.apply("p.json", written(memory="64Mi"))
    node.wait_status("p", "Running")
    pid = node.pid("p")
    root = Path(f"/proc/{pid}/root")
    node.apply("p.json", written(memory="96Mi", dnsConfig={"searches": ["new.example"]}))
    node.wait(lambda: (root / "d/memory").read_text() == str(96 << 20), "the file to have the new limit", 10)
    assert "new.example" in (root / "etc/resolv.conf").read_text()
    assert node.pid("p") == pid
