"""Pod Security admission on a whole node: the directory, apply, debug and the warning event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node

SETTINGS = {
    "pod_security_enforce": "baseline",
    "pod_security_warn": "restricted",
    "pod_security_namespaces": "system=privileged",
    "allowed_host_paths": "/srv",
}


@pytest.fixture
def node(tmp_path: Path, images: Path) -> Iterator[Node]:
    with running_node(tmp_path, images, **SETTINGS) as found:
        yield found


def test_levels(node: Node, tmp_path: Path) -> None:
    node.apply("host.yaml", pod("host", container(), hostNetwork=True))
    node.apply("system.yaml", pod("host", container(), namespace="system", hostNetwork=True))
    node.apply("web.yaml", pod("web", container()))
    node.wait_status("web", "Running")
    said = 'violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
    files = node.json("get", "manifests", "-o", "json")["files"]
    (problem,) = next(one for one in files if one["file"].endswith("host.yaml"))["errors"]
    assert problem["message"] == f'pods "host" is forbidden: {said}'
    node.wait(lambda: node.pod("host", "system")["status"].get("phase") == "Running", "the exempt pod runs")
    assert [e["message"] for e in node.events("PodSecurity") if e["involvedObject"]["name"] == "web"] == [
        'would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "main" must set '
        'securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "main" must set '
        'securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "main" must set '
        'securityContext.runAsNonRoot=true), seccompProfile (pod or container "main" must set '
        'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    ]
    applied = tmp_path / "a.yaml"
    applied.write_text(pod("other", container(), hostPID=True))
    refused = node.cli("apply", "-f", str(applied), check=False)
    assert (
        refused.code == 1
        and 'pods "other" is forbidden: violates PodSecurity "baseline:latest"' in refused.err
    )
    volumes = [{"name": "v", "hostPath": {"path": "/etc"}}]
    applied.write_text(pod("paths", container(), namespace="system", volumes=volumes))
    refused = node.cli("apply", "-f", str(applied), check=False)
    assert (
        'spec.volumes[0].hostPath.pathPrefix: Invalid value: "/etc": is not allowed to be used' in refused.err
    )
    labels = node.json("get", "namespaces", "default", "-o", "json")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
