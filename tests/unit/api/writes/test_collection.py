"""DELETE of a collection."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from kubelite.api.kube.resources import RESOURCES
from kubelite.api.kube.writes.collection import select
from tests.unit.api.test_api import Http, http, node
from tests.unit.api.writes.test_writing import BY_HAND, MAPS, PODS, files, pod, words

__all__ = ["files", "http", "node"]


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}


@pytest.fixture
def maps(http: Http, files: Path) -> Path:
    """Besides the ConfigMap of the file by hand, three of the API."""
    for name, app in (("a", "x"), ("b", "x"), ("c", "y")):
        assert http.post(MAPS, json=config_map(name, app=app)).status_code == 201
    return files


def texts(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*.yaml")}


def listed(http: Http, path: str = MAPS) -> list[str]:
    return [doc["metadata"]["name"] for doc in http.get(path).json()["items"]]


def test_the_documents_of_all_selected_objects_are_removed(http: Http, maps: Path) -> None:
    answer = http.request("DELETE", f"{MAPS}?labelSelector=app%3Dx")
    found = answer.json()
    assert (answer.status_code, found["kind"]) == (200, "ConfigMapList")
    assert [doc["metadata"]["name"] for doc in found["items"]] == ["a", "b"]
    assert listed(http) == ["c", "shop"]
    assert set(texts(maps)) == {"shop.yaml", "kubectl/default/configmap-c.yaml"}
    http.request("DELETE", f"{MAPS}?fieldSelector=metadata.name%3Dshop")
    assert listed(http) == ["c"] and texts(maps)["shop.yaml"].startswith("---\napiVersion: v1\nkind: Pod")
    assert http.request("DELETE", MAPS).json()["items"][0]["metadata"]["name"] == "c"
    assert http.request("DELETE", MAPS).json()["items"] == []


@pytest.mark.parametrize(
    ("query", "options", "code"),
    [
        ("?dryRun=All", {}, 200),
        ("", {"dryRun": ["All"]}, 200),
        ("?dryRun=x", {}, 400),
        ("", {"preconditions": {"uid": "uid-default-a"}}, 409),  # b has another one
        ("", {"propagationPolicy": "Orphan"}, 400),
        ("", {"propagationPolicy": "Nothing"}, 400),
        ("", {"gracePeriodSeconds": -1}, 400),
        ("?labelSelector=!!", {}, 400),
        ("?fieldSelector=a", {}, 400),
        ("?resourceVersionMatch=Exact", {}, 422),
        ("?manifest=keep", {}, 400),
    ],
)
def test_what_deletes_nothing(http: Http, maps: Path, query: str, options: Any, code: int) -> None:
    before = texts(maps)
    answer = http.request("DELETE", MAPS + query, json=options)
    assert answer.status_code == code, answer.text
    assert texts(maps) == before and listed(http) == ["a", "b", "c", "shop"]


def test_a_precondition_that_holds_for_all_lets_them_be_deleted(http: Http, maps: Path) -> None:
    options = {"preconditions": {"uid": "uid-default-a"}}
    assert http.request("DELETE", f"{MAPS}?fieldSelector=metadata.name=a", json=options).status_code == 200
    assert listed(http) == ["b", "c", "shop"]


def test_all_files_are_changed_or_none(http: Http, maps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, unlink = texts(maps), os.unlink

    def failing(path: str) -> None:
        if path.endswith("configmap-c.yaml"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path)

    monkeypatch.setattr(os, "unlink", failing)
    code, said = words(http.request("DELETE", MAPS))
    assert code == 409 and "configmap-c.yaml: Read-only file system" in said
    assert texts(maps) == before and (maps / "shop.yaml").read_text() == BY_HAND
    assert listed(http) == ["a", "b", "c", "shop"]


def test_pods_of_files_and_of_controllers(http: Http, files: Path) -> None:
    """till is in a file, web and db in none. With a grace period, all are told."""
    assert http.post(PODS, json=pod("new")).status_code == 201
    answer = http.request("DELETE", PODS, json={"gracePeriodSeconds": 3})
    assert answer.status_code == 200, answer.text
    assert listed(http, PODS) == [] and listed(http, "/api/v1/namespaces/prod/pods") == ["api"]
    assert {one[1:] for one in http.node.deleted} >= {("web", 3), ("db", 3)}
    assert "kind: Pod" not in (files / "shop.yaml").read_text()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/v1/pods", "pods can be deleted as a collection in one namespace, not in all at once"),
        ("/api/v1/namespaces", "namespaces of v1 cannot be deleted as a collection: delete each by its name"),
        ("/api/v1/nodes", "nodes of v1 cannot be deleted as a collection"),
        ("/api/v1/namespaces/default/events", "events of v1 cannot be deleted as a collection"),
    ],
)
def test_what_is_no_collection_that_can_be_deleted(http: Http, path: str, message: str) -> None:
    assert words(http.request("DELETE", path)) == (405, message)


def test_what_the_node_makes_is_kept_and_named(http: Http) -> None:
    answer = http.request("DELETE", "/api/v1/namespaces/default/serviceaccounts")
    assert (answer.status_code, answer.json()["items"]) == (200, [])
    warned = '299 - "not deleted, because the node itself makes them: serviceaccounts default"'
    assert answer.headers["warning"] == warned
    named = [{"metadata": {"name": f"r{number}"}} for number in range(7)]
    assert len(select(RESOURCES["clusterroles"], named).kept) == 7


def test_discovery_names_the_verb(http: Http) -> None:
    entries = {entry["name"]: entry["verbs"] for entry in http.get("/api/v1").json()["resources"]}
    assert "deletecollection" in entries["pods"]
    assert not any("deletecollection" in entries[name] for name in ("namespaces", "nodes", "events"))
