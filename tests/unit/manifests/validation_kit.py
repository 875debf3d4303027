"""Invalid pods, and their problems."""

from typing import Any

from manifests.types.core import Pod
from manifests.types.defaults import default_pod
from manifests.validation.objects import validate_pod


def problems(
    spec: dict[str, Any] | None = None, meta: dict[str, Any] | None = None, **container: Any
) -> list[str]:
    """The problems of a pod with these fields of its only container, of its spec and of its metadata."""
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
    """Check that these are all problems, in this order, by the start of each."""
    assert len(found) == len(expected), found
    for ours, sentence in zip(found, expected, strict=True):
        assert ours.startswith(sentence), found


C = "spec.containers[0]"
MOUNT = {"name": "v", "mountPath": "/v"}
VOLUMES: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}]}
TCP = {"tcpSocket": {"port": 80}}
