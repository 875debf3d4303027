"""DELETE of a namespace: what a dry run leaves, and what cannot be deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kubelite.kube.json import Json
from tests.unit.api.server import Served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served.at(tmp_path) as served:
        metadata: Json = {"name": "web", "namespace": "shop", "uid": "uid-web"}
        spec = {"containers": [{"name": "a", "image": "b"}]}
        doc = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        served.run(served.node.store.create("Pod", doc))
        yield served


def delete(server: Served, name: str, **query: str) -> httpx.Response:
    url = f"http://127.0.0.1:{server.port}/api/v1/namespaces/{name}"
    return httpx.delete(url, params=query)


def test_a_dry_run_and_a_namespace_that_cannot_end_change_nothing(server: Served) -> None:
    assert delete(server, "shop", dryRun="All").status_code == 200
    assert server.node.store.get("Namespace", "", "shop") is None
    answer = delete(server, "default")
    said = 'namespaces "default" is forbidden: this namespace may not be deleted'
    assert (answer.status_code, answer.json()["message"]) == (403, said)
    assert delete(server, "none").status_code == 404


def test_it_is_terminating_whether_it_has_a_document_or_not(server: Served) -> None:
    answer = delete(server, "shop")
    assert answer.status_code == 200 and answer.json()["status"]["phase"] == "Terminating"
    record = server.node.store.get("Namespace", "", "shop")
    assert record is not None and record.deleting


def test_objects_in_lists_are_removed_with_it(server: Served) -> None:
    def config(name: str, namespace: str) -> Json:
        metadata = {"name": name, "namespace": namespace}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}

    directory = Path(server.node.manifests_dir)
    own, mixed = directory / "own.json", directory / "mixed.json"
    head: Json = {"apiVersion": "v1", "kind": "List"}
    own.write_text(json.dumps({**head, "items": [config("a", "shop"), config("b", "shop")]}))
    mixed.write_text(json.dumps({**head, "items": [config("c", "shop"), config("d", "default")]}))
    answer = delete(server, "shop")
    assert answer.status_code == 200 and answer.json()["status"]["phase"] == "Terminating"
    assert "own.json" in answer.headers["Warning"] and "mixed.json" in answer.headers["Warning"]
    assert not own.exists()
    assert json.loads(mixed.read_text()) == {**head, "items": [config("d", "default")]}


def test_nothing_changes_if_a_list_cannot_be_written_again(server: Served) -> None:
    path = Path(server.node.manifests_dir, "list.yaml")
    item = "- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: %s, namespace: %s}\n"
    text = f"apiVersion: v1\nkind: List\nitems:\n# of us\n{item % ('a', 'shop')}{item % ('b', 'default')}"
    path.write_text(text)
    answer = delete(server, "shop")
    assert answer.status_code == 409
    assert answer.json()["message"] == f"{path} has configmap/a inside a List; edit that file by hand"
    assert path.read_text() == text and server.node.store.get("Namespace", "", "shop") is None
