"""Pod Security admission on a whole node: the directory, apply, debug and the warning event."""

from __future__ import annotations

import json
import re
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


def deployment(name: str, namespace: str) -> str:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"hostNetwork": True, "containers": [container()], "terminationGracePeriodSeconds": 2},
    }
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
    metadata = {"name": name, "namespace": namespace}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})


SHOP = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: %s, pod-security.kubernetes.io/warn: %s}}
"""


def test_labels_of_a_namespace_and_the_pods_of_a_workload(node: Node) -> None:
    """As on a cluster, a Deployment is warned of, its ReplicaSet says why it creates no pod, and a label decides."""
    node.apply("web.yaml", deployment("web", "shop"))
    node.apply("z.yaml", SHOP % ("baseline", "baseline"))

    def said(reason: str, kind: str) -> list[str]:
        found = [one for one in node.events(reason) if one["involvedObject"]["kind"] == kind]
        return [one["message"] for one in found if one["involvedObject"].get("namespace") == "shop"]

    node.wait(lambda: said("FailedCreate", "ReplicaSet"), "the refusal")
    violated = 'violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
    assert re.fullmatch(
        r'Error creating: pods "web-[a-z0-9]+-" is forbidden: ' + re.escape(violated),
        said("FailedCreate", "ReplicaSet")[0],
    )
    [warned] = said("PodSecurity", "Deployment")
    assert warned.startswith('would violate PodSecurity "') and "host namespaces (hostNetwork=true)" in warned
    node.apply("z.yaml", SHOP % ("privileged", "privileged"))
    node.wait(
        lambda: '"phase": "Running"' in node.cli("get", "pods", "-n", "shop", "-o", "json").out,
        "the pod that the label admits",
    )
    labels = node.json("get", "namespaces", "shop", "-o", "json")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
