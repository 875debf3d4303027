"""What a container gets of its pod's record, which registrations are refused, and the socket of plugins."""

from __future__ import annotations

import base64
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from kubelite.daemon.plugins.node_devices import container_devices
from kubelite.daemon.plugins.registry import device, problem
from kubelite.daemon.plugins.sockets import discard, listen
from kubelite.node.devices.model import NOTHING, Device, DeviceMount, DeviceNode
from kubelite.plugins.device_messages import (
    CDIDevice,
    ContainerAllocateResponse,
    DeviceSpec,
    NUMANode,
    PluginDevice,
    PluginMount,
    RegisterRequest,
    TopologyInfo,
)
from kubelite.plugins.wire import encode
from kubelite.settings import Settings
from runtime.errors import RuntimeFault


def entry(*ids: str, **response: Any) -> dict[str, Any]:
    encoded = base64.b64encode(encode(ContainerAllocateResponse(**response))).decode()
    return {"ids": list(ids), "response": encoded}


def test_a_container_gets_what_all_its_plugins_say() -> None:
    found = container_devices(
        {
            "b.com/nic": entry("x", envs={"A": "nic", "B": "nic"}, mounts=(PluginMount("/m", "/nic", True),)),
            "a.com/gpu": entry(
                "0",
                envs={"A": "gpu"},
                mounts=(PluginMount("/m", "/gpu"),),
                devices=(DeviceSpec("/dev/gpu", "/dev/gpu0", "rw"),),
                annotations={"k": "v"},
            ),
        }
    )
    assert found.env == {"A": "gpu", "B": "nic"}, "the first resource by name wins"
    assert found.mounts == (DeviceMount("/m", "/gpu"),)
    assert found.nodes == (DeviceNode("/dev/gpu", "/dev/gpu0", "rw"),)
    assert found.annotations == {"k": "v"}
    cdi = container_devices(
        {
            "a.com/gpu": entry(
                "0", cdi_devices=(CDIDevice("a.com/gpu=0"),), annotations={"cdi.k8s.io/x": "b=1,b=2"}
            )
        }
    )
    assert cdi.cdi == ("a.com/gpu=0", "b=1", "b=2")
    assert container_devices({}) == NOTHING


@pytest.mark.parametrize(
    "version, endpoint, resource, words",
    [
        ("v1beta1", "gpu.sock", "example.com/gpu", ""),
        ("v1alpha", "gpu.sock", "example.com/gpu", "API version 'v1alpha' is not supported"),
        ("v1beta1", "../../etc/gpu.sock", "example.com/gpu", "is not the name of a socket"),
        ("v1beta1", "..", "example.com/gpu", "is not the name of a socket"),
        ("v1beta1", "", "example.com/gpu", "is not the name of a socket"),
        ("v1beta1", "gpu.sock", "gpu", "the ResourceName 'gpu' is invalid"),
        ("v1beta1", "gpu.sock", "kubernetes.io/gpu", "is invalid"),
        ("v1beta1", "gpu.sock", "a.com/x=1,b.com/y", "is invalid"),
    ],
)
def test_wrong_registrations_are_refused_in_words(
    version: str, endpoint: str, resource: str, words: str
) -> None:
    found = problem(RegisterRequest(version, endpoint, resource))
    assert words in found and bool(words) == bool(found)


@pytest.mark.parametrize("health, healthy", [("Healthy", True), ("Unhealthy", False), ("", False)])
def test_a_device_is_healthy_if_its_plugin_says_so(health: str, healthy: bool) -> None:
    topology = TopologyInfo((NUMANode(0), NUMANode(1)))
    assert device(PluginDevice("a", health, topology)) == Device("a", healthy, (0, 1))


def test_plugins_register_again_as_their_sockets_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / ("long" * 40)  # longer than the address of a socket may be
    directory.mkdir()
    monkeypatch.chdir(directory)
    left = socket.socket(socket.AF_UNIX)
    left.bind("plugin.sock")
    (directory / "checkpoint").write_text("of a kubelet")
    with listen(str(directory), clear=True) as listening:
        assert sorted(os.listdir(directory)) == ["checkpoint", "kubelet.sock"]
        with pytest.raises(RuntimeFault, match="another process, a kubelet perhaps, listens at"):
            listen(str(directory))
        assert listening.getblocking() is False
    left.close()
    listen(str(directory)).close()  # the socket of a process that was killed is in nobody's way


def test_a_reset_leaves_only_what_belongs_to_others(tmp_path: Path) -> None:
    listen(str(tmp_path / "k" / "device-plugins")).close()
    with listen(str(tmp_path / "k" / "pod-resources")):
        discard(str(tmp_path / "k"))
        assert os.listdir(tmp_path / "k") == ["pod-resources"], "another process listens"
    (tmp_path / "k" / "pki").mkdir()
    discard(str(tmp_path / "k"))
    assert os.listdir(tmp_path / "k") == ["pki"]
    (tmp_path / "k" / "pki").rmdir()
    discard(str(tmp_path / "k"))
    discard(str(tmp_path / "k"))
    assert os.listdir(tmp_path) == []


def test_plugins_look_in_kubelets_directory_unless_the_node_has_another_root() -> None:
    assert Settings().plugin_dir == "/var/lib/kubelet"
    assert Settings(root="/tmp/x").plugin_dir == "/tmp/x/kubelet"
    assert Settings(root="/tmp/x", plugin_dir="/y").plugin_dir == "/y"
    assert Settings(plugin_dir="none").plugin_dir == ""
