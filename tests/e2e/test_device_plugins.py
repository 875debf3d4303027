"""Device plugins on a whole node. The plugin is a process with another implementation of gRPC (device_plugin.py)."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.device_plugin import Plugin
from tests.e2e.devices import (
    DONGLE,
    amounts,
    devices_of,
    node_with_plugins,
    registered_plugin,
    run_in,
    wanting,
)
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node

__all__ = ["node_with_plugins", "registered_plugin"]
FUSE = os.makedev(10, 229)


@pytest.mark.either_cgroup
def test_a_container_gets_what_the_plugin_says(node: Node, plugin: Plugin) -> None:
    node.apply("first.yaml", wanting("first"))
    node.wait_status("first", "Running")
    assert plugin.calls("Allocate") == [{"method": "Allocate", "ids": [["a"]]}]
    assert run_in(node, "first", "stat -c '%F %t:%T' /dev/dongle") == "character special file a:e5"
    assert run_in(node, "first", "echo $DONGLES $SHADOWED; cat /opt/dongle/firmware") == "a pod\nv7"
    assert run_in(node, "first", "echo x 2>&1 >/opt/dongle/new; true").endswith("Read-only file system")
    seen = os.stat(f"/proc/{node.pid('first')}/root/dev/dongle")
    assert seen.st_rdev == FUSE
    # /dev/fuse opens only if the cgroup of the container allows it: another container may not
    opened = "if (: <>/dev/dongle) 2>/dev/null; then echo opens; else echo refused; fi"
    assert run_in(node, "first", opened) == "opens"
    node.apply("plain.yaml", pod("plain", container(securityContext={"capabilities": {"add": ["MKNOD"]}})))
    node.wait_status("plain", "Running")
    made = "mknod /dev/dongle c 10 229 && " + opened
    assert run_in(node, "plain", made) == "refused"
    uid = node.pod("first")["metadata"]["uid"]
    config = json.loads((node.root / f"pods/{uid}/containers/main/0/config.json").read_text())
    assert config["annotations"]["example.com/seen"] == "yes"


@pytest.mark.either_cgroup
def test_pods_wait_until_devices_are_free(node: Node, plugin: Plugin) -> None:
    node.apply("both.yaml", wanting("both", 2))
    node.wait_status("both", "Running")
    assert devices_of(node, "both") == ["a", "b"]
    node.apply("next.yaml", wanting("next"))
    node.wait(lambda: f"Insufficient {DONGLE}" in node.cli("why", "next").out, "the pod to be told")
    assert node.status_of("next") == "Pending"
    described = node.cli("describe", "node", node.name).out
    assert [line.split() for line in described.splitlines() if DONGLE in line] == [
        [f"{DONGLE}:", "2"], [f"{DONGLE}:", "2"], [DONGLE, "2", "2"],
    ]  # fmt: skip
    (node.manifests / "both.yaml").unlink()
    node.wait_status("next", "Running")
    assert devices_of(node, "next") == ["a"]
    plugin.behave(devices={"a": "Unhealthy", "b": "Healthy"})
    node.wait(lambda: amounts(node) == ("2", "1"), "the device to be unhealthy")
    assert node.status_of("next") == "Running"
    plugin.behave(devices={"a": "Healthy", "b": "Healthy", "c": "Healthy"})
    node.wait(lambda: amounts(node) == ("3", "3"), "a third device")


@pytest.mark.either_cgroup
def test_the_end_of_a_plugin_leaves_its_pods_running(node: Node, plugin: Plugin) -> None:
    node.apply("first.yaml", wanting("first"))
    node.wait_status("first", "Running")
    plugin.kill()
    node.wait(lambda: amounts(node) == ("2", "0"), "the devices to be unhealthy")
    node.apply("second.yaml", wanting("second"))
    words = f"2 of 2 devices of {DONGLE} are unhealthy."
    node.wait(lambda: words in node.cli("why", "second").out, "the second pod to wait")
    os.kill(node.pid("first"), signal.SIGKILL)
    node.wait(lambda: node.container("first").get("restartCount") == 1, "the container to be restarted")
    node.wait_status("first", "Running")
    assert devices_of(node, "first") == ["a"], "it keeps its device without the plugin"
    plugin.start()
    node.wait_status("second", "Running")
    assert devices_of(node, "second") == ["b"]


@pytest.mark.either_cgroup
@pytest.mark.parametrize("with_plugin", [True, False], ids=["the plugin lives", "the plugin dies, too"])
def test_a_killed_daemon_knows_who_has_which_device(node: Node, plugin: Plugin, with_plugin: bool) -> None:
    node.apply("first.yaml", wanting("first"))
    node.wait_status("first", "Running")
    before = node.container("first")["containerID"]
    node.kill()
    if not with_plugin:
        plugin.kill()
    node.apply("second.yaml", wanting("second"))
    node.start()
    if not with_plugin:
        words = f"No device plugin of {DONGLE} is registered."
        node.wait(lambda: words in node.cli("why", "second").out, "the second pod to wait")
        assert amounts(node) == ("0", "0")
        plugin.start()
    node.wait_status("second", "Running")
    assert devices_of(node, "second") == ["b"]
    assert node.container("first")["containerID"] == before
    assert amounts(node) == ("2", "2")


@pytest.mark.either_cgroup
def test_a_refused_allocation_rejects_the_pod(node: Node, plugin: Plugin) -> None:
    plugin.behave(error={"Allocate": "out of smoke"})
    node.apply("first.yaml", wanting("first"))
    node.wait_status("first", "UnexpectedAdmissionError")
    message = "Allocate failed due to rpc error: code = Unknown desc = out of smoke, which is unexpected"
    assert node.pod("first")["status"]["message"] == f"Pod was rejected: {message}"
    plugin.behave(error={})
    node.apply("second.yaml", wanting("second", 2))
    node.wait_status("second", "Running")


@pytest.mark.either_cgroup
def test_a_node_without_plugins_does_not_load_grpc(node: Node, tmp_path: Path) -> None:
    node.apply("plain.yaml", pod("plain"))
    node.wait_status("plain", "Running")
    assert node.daemon is not None
    maps = Path(f"/proc/{node.daemon.pid}/maps")
    assert "multidict" not in maps.read_text(), "a library of grpclib"
    assert (tmp_path / "k" / "device-plugins" / "kubelet.sock").is_socket()
    one = Plugin(tmp_path / "k" / "device-plugins", tmp_path / "plugin")
    one.start()
    try:
        one.wait_registered()
        assert "multidict" in maps.read_text(), "the test would see it"
    finally:
        one.kill()
