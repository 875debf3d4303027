"""Writes by the API: each is an edit of the manifest directory."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kubelite.sources.ownership import NONE_GIVEN, Owners
from tests.unit.api.fake_node import pod_doc
from tests.unit.api.test_api import Http, http, node

__all__ = ["http", "node"]

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = {"content-type": "application/merge-patch+json"}
STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}
BY_HAND = """\
# the settings of the shop
apiVersion: v1
kind: ConfigMap
metadata:
  name: shop  # as the pods name it
data:
  colour: red   # not blue
  size: "3"
---
apiVersion: v1
kind: Pod
metadata: {name: till}
spec:
  containers:
  - name: app   # the first
    image: till:1
    env:
    - {name: A, value: "1"}   # kept
    - {name: B, value: "2"}
"""


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    found = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}}
    return {**found, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}


@pytest.fixture
def files(http: Http) -> Path:
    """The manifest directory, with a file that somebody wrote by hand."""
    directory = Path(http.node.manifests_dir)
    (directory / "shop.yaml").write_text(BY_HAND)
    http.runner.run(http.node.rescan())
    return directory


def words(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


def test_a_new_object_gets_a_file_of_its_own(http: Http) -> None:
    sent = pod("new", creationTimestamp=None, labels={"a": "b"})
    answer = http.post(PODS, json={**sent, "status": {}})
    assert (answer.status_code, answer.json()["metadata"]["uid"]) == (201, "uid-default-new")
    file = Path(http.node.manifests_dir) / "kubectl/default/pod-new.yaml"
    text = file.read_text()
    assert "creationTimestamp" not in text and "status" not in text and "labels:\n    a: b\n" in text
    said = words(http.post(PODS, json=sent))
    assert said == (409, 'pods "new" already exists')
    http.post("/api/v1/namespaces", json={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})
    assert (Path(http.node.manifests_dir) / "kubectl/namespace-x.yaml").exists()


def test_a_name_is_generated(http: Http) -> None:
    sent = pod("")
    sent["metadata"] = {"generateName": "job-"}
    name = http.post(PODS, json=sent).json()["metadata"]["name"]
    assert name.startswith("job-") and len(name) == 9


@pytest.mark.parametrize(
    ("document", "code", "message"),
    [
        ([], 400, "the body is not an object"),
        ({"kind": "Service"}, 400, "the kind in the data (Service) does not match the expected kind (Pod)"),
        ({"metadata": {"resourceVersion": "1", "name": "a"}}, 400, "resourceVersion should not be set"),
        ({"metadata": {}}, 422, "metadata.name: Required value"),
        ({"metadata": 3}, 400, "metadata is not an object"),
        ({"metadata": {"name": "../x"}}, 422, "metadata.name: Invalid value"),
        ({"metadata": {"name": ["x"]}}, 422, "metadata.name: Invalid value"),
        ({"metadata": {"name": "a", "namespace": "b"}}, 400, "does not match the namespace sent"),
        ({"metadata": {"name": "a"}}, 422, 'Pod "a" is invalid: spec: Required value'),
        ({"metadata": {"name": "a"}, "spec": {"containerz": []}}, 422, "spec.containers: Required value"),
    ],
)
def test_what_is_no_object_is_refused_and_leaves_nothing(
    http: Http, document: Any, code: int, message: str
) -> None:
    found, said = words(http.post(PODS, json=document))
    assert (found, message in said) == (code, True), said
    assert not (Path(http.node.manifests_dir) / "kubectl").exists()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"---\n---\n", b"[" * 5000, b'{"a": "\\ud800"}', b"k8s\x00"]
)
@pytest.mark.parametrize(
    "kind", ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]
)
def test_what_cannot_be_read_is_a_bad_request(http: Http, body: bytes, kind: str) -> None:
    for method, path in (("POST", PODS), ("PUT", f"{PODS}/web"), ("DELETE", f"{PODS}/till")):
        if not (method == "DELETE" and not body):
            answer = http.request(method, path, content=body, headers={"content-type": kind})
            assert answer.status_code in (400, 404, 415, 422), answer.text


def test_a_patch_changes_a_file_in_place(http: Http, files: Path) -> None:
    answer = http.request("PATCH", f"{MAPS}/shop", json={"data": {"colour": "blue"}}, headers=MERGE)
    assert (answer.status_code, answer.json()["data"]["colour"]) == (200, "blue")
    assert (files / "shop.yaml").read_text() == BY_HAND.replace("colour: red ", "colour: blue ")
    image = {
        "spec": {"containers": [{"name": "app", "image": "till:2", "env": [{"name": "C", "value": "3"}]}]}
    }
    assert http.request("PATCH", f"{PODS}/till", json=image, headers=STRATEGIC).status_code == 200
    text = (files / "shop.yaml").read_text()
    assert "image: till:2" in text and "# the first" in text and "# kept" in text
    gone = [{"op": "remove", "path": "/data/size"}]
    assert http.request("PATCH", f"{MAPS}/shop", json=gone, headers=JSON_PATCH).status_code == 200
    assert "size" not in (files / "shop.yaml").read_text()


def test_an_object_that_comes_back_changed_changes_only_that(http: Http, files: Path) -> None:
    """The defaults, the status and the metadata that the node adds do not get into the file."""
    found = http.get(f"{PODS}/till").json()
    found["spec"]["containers"][0]["image"] = "till:3"
    found["status"] = {"phase": "Failed"}
    assert http.request("PUT", f"{PODS}/till", json=found).status_code == 200
    assert (files / "shop.yaml").read_text() == BY_HAND.replace("till:1", "till:3")
    again = http.get(f"{PODS}/till").json()
    assert http.request("PUT", f"{PODS}/till", json=again).json() == again


def test_preconditions(http: Http, files: Path) -> None:
    path = f"{MAPS}/shop"
    for metadata, code, message in (
        ({"resourceVersion": "1"}, 409, "the object has been modified; please apply your changes"),
        ({"uid": "other"}, 409, "Precondition failed: UID"),
        ({"name": "other"}, 400, "the name of the object (other) does not match the name on the URL (shop)"),
        ({"namespace": "other"}, 400, "does not match the namespace"),
    ):
        found, said = words(http.request("PATCH", path, json={"metadata": metadata}, headers=MERGE))
        assert (found, message in said) == (code, True), said
    assert (files / "shop.yaml").read_text() == BY_HAND
    assert words(http.request("PATCH", f"{MAPS}/nix", json={}, headers=MERGE)) == (
        404, 'configmaps "nix" not found',
    )  # fmt: skip


@pytest.mark.parametrize(
    ("patch", "headers", "code"),
    [
        ({"data": 3}, MERGE, 422),
        ([], MERGE, 422),
        ({"$patch": "nix"}, STRATEGIC, 422),
        ({"metadata": {"$retainKeys": 5}}, STRATEGIC, 400),
        ([{"op": "replace", "path": "/nix/nix", "value": 1}], JSON_PATCH, 422),
        ([{"op": "move", "path": "/a", "from": "b"}], JSON_PATCH, 422),
        ("nix", JSON_PATCH, 422),
        ({}, {"content-type": "application/apply-patch+yaml"}, 422),
        ({"kind": "Secret"}, MERGE, 400),
        ({"metadata": None}, MERGE, 400),
    ],
)
def test_patches_that_do_not_fit(http: Http, files: Path, patch: Any, headers: Any, code: int) -> None:
    answer = http.request("PATCH", f"{MAPS}/shop", json=patch, headers=headers)
    assert answer.status_code == code, answer.text
    assert (files / "shop.yaml").read_text() == BY_HAND


def test_a_dry_run_changes_nothing(http: Http, files: Path) -> None:
    query = "?dryRun=All"
    made = http.post(f"{PODS}{query}", json=pod("dry"))
    assert (made.status_code, made.json()["spec"]["restartPolicy"]) == (201, "Always")
    patched = http.request("PATCH", f"{MAPS}/shop{query}", json={"data": {"a": "b"}}, headers=MERGE)
    assert patched.json()["data"] == {"colour": "red", "size": "3", "a": "b"}
    assert http.request("DELETE", f"{MAPS}/shop{query}").json()["metadata"]["name"] == "shop"
    assert words(http.post(f"{PODS}?dryRun=x", json=pod("dry")))[0] == 400
    assert (files / "shop.yaml").read_text() == BY_HAND and not (files / "kubectl").exists()


def test_an_object_that_is_replaced_need_not_name_its_namespace(http: Http, files: Path) -> None:
    """Helm updates the Secrets of its releases so."""
    found = http.get(f"{MAPS}/shop").json()
    del found["metadata"]["namespace"]
    found["data"] = {"colour": "green"}
    answer = http.request("PUT", f"{MAPS}/shop", json=found)
    assert (answer.status_code, answer.json()["data"]) == (200, {"colour": "green"})
    assert "colour: green" in (files / "shop.yaml").read_text()


def test_a_deletion_removes_the_document(http: Http, files: Path) -> None:
    orphan = {"propagationPolicy": "Orphan"}
    assert http.request("DELETE", f"{MAPS}/shop", json=orphan).status_code == 400
    wrong = {"preconditions": {"uid": "other"}}
    assert http.request("DELETE", f"{MAPS}/shop", json=wrong).status_code == 409
    done = http.request("DELETE", f"{MAPS}/shop").json()
    assert (done["status"], done["details"]["name"]) == ("Success", "shop")
    assert (files / "shop.yaml").read_text().startswith("---\napiVersion: v1\nkind: Pod")
    http.request("DELETE", f"{PODS}/till")
    assert not (files / "shop.yaml").exists(), "it was the last document"


def test_preconditions_of_a_deletion_hold_when_its_turn_comes(http: Http, files: Path) -> None:
    version = http.get(f"{MAPS}/shop").json()["metadata"]["resourceVersion"]
    options = {"preconditions": {"resourceVersion": version}}

    async def both() -> list[int]:
        patch = http.client.request("PATCH", f"{MAPS}/shop", json={"data": {"colour": "blue"}}, headers=MERGE)
        delete = http.client.request("DELETE", f"{MAPS}/shop", json=options)
        return [answer.status_code for answer in await asyncio.gather(patch, delete)]

    assert http.runner.run(both()) == [200, 409]
    assert "colour: blue" in (files / "shop.yaml").read_text()


def test_a_file_that_cannot_be_written_is_named(http: Http, files: Path) -> None:
    (files / "kubectl").write_text("in the way of the folder")
    code, said = words(http.post(PODS, json=pod("new")))
    assert (code, str(files / "kubectl") in said) == (409, True), said


def test_what_no_manifest_defines_is_not_changed(http: Http) -> None:
    code, said = words(
        http.request("PATCH", f"{PODS}/web", json={"metadata": {"labels": {"a": "b"}}}, headers=MERGE)
    )
    assert (code, said) == (409, "Pod default/web is in no manifest: there is nothing to change")
    owned = pod_doc("owned")
    owned["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "rs", "controller": True}]
    http.runner.run(http.node.store.create("Pod", owned))
    patch = {"metadata": {"labels": {"a": "b"}}}
    code, said = words(http.request("PATCH", f"{PODS}/owned", json=patch, headers=MERGE))
    assert (code, said) == (409, "Pod default/owned is made by ReplicaSet rs: change that, and it follows")
    events = "/api/v1/namespaces/default/events"
    assert words(http.post(events, json={}))[0] == 405


def test_scale(http: Http) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    sent = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "front"}, "spec": spec}
    made = http.post(path, json=sent)
    assert made.status_code == 201, made.text
    scale = f"{path}/front/scale"
    done = http.request("PATCH", scale, json={"spec": {"replicas": 3}}, headers=MERGE)
    assert (done.json()["kind"], done.json()["spec"]) == ("Scale", {"replicas": 3})
    assert http.request("PUT", scale, json={"spec": {"replicas": 0}}).json()["spec"] == {"replicas": 0}
    wrong: Any
    for wrong in ({"spec": {"replicas": -1}}, {"spec": {"replicas": "1"}}, {"spec": 1}, []):
        assert http.request("PUT", scale, json=wrong).status_code == 422
    old = {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 2}}
    assert http.request("PUT", scale, json=old).status_code == 409
    file = Path(http.node.manifests_dir) / "kubectl/default/deployment-front.yaml"
    assert "replicas: 0" in file.read_text()


def test_an_undo_leaves_what_somebody_else_has_written_since(
    http: Http, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, rescan, theirs = files / "shop.yaml", http.node.rescan, "apiVersion: v1\nkind: ConfigMap\ndata: 5\n"

    async def meanwhile(owners: Owners = NONE_GIVEN) -> None:
        if "green" in file.read_text():
            file.write_text(theirs)
        await rescan(owners)

    monkeypatch.setattr(http.node, "rescan", meanwhile)
    answer = http.request("PATCH", f"{MAPS}/shop", json={"data": {"colour": "green"}}, headers=MERGE)
    assert answer.status_code == 422
    assert file.read_text() == theirs


def test_a_large_object_is_written_as_a_small_one(http: Http) -> None:
    """It is written and changed in another thread, so that the node goes on meanwhile."""
    data = {f"key-{number}": "on" if number % 2 else "x" * 50 for number in range(2000)}
    sent = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": data}
    assert http.post(MAPS, json=sent).json()["data"] == data
    patch = {"data": {"key-0": "y", "key-1": None}}
    answer = http.request("PATCH", f"{MAPS}/large", json=patch, headers=MERGE)
    wanted = {**data, "key-0": "y"}
    del wanted["key-1"]
    assert answer.json()["data"] == wanted
    wrong = {"data": {"key-0": "x" * (1 << 20)}}
    code, said = words(http.request("PATCH", f"{MAPS}/large", json=wrong, headers=MERGE))
    assert code == 422 and "Too long: may not be more than 1048576 bytes" in said
    assert http.get(f"{MAPS}/large").json()["data"] == wanted


REQUIRED = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]},
}


def test_a_service_that_cannot_have_what_it_asks_for_leaves_nothing(http: Http) -> None:
    said = (
        'Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not '
        "configured for dual-stack services"
    )
    services = "/api/v1/namespaces/default/services"
    for query in ("", "?dryRun=All"):
        answer = http.post(services + query, json=REQUIRED)
        assert words(answer) == (422, said)
        details = answer.json()["details"]  # kubectl names the object by it
        assert (details["kind"], details["name"]) == ("Service", "web")
    applied = http.post("/kubelite/v1/apply", params={"file": "web.yaml"}, content=json.dumps(REQUIRED))
    assert words(applied) == (422, said)
    assert not list(Path(http.node.manifests_dir).iterdir())
