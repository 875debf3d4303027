"""The examples are valid, explained, run without a network, and are quick to delete."""

from pathlib import Path

import pytest

from manifests.types.core import Pod
from manifests.yaml.loader import load_file

EXAMPLES = sorted((Path(__file__).parents[3] / "manifests" / "examples").glob("*.yaml"))


def pods(path: Path) -> list[Pod]:
    loaded = load_file(path)
    assert not loaded.errors
    found = [document.obj for document in loaded.documents if isinstance(document.obj, Pod)]
    assert found
    return found


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_it_runs_from_the_local_image_and_ends_at_once(path: Path) -> None:
    assert path.read_text().startswith("# ")
    for pod in pods(path):
        assert pod.spec.termination_grace_period_seconds == 5
        for container in [*pod.spec.init_containers, *pod.spec.containers]:
            assert container.image == "localhost/kubelite/busybox:latest"
            assert container.image_pull_policy == "IfNotPresent"
        for container in pod.spec.containers:
            assert "trap 'exit" in container.args[0]


def test_they_can_run_side_by_side() -> None:
    names = [pod.metadata.name for path in EXAMPLES for pod in pods(path)]
    assert len(names) == len(set(names))
    ports = [
        port.host_port
        for path in EXAMPLES
        for pod in pods(path)
        for c in pod.spec.containers
        for port in c.ports
    ]
    assert len(ports) == len(set(ports))
