"""metadata.managedFields after creates, updates, patches, scales, and edits of a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubelite.sources.ownership import NONE_GIVEN
from tests.unit.api.test_api import Http, http, node

__all__ = ["http", "node"]

MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = {"content-type": "application/merge-patch+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "store"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "busybox"}]},
        },
    },
}


def settings(name: str = "shop", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def managers(doc: dict[str, Any]) -> dict[str, Any]:
    """Return what each manager owns of `data`, or of the object."""
    found = {}
    for entry in doc["metadata"].get("managedFields", []):
        assert entry["fieldsType"] == "FieldsV1" and entry["time"].endswith("Z")
        name = "/".join(entry[key] for key in ("manager", "subresource") if entry.get(key))
        found[f"{name} {entry['operation']}"] = entry["fieldsV1"].get("f:data", entry["fieldsV1"])
    return found


def test_a_created_object_belongs_to_who_creates_it(http: Http) -> None:
    made = http.post(f"{MAPS}?fieldManager=maker", json=settings(a="1"))
    wanted: dict[str, Any] = {"maker Update": {".": {}, "f:a": {}}}
    assert managers(made.json()) == wanted
    assert managers(http.get(f"{MAPS}/shop").json()) == wanted
    assert managers(http.get(MAPS).json()["items"][0]) == wanted
    assert made.json()["metadata"]["managedFields"][0]["apiVersion"] == "v1"
    text = (Path(http.node.manifests_dir) / "kubectl/default/configmap-shop.yaml").read_text()
    assert "managedFields" not in text


def test_a_client_that_names_no_manager_is_named_by_its_program(http: Http) -> None:
    made = http.post(MAPS, json=settings(a="1"), headers={"user-agent": "kr8s/0.1 (linux)"})
    assert list(managers(made.json())) == ["kr8s Update"]


@pytest.mark.parametrize(
    ("manager", "words"), [("x" * 129, "Too long"), ("a%07b", "should only contain printable characters")]
)
def test_the_name_of_a_manager_is_checked(http: Http, manager: str, words: str) -> None:
    answer = http.post(f"{MAPS}?fieldManager={manager}", json=settings(a="1"))
    assert answer.status_code == 422 and words in answer.json()["message"]
    assert http.get(f"{MAPS}/shop").status_code == 404


def test_a_dry_run_shows_managers_and_records_none(http: Http) -> None:
    made = http.post(f"{MAPS}?fieldManager=maker&dryRun=All", json=settings(a="1"))
    assert managers(made.json()) == {"maker Update": {".": {}, "f:a": {}}}
    http.post(f"{MAPS}?fieldManager=maker", json=settings(a="1"))
    patched = http.request(
        "PATCH", f"{MAPS}/shop?fieldManager=p&dryRun=All", json={"data": {"b": "1"}}, headers=MERGE
    )
    assert managers(patched.json())["p Update"] == {"f:b": {}}
    assert list(managers(http.get(f"{MAPS}/shop").json())) == ["maker Update"]


def test_patches_and_updates_take_what_they_change(http: Http) -> None:
    http.post(f"{MAPS}?fieldManager=maker", json=settings(a="1", b="1"))
    patched = http.request(
        "PATCH", f"{MAPS}/shop?fieldManager=patcher", json={"data": {"b": "2"}}, headers=MERGE
    ).json()
    assert managers(patched) == {"maker Update": {".": {}, "f:a": {}}, "patcher Update": {"f:b": {}}}
    patched["data"] = {"b": "2", "c": "3"}
    put = http.request("PUT", f"{MAPS}/shop?fieldManager=putter", json=patched).json()
    assert managers(put) == {
        "maker Update": {},
        "patcher Update": {"f:b": {}},
        "putter Update": {"f:c": {}},
    }


def test_defaults_belong_to_nobody_who_did_not_change_them(http: Http) -> None:
    http.post(f"{DEPLOYMENTS}?fieldManager=maker", json=DEPLOYMENT)
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "other"}]}}}}
    kind = {"content-type": "application/strategic-merge-patch+json"}
    doc = http.request("PATCH", f"{DEPLOYMENTS}/store?fieldManager=setter", json=patch, headers=kind).json()
    container: dict[str, Any] = {'k:{"name":"c"}': {"f:image": {}}}
    assert managers(doc)["setter Update"] == {
        "f:spec": {"f:template": {"f:spec": {"f:containers": container}}}
    }


def test_a_scale_is_recorded_as_one(http: Http) -> None:
    http.post(f"{DEPLOYMENTS}?fieldManager=maker", json=DEPLOYMENT)
    scale = http.request(
        "PATCH",
        f"{DEPLOYMENTS}/store/scale?fieldManager=kubectl",
        json={"spec": {"replicas": 3}},
        headers=MERGE,
    )
    assert scale.status_code == 200, scale.text
    doc = http.get(f"{DEPLOYMENTS}/store").json()
    assert managers(doc)["kubectl/scale Update"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in managers(doc)["maker Update"]["f:spec"]


def test_an_object_from_a_file_has_no_managers_whoever_changes_it(http: Http) -> None:
    file = Path(http.node.manifests_dir) / "shop.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop}\ndata: {a: '1'}\n")
    http.runner.run(http.node.rescan())
    doc = http.request("PATCH", f"{MAPS}/shop", json={"data": {"a": "2"}}, headers=MERGE).json()
    assert doc["data"] == {"a": "2"} and "managedFields" not in doc["metadata"]


def test_an_edit_of_the_file_has_a_manager_of_its_own(http: Http) -> None:
    http.post(f"{MAPS}?fieldManager=maker", json=settings(a="1", b="1"))
    file = Path(http.node.manifests_dir) / "kubectl/default/configmap-shop.yaml"
    file.write_text(file.read_text().replace("b: '1'", "b: '2'").replace('b: "1"', "b: '2'"))
    http.runner.run(http.node.rescan())
    doc = http.get(f"{MAPS}/shop").json()
    assert doc["data"]["b"] == "2"
    assert managers(doc) == {
        "maker Update": {".": {}, "f:a": {}},
        "kubelite-directory Update": {"f:b": {}},
    }


def test_clients_may_change_managers_as_kubectl_does_when_it_migrates(http: Http) -> None:
    doc = http.post(f"{MAPS}?fieldManager=kubectl-client-side-apply", json=settings(a="1")).json()
    entry = {**doc["metadata"]["managedFields"][0], "manager": "kubectl", "operation": "Apply"}
    patch = [
        {"op": "replace", "path": "/metadata/managedFields", "value": [entry]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": doc["metadata"]["resourceVersion"]},
    ]
    answer = http.request("PATCH", f"{MAPS}/shop", json=patch, headers=JSON_PATCH)
    assert answer.status_code == 200
    assert list(managers(http.get(f"{MAPS}/shop").json())) == ["kubectl Apply"]
    again = http.request("PATCH", f"{MAPS}/shop", json=patch, headers=JSON_PATCH)
    assert again.status_code == 409  # the object has changed since


@pytest.mark.parametrize("empty", [[], [{}]])
def test_managers_can_be_forgotten(http: Http, empty: list[Any]) -> None:
    http.post(f"{MAPS}?fieldManager=maker", json=settings(a="1"))
    patch = {"metadata": {"managedFields": empty}}
    doc = http.request("PATCH", f"{MAPS}/shop", json=patch, headers=MERGE).json()
    assert "managedFields" not in doc["metadata"]
    doc = http.request("PATCH", f"{MAPS}/shop", json={"data": {"a": "2"}}, headers=MERGE).json()
    assert "managedFields" not in doc["metadata"] and doc["data"] == {"a": "2"}


def test_managers_that_cannot_be_read_are_ignored(http: Http) -> None:
    http.post(f"{MAPS}?fieldManager=maker", json=settings(a="1"))
    for sent in ([{"manager": "x"}], [{"manager": "x", "operation": "Update", "fieldsType": "FieldsV9"}]):
        answer = http.request(
            "PATCH", f"{MAPS}/shop", json={"metadata": {"managedFields": sent}}, headers=MERGE
        )
        assert answer.status_code == 200
        assert list(managers(answer.json())) == ["maker Update"]


@pytest.mark.parametrize(
    "fields",
    [
        {"f:metadata": {}},
        {"f:metadata": {"f:name": {}}, "f:kind": {}},
        {'v:"\\ud800"': {}},
        {f"v:{'[' * 200_000}{']' * 200_000}": {}},
    ],
    ids=["metadata", "name", "surrogate", "deep"],
)
def test_made_up_managers_do_not_break_later_writes(http: Http, fields: dict[str, Any]) -> None:
    http.post(f"{MAPS}?fieldManager=maker", json=settings(a="1"))
    entry = {
        "manager": "m",
        "operation": "Apply",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    doc = settings(a="1")
    sent = {**doc, "metadata": {**doc["metadata"], "managedFields": [entry]}}
    assert http.request("PUT", f"{MAPS}/shop", json=sent).status_code == 200
    apply = {"content-type": "application/apply-patch+yaml"}
    done = http.request(
        "PATCH", f"{MAPS}/shop?fieldManager=m&force=true", json=settings(b="2"), headers=apply
    )
    assert (done.status_code, done.json()["data"]) == (200, {"a": "1", "b": "2"})


def test_items_that_nothing_identifies_are_written_but_not_merged(http: Http) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    doc = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"}}
    made = http.post(accounts, json={**doc, "secrets": [{"kind": "Secret"}]})
    assert made.status_code == 201, made.text
    apply = {"content-type": "application/apply-patch+yaml"}
    labels = {**doc, "metadata": {"name": "builder", "labels": {"a": "1"}}}
    done = http.request("PATCH", f"{accounts}/builder?fieldManager=m", json=labels, headers=apply)
    assert done.status_code == 400
    assert ".secrets[0]: an item needs name, which identifies it" in done.json()["message"]


def test_a_write_that_replaces_the_object_is_answered_with_its_successor(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    http.post(f"{MAPS}?fieldManager=maker", json=settings(a="1"))
    first = http.get(f"{MAPS}/shop").json()["metadata"]["uid"]
    scanned, gone = http.node.rescan, list[str]()

    async def rescan(owners: Any = NONE_GIVEN) -> None:
        await scanned(owners)
        if owners and not gone:  # as a Job that was edited goes
            gone.append(first)
            await http.node.store.delete(first)

    monkeypatch.setattr(http.node, "rescan", rescan)
    apply = {"content-type": "application/apply-patch+yaml"}
    url = f"{MAPS}/shop?fieldManager=m&force=true"
    done = http.request("PATCH", url, json=settings(a="2"), headers=apply)
    assert done.status_code == 200, done.text
    assert done.json()["data"] == {"a": "2"}
    assert "m Apply" in managers(done.json())
    assert gone == [first]
