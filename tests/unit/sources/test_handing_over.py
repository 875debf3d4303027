"""A manifest is parsed once: the reader hands the typed spec to its users, and it equals the result of a parse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubelite.kube.json import Json
from kubelite.kube.objects import mark_deleting
from kubelite.node.model.priority import admitted, classes_of
from kubelite.node.model.spec_cache import with_changes
from kubelite.node.spec import hashes
from kubelite.node.worker.parsed_pods import ParsedPods
from kubelite.sources.directory import Sources
from kubelite.sources.plan import bound, created
from manifests.types.core import Pod, PodSpec, PodStatus
from manifests.types.meta import Model
from manifests.yaml.loader import load_file
from state.records import Record
from state.store import Store
from tests.unit.manifests.test_corpus import CORPUS, files
from tests.unit.sources.kit import directory, pod, web

__all__ = ["directory"]


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pods whose spec was parsed from a document."""
    found: list[str] = []
    parse = Model.parse.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Model], data: Any) -> Any:
        if cls is Pod and not isinstance(data.get("spec"), PodSpec):
            found.append(data["metadata"]["name"])
        if cls is PodSpec and data.get("containers"):
            found.append("?")
        return parse(cls, data)

    monkeypatch.setattr(Model, "parse", classmethod(counted))
    return found


async def test_one_parse_for_each_change_of_a_manifest(
    directory: Path, store: Store, specs: list[str]
) -> None:
    parsed = ParsedPods()
    sources = Sources(str(directory), store, node_name="node-1", priorities={"low": -5}, offer=parsed.offer)
    (directory / "web.yaml").write_text(pod())
    await sources.scan()
    first = parsed.of(web(store))
    assert first.spec.node_name == "node-1"
    assert first.spec.containers[0].image == "busybox"
    assert specs == ["web"]

    (directory / "web.yaml").write_text(
        pod(image="nginx").replace("spec:", "spec:\n  priorityClassName: low")
    )
    await sources.scan()
    second = parsed.of(web(store))
    assert (second.spec.containers[0].image, second.spec.priority) == ("nginx", -5)
    assert second.metadata.generation == 2
    assert specs == ["web", "web"]

    (directory / "web.yaml").write_text("# as before\n" + (directory / "web.yaml").read_text())
    await sources.scan()
    assert parsed.of(web(store)) is second
    assert specs == ["web", "web", "web"]

    await store.update_status(web(store).uid, {"phase": "Running"})
    assert parsed.of(web(store)).status.phase == "Running"
    await store.modify(web(store).uid, lambda doc: mark_deleting(doc, now=1e9))
    third = parsed.of(web(store))
    assert third.metadata.deletion_timestamp and third.spec is second.spec
    assert specs == ["web", "web", "web"], "neither a status nor a deletion is another specification"


async def test_a_spec_that_was_not_offered_is_parsed(store: Store, specs: list[str]) -> None:
    doc = {
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
        "spec": {"containers": [{"name": "a"}]},
    }
    record = await store.create("Pod", doc)
    parsed = ParsedPods()
    other = Pod.parse(doc).spec
    parsed.offer("u1", {"containers": [{"name": "a"}]}, other)  # of a version that was never stored
    found = parsed.of(record)
    assert found.spec == other and found.spec is not other
    assert specs == ["web", "web"]


def test_an_outdated_status_does_not_replace_a_newer_pod() -> None:
    parsed = ParsedPods()
    doc = {"metadata": {"name": "web", "uid": "u1"}, "spec": {"containers": [{"name": "a"}]}}
    parsed.of(Record("Pod", "default", "web", "u1", 1, doc))
    second = Record("Pod", "default", "web", "u1", 2, {**doc, "status": {"phase": "Running"}})
    third = Record("Pod", "default", "web", "u1", 3, {**second.doc, "spec": {"containers": [{"name": "b"}]}})
    newest = parsed.of(third)
    assert parsed.written(second, PodStatus(phase="Running")) is None
    assert parsed.of(third) is newest and parsed.version("u1") == 3


SPEC: Json = {"containers": [{"name": "a"}], "hostname": "h"}


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, True),
        ({"nodeName": "n", "priority": 7}, True),
        ({"ephemeralContainers": [{"name": "debug"}]}, True),
        ({"containers": [{"name": "b"}]}, False),
        ({"hostname": None}, False),
    ],
)
def test_changes_that_can_be_applied_to_a_typed_spec(change: Json, known: bool) -> None:
    after = {key: value for key, value in {**SPEC, **change}.items() if value is not None}
    found = with_changes(PodSpec.parse(SPEC), SPEC, after)
    assert (found is not None) == known
    assert found is None or found == PodSpec.parse(after)


CLASSES = classes_of(
    [{"metadata": {"name": "usual"}, "value": 3, "globalDefault": True, "preemptionPolicy": "Never"}], {}
)


def both_ways(path: Path) -> list[tuple[Pod, Pod]]:
    """The pods of a file: handed over, and read back from disk."""
    found = []
    for document in load_file(path).documents:
        if not isinstance(document.obj, Pod):
            continue
        doc = document.obj.to_json()
        new = created(admitted(bound(doc, "node-1"), CLASSES), str(path), uid="u1", now=1e9)
        spec = with_changes(document.obj.spec, doc["spec"], new["spec"])
        assert spec is not None
        handed = ParsedPods()
        handed.offer("u1", new["spec"], spec)
        record = Record("Pod", document.namespace, document.name, "u1", 1, new)
        again = Record("Pod", document.namespace, document.name, "u1", 1, json.loads(json.dumps(new)))
        found.append((handed.of(record), ParsedPods().of(again)))
    return found


def test_a_handed_over_spec_equals_a_parsed_one() -> None:
    """Otherwise the next start of the daemon, which parses the pod from the state file, would restart it."""
    pods = [pair for name in files() for pair in both_ways(CORPUS / name)]
    assert len(pods) > 150
    for handed, read in pods:
        assert handed == read
        assert handed.to_json() == read.to_json()
        assert hashes.sandbox_hash(handed) == hashes.sandbox_hash(read)
        for one, other in zip(handed.spec.containers, read.spec.containers, strict=True):
            assert hashes.container_hash(handed, one) == hashes.container_hash(read, other)
        for volume, same in zip(handed.spec.volumes, read.spec.volumes, strict=True):
            assert (len(volume.model_fields_set) == 1) == (len(same.model_fields_set) == 1)
