"""StatefulSets and DaemonSets from files on one node: order, identity and claims, as the kernel shows them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.manifests import container
from tests.e2e.node import Node, running_node

APPS = "/apis/apps/v1/namespaces/default"
PODS = "/api/v1/namespaces/default/pods"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"

# Each start and each end of a container appends a line with the machine's monotonic clock to its claim's journal.
SCRIPT = """
say() { read up _ < /proc/uptime; echo "$up $1 $(hostname) VERSION" >> /data/journal; }
say start
trap 'say end; exit 0' TERM
sleep 0.3
touch /tmp/ready
while :; do sleep 0.1; done
"""
PROBE = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("sets"), images) as found:
        yield found


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    """The shared node, emptied afterwards."""
    yield shared
    for file in shared.manifests.glob("*.yaml"):
        file.unlink()
    shared.wait(lambda: not items(shared, PODS), "all pods to be gone")
    for claim in items(shared, CLAIMS):
        shared.cli("delete", "pvc", claim["metadata"]["name"])


def items(node: Node, path: str) -> list[dict[str, Any]]:
    code, body = node.ask(path)
    assert code == 200, body
    found: list[dict[str, Any]] = json.loads(body)["items"]
    return found


def names(node: Node, path: str = PODS) -> list[str]:
    return [one["metadata"]["name"] for one in items(node, path)]


def found(node: Node, kind: str, name: str = "db") -> dict[str, Any]:
    code, body = node.ask(f"{APPS}/{kind}/{name}")
    if code == 404:
        return {"metadata": {}, "status": {}}
    assert code == 200, body
    doc: dict[str, Any] = json.loads(body)
    return {**doc, "status": doc.get("status") or {}}


def stateful(replicas: int = 3, version: str = "one", more: dict[str, Any] | None = None) -> str:
    mount = {"name": "data", "mountPath": "/data"}
    script = SCRIPT.replace("VERSION", version)
    main = container(script=script, volumeMounts=[mount], readinessProbe=PROBE)
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    doc = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db",
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"terminationGracePeriodSeconds": 5, "containers": [main]},
            },
            "volumeClaimTemplates": [claim],
            **(more or {}),
        },
    }
    return yaml.safe_dump(doc, sort_keys=False)


def rolled_out(node: Node, replicas: int) -> bool:
    doc = found(node, "statefulsets")
    status = doc["status"]
    counts = [status.get(key, 0) for key in ("replicas", "availableReplicas", "updatedReplicas")]
    return (
        status.get("observedGeneration") == doc["metadata"].get("generation")
        and counts == [replicas] * 3
        and status["currentRevision"] == status["updateRevision"]
    )


def journal(node: Node, ordinals: range) -> list[tuple[float, str, str, str]]:
    """What the containers wrote, by time: when, start or end, the host name, the version."""
    lines = [
        line.split()
        for ordinal in ordinals
        for line in (node.root / f"claims/default/data-db-{ordinal}/data/journal").read_text().splitlines()
    ]
    return sorted((float(when), what, host, version) for when, what, host, version in lines)


def said(node: Node, ordinals: range = range(3), after: float = 0.0) -> list[str]:
    return [f"{what} {host}" for when, what, host, _ in journal(node, ordinals) if when > after]


def last(node: Node, ordinals: range = range(3)) -> float:
    return journal(node, ordinals)[-1][0]


def test_a_stateful_set_keeps_order_names_and_data(node: Node) -> None:
    node.apply("db.yaml", stateful())
    node.wait(lambda: rolled_out(node, 3), "3 replicas")
    assert names(node) == ["db-0", "db-1", "db-2"]
    assert said(node) == ["start db-0", "start db-1", "start db-2"]
    times = [when for when, *_ in journal(node, range(3))]
    assert min(later - earlier for earlier, later in pairwise(times)) > 0.3, "it waits for the predecessor"
    first = node.pod("db-1")
    assert first["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    assert node.cli("exec", "db-1", "--", "hostname").out == "db-1\n"

    # A deleted pod comes back with its name and its data.
    mark = last(node)
    node.cli("delete", "pod", "db-1")
    node.wait(
        lambda: rolled_out(node, 3) and node.pod("db-1")["metadata"]["uid"] != first["metadata"]["uid"],
        "a new db-1",
    )
    assert said(node, after=mark) == ["end db-1", "start db-1"]
    assert said(node, range(1, 2)) == ["start db-1", "end db-1", "start db-1"]

    # An update goes from the highest ordinal down, one pod at a time.
    mark = last(node)
    node.apply("db.yaml", stateful(version="two"))
    node.wait(lambda: rolled_out(node, 3) and len(said(node, after=mark)) == 6, "the update")
    assert said(node, after=mark) == [f"{what} db-{one}" for one in (2, 1, 0) for what in ("end", "start")]
    assert len(names(node, f"{APPS}/controllerrevisions")) == 2

    # Scaled down from the top; the claims stay, and are used again.
    mark = last(node)
    node.apply("db.yaml", stateful(1, "two"))
    node.wait(lambda: rolled_out(node, 1), "one replica")
    assert said(node, after=mark) == ["end db-2", "end db-1"]
    assert names(node, CLAIMS) == ["data-db-0", "data-db-1", "data-db-2"]
    node.apply("db.yaml", stateful(2, "two"))
    node.wait(lambda: rolled_out(node, 2), "two replicas")
    assert said(node, range(1, 2)).count("start db-1") == 4

    (node.manifests / "db.yaml").unlink()
    node.wait(lambda: not names(node) and not names(node, f"{APPS}/controllerrevisions"), "all to be gone")
    assert len(names(node, CLAIMS)) == 3


def test_a_killed_daemon_goes_on_in_order(node: Node) -> None:
    begin = float(Path("/proc/uptime").read_text().split()[0])  # a deleted claim's data is retained
    node.apply("db.yaml", stateful())
    node.wait(lambda: "db-0" in names(node), "the first pod")
    node.restart(signal.SIGKILL)
    node.wait(lambda: "db-1" in names(node), "the second pod")
    node.restart(signal.SIGKILL)
    node.wait(lambda: rolled_out(node, 3), "3 replicas")
    assert said(node, after=begin) == ["start db-0", "start db-1", "start db-2"]
    mark = last(node)
    node.apply("db.yaml", stateful(version="two"))
    node.wait(lambda: len(said(node, after=mark)) >= 2, "the update to begin")
    node.restart(signal.SIGKILL)
    node.wait(lambda: rolled_out(node, 3), "the update")
    assert said(node, after=mark) == [f"{what} db-{one}" for one in (2, 1, 0) for what in ("end", "start")]
    assert names(node) == ["db-0", "db-1", "db-2"]


def test_claims_that_are_deleted_with_pods_and_set(node: Node) -> None:
    policy = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Delete"}}
    parallel = {"podManagementPolicy": "Parallel", **policy}
    node.apply("db.yaml", stateful(2, more=parallel))
    node.wait(lambda: rolled_out(node, 2), "2 replicas")
    node.apply("db.yaml", stateful(1, more=parallel))
    node.wait(lambda: names(node, CLAIMS) == ["data-db-0"], "the claim of db-1 to be deleted")
    (node.manifests / "db.yaml").unlink()
    node.wait(lambda: not names(node, CLAIMS) and not names(node), "everything to be gone")


def daemon(version: str = "one", **spec: Any) -> str:
    script = f": {version}; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    pod_spec = {
        "terminationGracePeriodSeconds": 2,
        "containers": [container(script=script)],
        "nodeSelector": {"disk": "ssd"},
    }
    doc = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": pod_spec},
            **spec,
        },
    }
    return yaml.safe_dump(doc, sort_keys=False)


def scheduled(node: Node) -> tuple[int, int]:
    status = found(node, "daemonsets", "agent")["status"]
    return status.get("desiredNumberScheduled", -1), status.get("numberAvailable", 0)


def test_a_daemon_set_follows_the_labels_of_the_node(node: Node) -> None:
    node.apply("agent.yaml", daemon())
    node.wait(lambda: scheduled(node) == (0, 0), "the DaemonSet to be looked at")
    assert not names(node)
    node.cli("node", "label", "disk=ssd")
    node.wait(lambda: scheduled(node) == (1, 1), "its pod")
    (first,) = items(node, PODS)
    assert first["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet"
    assert {one["key"] for one in first["spec"]["tolerations"]} >= {"node.kubernetes.io/unschedulable"}

    node.apply("agent.yaml", daemon("two"))
    node.wait(
        lambda: first["metadata"]["name"] not in names(node) and scheduled(node) == (1, 1), "the update"
    )
    (second,) = items(node, PODS)

    # With maxSurge, the new pod runs before the old one ends.
    surge = {"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
    node.apply("agent.yaml", daemon("three", **surge))
    node.wait(
        lambda: second["metadata"]["name"] not in names(node) and scheduled(node) == (1, 1), "the surge"
    )
    (third,) = items(node, PODS)
    ready = next(one for one in third["status"]["conditions"] if one["type"] == "Ready")
    assert ready["status"] == "True"

    node.cli("node", "label", "disk-")
    node.wait(lambda: not names(node) and scheduled(node) == (0, 0), "no pod")
