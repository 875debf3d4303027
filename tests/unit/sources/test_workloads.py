"""Workloads in the directory: generation, what controllers wrote, fields that cannot change, deletion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubelite.kube.json import Json
from kubelite.sources.directory import Sources
from kubelite.sources.edits import single_objects, split
from kubelite.sources.plan import bound, created, merged
from kubelite.sources.refused import line_of
from kubelite.sources.workloads import creation_words, edit_words
from kubelite.telemetry.web import public
from state.store import Record, Store
from tests.unit.sources.kit import directory, sources

__all__ = ["directory", "sources"]

REPLICA_SET = """
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: busybox
"""


def _found(store: Store) -> Record:
    record = store.get("ReplicaSet", "default", "web")
    assert record is not None
    return record


async def test_a_spec_has_a_generation_and_a_status_survives_an_edit(
    directory: Path,
    sources: Sources,
    store: Store,
) -> None:
    file = directory / "web.yaml"
    file.write_text(REPLICA_SET + "status: {replicas: 7}\n")
    await sources.scan()
    assert _found(store).metadata["generation"] == 1
    assert "status" not in _found(store).doc, "a manifest has no say in the status"
    await store.update_status(_found(store).uid, {"replicas": 2})
    file.write_text(REPLICA_SET.replace("replicas: 2", "replicas: 3"))
    await sources.scan()
    assert _found(store).metadata["generation"] == 2
    assert _found(store).doc["status"] == {"replicas": 2}
    file.write_text(REPLICA_SET.replace("replicas: 2", "replicas: 3") + "# a comment\n")
    version = store.resource_version
    await sources.scan()
    assert store.resource_version == version


async def test_a_field_that_cannot_change_is_a_problem_of_the_file(
    directory: Path,
    sources: Sources,
    store: Store,
) -> None:
    file = directory / "web.yaml"
    file.write_text(REPLICA_SET)
    await sources.scan()
    file.write_text(REPLICA_SET.replace("app: web", "app: other"))
    await sources.scan()
    assert _found(store).doc["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    (state,) = sources.states()
    assert [problem.field for problem in state.problems] == ["spec.selector"]
    assert "kubelite delete replicaset web" in state.rejected
    line = file.read_text().splitlines().index("  selector: {matchLabels: {app: other}}") + 1
    assert [problem.line for problem in state.problems] == [line]
    file.write_text(REPLICA_SET)
    await sources.scan()
    assert sources.states()[0].problems == ()


async def test_a_refused_edit_is_reported_once_on_its_object(directory: Path, store: Store) -> None:
    said: list[tuple[str, str]] = []
    found = Sources(
        str(directory), store, refused=lambda doc, words: said.append((doc["metadata"]["uid"], words))
    )
    file, other = directory / "web.yaml", REPLICA_SET.replace("app: web", "app: other")
    file.write_text(REPLICA_SET)
    await found.scan()
    for text in (other, other, "# moved\n" + other):
        file.write_text(text)
        await found.scan()
    ((uid, words),) = said
    assert uid == _found(store).uid
    assert words.startswith(f"{file}:7: spec.selector: ")
    assert words.endswith("; an earlier version of the manifest applies")
    # The public page shows where the error is, and not the values.
    shown = public.event({"reason": "FailedValidation", "message": words})["message"]
    assert shown == "web.yaml:7: spec.selector"
    assert found.states()[0].problems[0].line == 8
    file.write_text(REPLICA_SET)
    await found.scan()
    assert len(said) == 1 and not found.states()[0].problems
    file.write_text(other)
    await found.scan()
    assert len(said) == 2


WHOLE = """\
kind: List
items:
- kind: StatefulSet
  metadata: {name: a}
- kind: StatefulSet
  metadata: {name: b, namespace: prod}
  spec:
    volumeClaimTemplates:
    - metadata: {name: x}
    - metadata: {name: y}
"""


@pytest.mark.parametrize(
    ("name", "field", "line"),
    [
        ("StatefulSet prod/b", "spec.volumeClaimTemplates[1].metadata", 10),
        ("StatefulSet prod/b", "spec.selector", 7),
        ("StatefulSet prod/b", "", 5),
        ("StatefulSet default/b", "spec", 0),
    ],
)
def test_the_line_of_a_refused_field(name: str, field: str, line: int) -> None:
    assert line_of(WHOLE, name, field) == line
    assert line_of("{", name, field) == 0


def test_the_line_of_a_field_of_an_object_with_a_generated_name() -> None:
    text = (
        "kind: List\nitems:\n- {kind: Job, metadata: {generateName: a-}}\n"
        "- kind: Job\n  metadata: {generateName: a-}\n"
    )
    names = [chunk.keys[0].name for chunk in single_objects(split(text, "/m/a.yaml"), "/m/a.yaml")]
    assert [line_of(text, f"Job default/{name}", "metadata.x", "/m/a.yaml") for name in names] == [3, 5]


async def test_a_removed_document_deletes_its_object(
    directory: Path,
    sources: Sources,
    store: Store,
) -> None:
    file = directory / "web.yaml"
    file.write_text(REPLICA_SET)
    await sources.scan()
    file.unlink()
    await sources.scan(settle=0)
    assert store.get("ReplicaSet", "default", "web") is None


async def test_a_document_cannot_take_over_what_a_controller_made(
    directory: Path,
    sources: Sources,
    store: Store,
) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u", "controller": True}
    metadata = {"name": "web", "namespace": "default", "uid": "x", "ownerReferences": [owner]}
    await store.create("ReplicaSet", {"kind": "ReplicaSet", "metadata": metadata, "spec": {"replicas": 1}})
    (directory / "web.yaml").write_text(REPLICA_SET)
    await sources.scan()
    assert [p.message for p in sources.states()[0].problems] == [
        "ReplicaSet default/web belongs to deployment shop"
    ]


async def test_a_document_cannot_take_over_a_pod_of_the_cluster_nor_pose_as_one(
    directory: Path,
    sources: Sources,
    store: Store,
) -> None:
    mark = {"kubelite.io/cluster": "https://api"}
    metadata = {"name": "web", "namespace": "default", "uid": "x", "annotations": mark}
    theirs = {"kind": "Pod", "metadata": metadata, "spec": {"containers": []}}
    await store.create("Pod", theirs)
    for name in ("web", "other"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": mark}}
        spec = {"containers": [{"name": "main", "image": "i"}]}
        (directory / f"{name}.yaml").write_text(json.dumps({**pod, "spec": spec}))
    await sources.scan()
    words = "Pod default/web belongs to the cluster that this node has joined"
    assert [p.message for state in sources.states() for p in state.problems] == [words]
    kept, other = store.get("Pod", "default", "web"), store.get("Pod", "default", "other")
    assert kept is not None and kept.metadata["annotations"] == mark and kept.doc["spec"] == theirs["spec"]
    assert other is not None and set(other.metadata["annotations"]) == {"kubelite.io/source"}


def test_the_annotations_of_a_controller_survive() -> None:
    revision = {"deployment.kubernetes.io/revision": "3"}
    old = {
        "kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": "web", "uid": "u", "generation": 1, "annotations": {**revision, "mine": "1"}},
        "spec": {"replicas": 1},
    }  # fmt: skip
    stale: Json = {"mine": "2", "deployment.kubernetes.io/revision": "1"}
    new = bound({**old, "metadata": {"name": "web", "annotations": stale}}, "node")
    found = merged(old, new, "/f.yaml")
    assert found is not None
    assert found["metadata"]["annotations"] == {**revision, "mine": "2", "kubelite.io/source": "/f.yaml"}


def test_a_job_keeps_the_selector_that_it_got_with_its_uid() -> None:
    manifest = {
        "kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "x", "namespace": "default"},
        "spec": {"template": {"metadata": {"labels": {"app": "x"}}, "spec": {}}},
    }  # fmt: skip
    stored = created(manifest, "/f.yaml", uid="u", now=0.0)
    assert stored["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}
    assert merged(stored, manifest, "/f.yaml") is None


@pytest.mark.parametrize(
    ("kind", "old", "new", "said"),
    [
        ("Deployment", {"replicas": 2}, {"replicas": 3}, ["scaled from 2 to 3 pods"]),
        ("Deployment", {"replicas": 3, "template": {}}, {"replicas": 3, "template": {"a": 1}}, [
            "a new revision: 3 pods are replaced"]),
        ("Deployment", {"template": {}}, {"replicas": 1, "template": {"a": 1}, "strategy": {"type": "Recreate"}}, [
            "a new revision: 1 pod is replaced, all at once"]),
        ("Deployment", {}, {"template": {"a": 1}, "paused": True}, [
            "a new revision: no pod is replaced while the rollout is paused", "the rollout is paused"]),
        ("StatefulSet", {"replicas": 3}, {"replicas": 3, "template": {"a": 1}, "updateStrategy": {
            "rollingUpdate": {"partition": 2}}}, ["a new revision: 1 of 3 pods is replaced (partition 2)"]),
        ("StatefulSet", {}, {"replicas": 2, "template": {"a": 1}, "updateStrategy": {"type": "OnDelete"}}, [
            "scaled from 1 to 2 pods", "a new revision: each of 2 pods is replaced when it is deleted"]),
        ("ReplicaSet", {"template": {}}, {"template": {"a": 1}}, [
            "new pods get the new template; existing pods do not change"]),
        ("CronJob", {"schedule": "* * * * *"}, {"schedule": "0 1 * * *", "suspend": True}, [
            "the schedule becomes 0 1 * * *", "suspended"]),
    ],
)  # fmt: skip
def test_an_edit_in_words(kind: str, old: Any, new: Any, said: list[str]) -> None:
    assert list(edit_words({"kind": kind, "spec": old}, {"kind": kind, "spec": new})) == said


def test_a_new_workload_in_words() -> None:
    assert list(creation_words({"kind": "Deployment", "spec": {"replicas": 3}})) == ["3 pods are created"]
    assert list(creation_words({"kind": "ReplicaSet", "spec": {"replicas": 1}})) == ["1 pod is created"]


async def test_a_field_without_effect_is_stored_and_said_once(directory: Path, store: Store) -> None:
    said: list[str] = []
    sources = Sources(
        str(directory), store, report=lambda state: said.extend(p.message for p in state.problems)
    )
    (directory / "shop.yaml").write_text(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n"
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: shop}\n"
        "imagePullSecrets: [{name: a}]\n"
    )
    await sources.scan()
    await sources.scan()
    assert store.get("Namespace", "", "shop") and store.get("ServiceAccount", "shop", "web")
    (state,) = sources.states()
    assert state.status == "Loaded" and state.rejected == ""
    assert [problem.object for problem in state.problems] == ["ServiceAccount shop/web"]
    assert len(said) == 1 and "imagePullSecrets have no effect" in said[0]


async def test_hooks_of_helm_are_said_in_the_state_of_the_file(directory: Path, store: Store) -> None:
    sources = Sources(str(directory), store)
    hook = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s, annotations: {helm.sh/hook: %s}}\n"
    containers = "spec: {containers: [{name: a, image: b}]}\n"
    (directory / "chart.yaml").write_text(
        f"{hook % ('first', 'pre-install')}{containers}---\n{hook % ('test', 'test')}{containers}"
    )
    await sources.scan()
    assert store.get("Pod", "default", "first") and not store.get("Pod", "default", "test")
    (state,) = sources.states()
    assert state.status == "Loaded" and not state.rejected
    assert [(problem.object, problem.line) for problem in state.problems] == [
        ("Pod default/test", 8),
        ("Pod default/first", 1),
    ]
    (directory / "chart.yaml").write_text(f"{hook % ('test', 'test')}{containers}")
    await sources.scan(settle=0)
    assert sources.states()[0].status == "Ignored" and not store.list("Pod")[1:]
