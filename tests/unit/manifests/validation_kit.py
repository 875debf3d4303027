"""Pods to be refused, and their problems."""

from typing import Any

from manifests.types.core import Pod
from manifests.types.defaults import default_pod
from manifests.validation.objects import validate_pod


def problems(
    spec: dict[str, Any] | None = None, meta: dict[str, Any] | None = None, **container: Any
) -> list[str]:
    """Of a pod with one container that has these fields, and these fields of spec and metadata beside."""
    containers = [{"name": "c", "image": "nginx", **container}]
    pod = Pod.parse(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", **(meta or {})},
            "spec": {"containers": containers, **(spec or {})},
        }
    )
    return [str(problem) for problem in validate_pod(default_pod(pod))]


def starts(found: list[str], *expected: str) -> None:
    """Those problems, in that order, each beginning so; and no other."""
    assert len(found) == len(expected), found
    for ours, sentence in zip(found, expected, strict=True):
        assert ours.startswith(sentence), found


C = "spec.containers[0]"
MOUNT = {"name": "v", "mountPath": "/v"}
VOLUMES: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}]}
TCP = {"tcpSocket": {"port": 80}}
