"""DELETE of a namespace: what a dry run leaves, and what cannot be deleted."""

from __future__ import annotations

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
