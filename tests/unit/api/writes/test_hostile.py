"""Requests that are made to harm the node: each ends in an error of the client, at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.test_api import Http, http, node

__all__ = ["http", "node"]

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
NODE = "/api/v1/nodes/here"
MERGE = {"content-type": "application/merge-patch+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}}


def words(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


def test_a_json_patch_that_doubles_an_object_sixty_times_is_refused(http: Http) -> None:
    assert http.post(MAPS, json=config_map("a")).status_code == 201
    steps = [{"op": "copy", "from": "/data", "path": f"/data/x{number}"} for number in range(60)]
    began = time.process_time()
    code, said = words(http.request("PATCH", f"{MAPS}/a", json=steps, headers=JSON_PATCH))
    assert (code, said) == (413, "the operations copy of a JSON patch copy more than 3145728 bytes")
    assert time.process_time() - began < 5
    many = [{"op": "test", "path": "/data/k", "value": "v"}] * 10_001
    code, said = words(http.request("PATCH", f"{MAPS}/a", json=many, headers=JSON_PATCH))
    assert code == 413 and "10000, got 10001" in said
    assert http.get(f"{MAPS}/a").json()["data"] == {"k": "v"}


def test_a_name_of_253_characters_has_a_file(http: Http) -> None:
    names = ["x" * 253, "x" * 252 + "y"]
    for name in names:
        assert http.post(MAPS, json=config_map(name)).status_code == 201
        assert (
            http.request("PATCH", f"{MAPS}/{name}", json={"data": {"k": "w"}}, headers=MERGE).status_code
            == 200
        )
    files = list(Path(http.node.manifests_dir).rglob("*.yaml"))
    assert len(files) == 2 and all(len(file.name) < 230 for file in files)
    for name in names:
        assert http.request("DELETE", f"{MAPS}/{name}").status_code == 200
    assert not list(Path(http.node.manifests_dir).rglob("*.yaml"))


@pytest.mark.parametrize("value", ["--5", "²", "9" * 30, "9" * 5000, "-1", "1e3"])
def test_a_grace_period_that_is_no_number_of_seconds(http: Http, value: str) -> None:
    code, said = words(http.request("DELETE", f"{PODS}/web", params={"gracePeriodSeconds": value}))
    assert code == 400 and said.startswith("gracePeriodSeconds must be a whole number of seconds")


@pytest.mark.parametrize("name", ["timeoutSeconds", "resourceVersion"])
def test_a_number_that_no_clock_reaches(http: Http, name: str) -> None:
    code, said = words(http.get(PODS, params={"watch": "1", name: "9" * 400}))
    assert code == 400 and said.startswith(f"query parameter {name} is out of range: 999")


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"metadata": 1}, "metadata: must be an object"),
        ({"metadata": {"labels": [1]}}, "labels: must be an object"),
        ({"metadata": {"labels": {"a": {"b": 1}}}}, "metadata.labels.a: must be a string"),
        ({"metadata": {"labels": {"a b": "c"}}}, "metadata.labels[a b]: Invalid value"),
        ({"metadata": {"annotations": {"a": 5}}}, "metadata.annotations.a: must be a string"),
        ({"spec": [1]}, "spec: must be an object"),
        ({"spec": {"taints": 5}}, "spec.taints: must be a list"),
        ({"spec": {"taints": [{"key": ["a"], "effect": "NoExecute"}]}}, "spec.taints: key, value"),
        ({"spec": {"taints": [{"key": "a b", "effect": "NoExecute"}]}}, "spec.taints: Invalid value"),
        (
            {"spec": {"taints": [{"key": "a", "effect": "NoExecute", "timeAdded": "x"}]}},
            "spec.taints: timeAdded 'x'",
        ),
        ({"spec": {"unschedulable": "no"}}, "spec.unschedulable: must be true or false"),
    ],
)
def test_a_node_keeps_its_shape(http: Http, patch: Any, said: str) -> None:
    before = http.get(NODE).json()
    code, message = words(http.request("PATCH", NODE, json=patch, headers=MERGE))
    assert code == 422 and message.startswith(f'Node "here" is invalid: {said}')
    assert http.get(NODE).json() == before


@pytest.mark.parametrize(
    "condition",
    [b'{"type": "a", "status": NaN}', b'{"type": ["a"]}', b'{"type": "a", "status": {"b": 1}}'],
)
def test_a_condition_that_would_break_every_list_of_pods(http: Http, condition: bytes) -> None:
    body = b'{"status": {"conditions": [%s]}}' % condition
    answer = http.request("PATCH", f"{PODS}/web/status", content=body, headers=MERGE)
    assert answer.status_code == 400
    assert http.get(PODS).status_code == 200


@pytest.mark.parametrize("metadata", [{"name": None}, {"name": "b"}, {"name": ["a"]}])
def test_a_patch_does_not_take_an_objects_name(http: Http, metadata: Any) -> None:
    assert http.post(MAPS, json=config_map("a")).status_code == 201
    code, said = words(http.request("PATCH", f"{MAPS}/a", json={"metadata": metadata}, headers=MERGE))
    assert code == 400 and said.endswith("does not match the name on the URL (a)")
    assert http.get(f"{MAPS}/a").status_code == 200


@pytest.mark.parametrize(
    ("kind", "version", "plural"),
    [("ResourceQuota", "v1", "resourcequotas"), ("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets")],
)
def test_an_object_without_its_optional_spec_stops_no_other(
    http: Http, kind: str, version: str, plural: str
) -> None:
    path = f"/{'apis' if '/' in version else 'api'}/{version}/namespaces/default/{plural}"
    answer = http.post(path, json={"apiVersion": version, "kind": kind, "metadata": {"name": "q"}})
    assert (answer.status_code, answer.json()["spec"]) == (201, {})
    assert http.post(MAPS, json=config_map("a")).status_code == 201
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}
    assert http.post(f"{PODS}/web/eviction", json=eviction).status_code == 201


def test_of_clients_that_change_the_same_version_one_succeeds(http: Http) -> None:
    assert http.post(MAPS, json={**config_map("a"), "data": {"n": "0"}}).status_code == 201

    async def count() -> int:
        """Add one, and say whether that was acknowledged."""
        document = (await http.client.get(f"{MAPS}/a")).json()
        document["data"]["n"] = str(int(document["data"]["n"]) + 1)
        return (await http.client.put(f"{MAPS}/a", json=document)).status_code

    async def together() -> list[int]:
        return list(await asyncio.gather(*(count() for _ in range(8))))

    codes = [code for _ in range(3) for code in http.runner.run(together())]
    assert set(codes) <= {200, 409}
    assert http.get(f"{MAPS}/a").json()["data"]["n"] == str(codes.count(200)) == "3"


def test_a_link_among_the_manifests_is_not_replaced(http: Http, tmp_path: Path) -> None:
    real = tmp_path / "checkout.yaml"
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n"
    real.write_text(text)
    link = Path(http.node.manifests_dir, "a.yaml")
    link.symlink_to(real)
    http.runner.run(http.node.rescan())
    answers = (
        http.request("PATCH", f"{MAPS}/a", json={"data": {"k": "w"}}, headers=MERGE),
        http.request("DELETE", f"{MAPS}/a"),
    )
    for answer in answers:
        code, said = words(answer)
        assert code == 409 and f"{link} is a symbolic link to {real}: change the file" in said
    assert link.is_symlink() and real.read_text() == text


@pytest.mark.parametrize("namespace", [[], {}, "", None, 0])
def test_an_empty_namespace_of_any_form(http: Http, namespace: Any) -> None:
    metadata = {"name": "a", "namespace": namespace}
    document: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    said = "configmaps are created in a namespace: name it in the path"
    assert words(http.post("/api/v1/configmaps", json=document)) == (405, said)
    assert http.post(MAPS, json=document).status_code == 201
    class_path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    document = {"kind": "PriorityClass", "metadata": metadata, "value": 1}
    assert http.post(class_path, json=document).status_code == 201
