"""The Node document has what typed clients require."""

from __future__ import annotations

from kubelite.daemon.node_document import _node_info

#: The required fields of v1.NodeSystemInfo (Kubernetes staging/src/k8s.io/api/core/v1/types.go).
REQUIRED = {
    "machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion",
    "kubeProxyVersion", "operatingSystem", "architecture",
}  # fmt: skip


def test_the_node_s_info_has_every_required_field() -> None:
    assert {key for key, value in _node_info().items() if isinstance(value, str)} >= REQUIRED
