"""The Node document has what typed clients require."""

from __future__ import annotations

from kubelite.daemon.node_document import MOST_IMAGES, AgentState, _node_info, node_document
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.schedule import NodeFacts
from runtime.images.store.store import ImageRecord

#: The required fields of v1.NodeSystemInfo (Kubernetes staging/src/k8s.io/api/core/v1/types.go).
REQUIRED = {
    "machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion",
    "kubeProxyVersion", "operatingSystem", "architecture",
}  # fmt: skip


def test_the_node_s_info_has_every_required_field() -> None:
    assert {key for key, value in _node_info().items() if isinstance(value, str)} >= REQUIRED


def image(identity: str, size: int, reference: str, *digests: str) -> ImageRecord:
    return ImageRecord(identity, reference, digests, size, "", ())


def test_the_node_lists_its_images_the_largest_first() -> None:
    """Kubernetes pkg/kubelet/nodestatus/setters_test.go, TestImages: digests before tags, at most 50 images of 5
    names."""
    records = [
        image("sha256:a", 10, "docker.io/library/small:1", "docker.io/library/small@sha256:1"),
        image("sha256:b", 99, "docker.io/library/large:1", "docker.io/library/large@sha256:2"),
        image("sha256:b", 99, "docker.io/library/large:2"),
        image("sha256:c", 5, ""),
    ]
    config = NodeConfig("n", "192.0.2.1", "/r", "/l", memory_bytes=1 << 30, cpu_milli=1000)

    def listed(images: list[ImageRecord]) -> object:
        state = AgentState(0.0, ("10.88.0.0/16",), 0.0, images=images)
        return node_document(config, NodeFacts("n"), {}, state)["status"].get("images")

    assert listed(records) == [
        {
            "names": [
                "docker.io/library/large@sha256:2",
                "docker.io/library/large:1",
                "docker.io/library/large:2",
            ],
            "sizeBytes": 99,
        },
        {"names": ["docker.io/library/small@sha256:1", "docker.io/library/small:1"], "sizeBytes": 10},
        {"names": [], "sizeBytes": 5},
    ]
    many = [image(f"sha256:{n}", n, f"x:{n}", *(f"x@sha256:{n}{d}" for d in range(9))) for n in range(60)]
    found = listed(many)
    assert isinstance(found, list) and len(found) == MOST_IMAGES and len(found[0]["names"]) == 5
    assert listed([]) is None
