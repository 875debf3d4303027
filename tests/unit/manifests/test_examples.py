"""The examples are valid, explained, run without a network, and are quick to delete."""

from pathlib import Path

import pytest

from manifests.types.core import Pod, PodSpec
from manifests.types.workloads.deployment import Deployment
from manifests.types.workloads.job import Job
from manifests.yaml.loader import load_file

EXAMPLES = sorted((Path(__file__).parents[3] / "manifests" / "examples").glob("*.yaml"))


def specs(path: Path) -> dict[str, PodSpec]:
    """The specs of pods in a file, by kind and name of what they are written in."""
    loaded = load_file(path)
    assert not loaded.errors
    found = {}
    for document in loaded.documents:
        obj = document.obj
        if isinstance(obj, Pod):
            found[f"Pod/{obj.metadata.name}"] = obj.spec
        elif isinstance(obj, Deployment | Job):
            found[f"{obj.kind}/{obj.metadata.name}"] = obj.spec.template.spec
    assert found
    return found


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_it_runs_from_the_local_image_and_ends_at_once(path: Path) -> None:
    assert path.read_text().startswith("# ")
    for spec in specs(path).values():
        assert spec.termination_grace_period_seconds == 5
        for container in [*spec.init_containers, *spec.containers]:
            assert container.image == "localhost/kubelite/busybox:latest"
            assert container.image_pull_policy == "IfNotPresent"
        for container in spec.containers:
            assert "trap 'exit" in container.args[0]


def test_they_can_run_side_by_side() -> None:
    names = [name for path in EXAMPLES for name in specs(path)]
    assert len(names) == len(set(names))
    ports = [
        port.host_port
        for path in EXAMPLES
        for spec in specs(path).values()
        for c in spec.containers
        for port in c.ports
        if port.host_port
    ]
    assert len(ports) == len(set(ports))
