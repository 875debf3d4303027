"""What plugins and monitoring agents can ask and say: preferred devices, calls before a start, pod resources; and what
happens when somebody dies in the middle of a call."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
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
from tests.plugin_protos import POD_RESOURCES, message_classes

__all__ = ["node_with_plugins", "registered_plugin"]
M = message_classes("v1", POD_RESOURCES)


@contextlib.contextmanager
def pod_resources(base: Path) -> Iterator[Any]:
    """Yield call(method, response, request) of the pod resources API."""
    place = os.open(
        base / "k" / "pod-resources", os.O_PATH
    )  # its path is too long for the address of a socket
    try:
        with grpc.insecure_channel(f"unix:/proc/self/fd/{place}/kubelet.sock") as channel:

            def call(method: str, response: str, **request: str) -> Any:
                kind = M["GetPodResourcesRequest" if method == "Get" else "Empty"]
                name = f"/v1.PodResourcesLister/{method}"
                one = channel.unary_unary(name, kind.SerializeToString, M[response].FromString)
                return one(kind(**request), timeout=20)

            yield call
    finally:
        os.close(place)


@pytest.mark.either_cgroup
def test_agents_see_who_has_which_device(node: Node, plugin: Plugin, tmp_path: Path) -> None:
    plugin.behave(devices={"a": "Healthy", "b": "Healthy", "c": "Unhealthy"}, nodes={"b": [0, 1]})
    node.wait(lambda: amounts(node) == ("3", "2"), "the third device")
    node.apply(
        "pods.yaml", "---\n".join([wanting("first", 2), pod("plain", container("one"), container("two"))])
    )
    node.wait_status("first", "Running")
    node.wait_status("plain", "Running")
    with pod_resources(tmp_path) as call:
        first, plain = call("List", "ListPodResourcesResponse").pod_resources
        assert (first.name, first.namespace, plain.name) == ("first", "default", "plain")
        assert [one.name for one in plain.containers] == ["one", "two"]
        [main] = first.containers
        devices = [(one.resource_name, list(one.device_ids)) for one in main.devices]
        assert devices == [(DONGLE, ["a"]), (DONGLE, ["b"])]
        assert [[node.ID for node in one.topology.nodes] for one in main.devices] == [[], [0, 1]]
        assert (
            call("Get", "GetPodResourcesResponse", pod_name="first", pod_namespace="default").pod_resources
            == first
        )
        offered = call("GetAllocatableResources", "AllocatableResourcesResponse")
        assert [list(one.device_ids) for one in offered.devices] == [["a"], ["b"]]
        with pytest.raises(grpc.RpcError) as error:
            call("Get", "GetPodResourcesResponse", pod_name="none", pod_namespace="default")
        assert error.value.details() == "pod none in namespace default not found"
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        node.kill()
        plugin.kill()
        node.start()

        def listed() -> list[str]:
            with contextlib.suppress(grpc.RpcError):
                found = call("List", "ListPodResourcesResponse").pod_resources
                return [device for one in found[0].containers[0].devices for device in one.device_ids]
            return []

        node.wait(
            lambda: listed() == ["a", "b"], "the restarted daemon to know the devices without their plugin"
        )


@pytest.mark.either_cgroup
def test_a_plugin_says_which_devices_it_prefers(node: Node, plugin: Plugin) -> None:
    plugin.behave(devices=dict.fromkeys("abcd", "Healthy"))
    node.wait(lambda: amounts(node) == ("4", "4"), "four devices")
    node.apply("first.yaml", wanting("first"))
    node.wait_status("first", "Running")
    assert plugin.calls("GetPreferredAllocation") == [], "its options do not say that it has preferences"
    plugin.behave(options={"get_preferred_allocation_available": True}, prefer=["d", "a", "b"])
    (plugin.node / plugin.endpoint).unlink()  # it starts again
    plugin.wait_registered(2)
    node.apply("second.yaml", wanting("second", 2))
    node.wait_status("second", "Running")
    asked = [{"available": ["b", "c", "d"], "must": [], "size": 2}]
    assert plugin.calls("GetPreferredAllocation") == [{"method": "GetPreferredAllocation", "asked": asked}]
    assert devices_of(node, "second") == ["b", "d"]
    plugin.behave(error={"GetPreferredAllocation": "no idea"}, devices=dict.fromkeys("abcdef", "Healthy"))
    node.wait(lambda: amounts(node) == ("6", "6"), "six devices")
    node.apply("third.yaml", wanting("third"))
    node.wait_status("third", "Running")
    assert devices_of(node, "third") == ["c"]


@pytest.mark.either_cgroup
def test_a_plugin_prepares_devices_before_each_start(node: Node, plugin: Plugin) -> None:
    plugin.behave(options={"pre_start_required": True}, error={"PreStartContainer": "still warm"})
    (plugin.node / plugin.endpoint).unlink()
    plugin.wait_registered(2)
    node.apply("first.yaml", wanting("first"))
    node.wait_status("first", "CreateContainerConfigError")
    message = node.container("first")["state"]["waiting"]["message"]
    assert message.endswith("failed: rpc error: code = Unknown desc = still warm")
    plugin.behave(error={})
    node.wait_status("first", "Running")
    assert {tuple(one["ids"]) for one in plugin.calls("PreStartContainer")} == {("a",)}


@pytest.mark.either_cgroup
@pytest.mark.parametrize("survivor", ["daemon", "plugin"])
def test_a_death_during_an_allocation_costs_no_device(node: Node, plugin: Plugin, survivor: str) -> None:
    plugin.behave(seconds={"Allocate": 3600})
    node.apply("first.yaml", wanting("first", 2))
    node.wait(lambda: plugin.calls("Allocate"), "the allocation to begin")
    if survivor == "daemon":
        plugin.kill()
        node.wait(lambda: f"Insufficient {DONGLE}" in node.cli("why", "first").out, "the pod to wait")
        plugin.behave(seconds={})
        plugin.start()
    else:
        node.kill()
        plugin.behave(seconds={})
        node.start()
    node.wait_status("first", "Running")
    assert devices_of(node, "first") == ["a", "b"]
    (node.manifests / "first.yaml").unlink()
    node.apply("second.yaml", wanting("second", 2))
    node.wait_status("second", "Running")
    assert devices_of(node, "second") == ["a", "b"]


@pytest.mark.either_cgroup
def test_a_user_can_open_its_device(node: Node, plugin: Plugin) -> None:
    node.apply("user.yaml", wanting("user", securityContext={"runAsUser": 1000, "runAsGroup": 1001}))
    node.wait_status("user", "Running")
    assert (
        run_in(node, "user", "stat -c %u:%g /dev/dongle; : <>/dev/dongle && echo opens") == "1000:1001\nopens"
    )


@pytest.mark.either_cgroup
def test_a_pod_in_a_user_namespace_gets_its_device(node: Node, plugin: Plugin, tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    os.mknod(fuse, stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
    os.chmod(fuse, 0o666)  # the owner of /dev/fuse is no user of the pod
    given = [{"container_path": "/dev/dongle", "host_path": str(fuse), "permissions": "rw"}]
    plugin.behave(response={"devices": given})
    node.apply("apart.yaml", wanting("apart", hostUsers=False))
    node.wait_status("apart", "Running")
    assert run_in(node, "apart", ": <>/dev/dongle && echo opens") == "opens"


@pytest.mark.either_cgroup
def test_a_plugin_may_name_cdi_devices(node: Node, plugin: Plugin, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    edits = {
        "env": ["FROM=device"],
        "deviceNodes": [{"path": "/dev/dongle", "hostPath": "/dev/fuse", "permissions": "rw"}],
        "mounts": [
            {"containerPath": "/opt/dongle", "hostPath": str(tmp_path / "shared"), "options": ["ro", "bind"]}
        ],
        "hooks": [{"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", f"cat >{ran}"]}],
        "additionalGids": [4711],
    }
    doc: dict[str, Any] = {
        "cdiVersion": "0.7.0",
        "kind": DONGLE,
        "containerEdits": {"env": ["ALL=1"]},
        "devices": [{"name": "a", "containerEdits": edits}],
    }
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi" / "dongle.json").write_text(json.dumps(doc))
    plugin.behave(response={"cdi_devices": [{"name": f"{DONGLE}=a"}]})
    node.apply("first.yaml", wanting("first"))
    node.wait_status("first", "Running")
    script = "echo $FROM $ALL $(id -G); : <>/dev/dongle && echo opens; cat /opt/dongle/firmware"
    assert run_in(node, "first", script) == "device 1 0 4711\nopens\nv7"
    assert json.loads(ran.read_text())["ociVersion"], "the hook got the container's state"

    plugin.behave(response={"cdi_devices": [{"name": f"{DONGLE}=z"}]})
    node.apply("second.yaml", wanting("second"))
    node.wait_status("second", "CreateContainerError")
    message = node.container("second")["state"]["waiting"]["message"]
    assert message.startswith(f"unresolvable CDI device {DONGLE}=z")
    doc["devices"].append({"name": "z"})
    (tmp_path / "cdi" / "dongle.json").write_text(json.dumps(doc))
    node.wait_status("second", "Running")
