"""Device plugins on a node that is a member of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.device_plugin import Plugin
from tests.e2e.devices import DONGLE, devices_of, node_with_plugins, registered_plugin
from tests.e2e.manifests import container
from tests.e2e.node import Node
from tests.e2e.test_cluster import PODS, Cluster

__all__ = ["node_with_plugins", "registered_plugin"]


def bound(node: Node, name: str, count: int) -> dict[str, Any]:
    """A pod that the cluster's scheduler has bound to the node."""
    amounts = {DONGLE: str(count)}
    main = container(resources={"limits": amounts, "requests": amounts})
    spec = {"nodeName": node.name, "containers": [main], "terminationGracePeriodSeconds": 1}
    return {"metadata": {"name": name}, "spec": spec, "status": {"phase": "Pending"}}


def test_a_cluster_schedules_by_the_devices_of_the_node(node: Node, plugin: Plugin, tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(node, tmp_path / "cluster")
    try:
        _in_cluster(node, plugin, cluster)
    finally:
        cluster.close()


def _in_cluster(node: Node, plugin: Plugin, cluster: Cluster) -> None:
    def amounts() -> tuple[str, str]:
        found = (cluster.ask("GET", f"/api/v1/nodes/{node.name}") or {}).get("status") or {}
        return tuple(found.get(kind, {}).get(DONGLE, "") for kind in ("capacity", "allocatable"))

    node.cli("join", (cluster.directory / "line").read_text())
    node.wait(lambda: amounts() == ("2", "2"), "the cluster to know the devices")
    cluster.ask("POST", PODS, bound(node, "first", 1))
    node.wait(lambda: cluster.container("first").get("ready"), "the cluster's pod to be ready")
    assert devices_of(node, "first") == ["a"]

    # Two schedulers may send such a pod. It is rejected, as by kubelet, and its controller makes another one.
    cluster.ask("POST", PODS, bound(node, "greedy", 2))
    node.wait(lambda: cluster.status("greedy").get("phase") == "Failed", "the pod to be rejected")
    status = cluster.status("greedy")
    words = f"requested number of devices unavailable for {DONGLE}. Requested: 2, Available: 1"
    assert status["reason"] == "UnexpectedAdmissionError"
    assert status["message"] == f"Pod was rejected: Allocate failed due to {words}, which is unexpected"

    instance = cluster.container("first")["containerID"]
    node.kill()
    plugin.kill()
    node.start()
    node.wait(lambda: amounts() == ("0", "0"), "the cluster to know that the devices are gone")
    assert cluster.container("first")["containerID"] == instance
    plugin.start()
    node.wait(lambda: amounts() == ("2", "2"), "the cluster to know that they are back")
    cluster.ask("DELETE", f"{PODS}/first")
    node.wait(lambda: cluster.ask("GET", f"{PODS}/first") is None, "the pod to be gone")
    cluster.ask("POST", PODS, bound(node, "second", 2))
    node.wait(lambda: cluster.container("second").get("ready"), "another pod to be ready")
    assert devices_of(node, "second") == ["a", "b"]
