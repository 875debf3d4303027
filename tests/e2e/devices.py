"""Fixtures and helpers of the tests of device plugins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.device_plugin import Plugin
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node

DONGLE = "example.com/dongle"


@pytest.fixture(name="node")
def node_with_plugins(tmp_path: Path, images: Path) -> Iterator[Node]:
    with running_node(
        tmp_path, images, plugin_dir=str(tmp_path / "k"), cdi_spec_dirs=str(tmp_path / "cdi")
    ) as found:
        yield found


@pytest.fixture(name="plugin")
def registered_plugin(node: Node, tmp_path: Path) -> Iterator[Plugin]:
    """A registered plugin with two devices. A container with one gets /dev/fuse as /dev/dongle."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "firmware").write_text("v7\n")
    made = Plugin(tmp_path / "k" / "device-plugins", tmp_path / "plugin")
    made.behave(
        devices={"a": "Healthy", "b": "Healthy"},
        response={
            "envs": {"DONGLES": "{ids}", "SHADOWED": "plugin"},
            "mounts": [
                {"container_path": "/opt/dongle", "host_path": str(tmp_path / "shared"), "read_only": True}
            ],
            "devices": [{"container_path": "/dev/dongle", "host_path": "/dev/fuse", "permissions": "rw"}],
            "annotations": {"example.com/seen": "yes"},
        },
    )
    made.start()
    try:
        made.wait_registered()
        node.wait(lambda: amounts(node) == ("2", "2"), "the node to have the devices")
        yield made
    finally:
        made.kill()


def amounts(node: Node, resource: str = DONGLE) -> tuple[str, str]:
    """The node's capacity of a resource, and what of it is allocatable."""
    status = node.json("get", "nodes")["items"][0]["status"]
    return status["capacity"].get(resource, ""), status["allocatable"].get(resource, "")


def wanting(name: str, count: int = 1, **more: Any) -> str:
    one = container(resources={"limits": {DONGLE: count}}, env=[{"name": "SHADOWED", "value": "pod"}])
    return pod(name, one, **more)


def run_in(node: Node, name: str, script: str) -> str:
    return node.cli("exec", name, "--", "sh", "-c", script).out.strip()


def devices_of(node: Node, name: str) -> list[str]:
    return sorted(run_in(node, name, "echo $DONGLES").split(","))
