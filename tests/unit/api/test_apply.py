"""`apply`, `create`, `diff` and `delete` of manifests by the API: what is written, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api.fake_node import FakeNode
from tests.unit.api.test_api import Http


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Http]:
    client = Http(FakeNode(tmp_path))
    yield client
    client.runner.close()


@pytest.fixture
def node(http: Http) -> FakeNode:
    return http.node


def test_apply_diff_and_remove(http: Http, node: FakeNode) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: x}\n"
    made = http.post("/kubelite/v1/apply", params={"file": "c.yaml", "dryRun": "true"}, content=text).json()
    assert made["objects"][0]["result"] == "created" and not list(Path(node.manifests_dir).iterdir())
    http.post("/kubelite/v1/apply", params={"file": "c.yaml"}, content=text)
    assert Path(node.manifests_dir, "c.yaml").read_text() == text
    assert node.store.get("ConfigMap", "default", "c") is not None
    again = http.post("/kubelite/v1/apply", params={"file": "elsewhere/c.yaml"}, content=text).json()
    assert again["objects"][0] == {
        "kind": "ConfigMap", "namespace": "default", "name": "c", "result": "unchanged",
        "file": f"{node.manifests_dir}/c.yaml",
    }  # fmt: skip
    bad = http.post(
        "/kubelite/v1/apply", params={"file": "p.yaml"}, content="kind: Pod\napiVersion: v1\nspec: {x: 1}\n"
    )
    assert bad.status_code == 422 and "p.yaml:3" in bad.json()["message"]
    assert [e["change"] for e in http.post("/kubelite/v1/diff", content=text).json()["objects"]] == [
        "unchanged"
    ]
    gone = http.post("/kubelite/v1/remove", content=text).json()
    assert gone["objects"][0]["result"] == "deleted"
    assert (
        not list(Path(node.manifests_dir).iterdir()) and node.store.get("ConfigMap", "default", "c") is None
    )


def test_create_gives_a_random_name_each_time_and_apply_refuses(http: Http, node: FakeNode) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  generateName: c-\ndata: {a: x}\n"
    query = {"file": "c.yaml", "create": "true", "namespace": "prod"}
    made = [
        http.post("/kubelite/v1/apply", params=query, content=text).json()["objects"][0] for _ in range(2)
    ]
    assert [one["result"] for one in made] == ["created", "created"] and made[0]["name"] != made[1]["name"]
    for one in made:
        assert one["name"].startswith("c-") and one["namespace"] == "prod"
        assert f"\n  name: {one['name']}\n" in Path(node.manifests_dir, "c.yaml").read_text()
    refused = http.post("/kubelite/v1/apply", params={"file": "c.yaml"}, content=text)
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("from c-: cannot use generate name with apply")
    gone = http.post("/kubelite/v1/remove", content=text)
    assert (gone.status_code, gone.json()["message"]) == (400, "resource name may not be empty")


def test_a_kind_that_is_not_supported_is_left_out_and_named(http: Http, node: FakeNode) -> None:
    """As kubectl does with a kind that the server lacks: the other documents are applied."""
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: x}\n"
    other = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: w}\nspec: {}\n"
    made = http.post("/kubelite/v1/apply", params={"file": "c.yaml"}, content=f"{text}---\n{other}").json()
    assert [(o["name"], o["result"]) for o in made["objects"]] == [("c", "created")]
    assert made["unsupported"] == [
        "c.yaml:7: kind: kubelite does not run Gateway objects yet: this document is ignored"
    ]
    assert Path(node.manifests_dir, "c.yaml").read_text() == text
    told = http.post("/kubelite/v1/diff", content=f"{text}---\n{other}")
    assert told.json()["objects"][0]["change"] == "unchanged"
    alone = http.post("/kubelite/v1/apply", params={"file": "i.yaml"}, content=other)
    assert alone.status_code == 422 and "Gateway" in alone.json()["message"]


def test_what_helm_does_not_install_is_not_written_and_said(http: Http, node: FakeNode) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: x}\n"
    hook = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, annotations: {helm.sh/hook: test}}\n"
    whole = f"{text}---\n{hook % 'c'}---\n{hook % 't'}"
    made = http.post("/kubelite/v1/apply", params={"file": "c.yaml"}, content=whole).json()
    assert [(o["name"], o["result"]) for o in made["objects"]] == [("c", "created")] and not made[
        "unsupported"
    ]
    assert made["ignored"][1] == (
        "c.yaml:12: metadata.annotations[helm.sh/hook]: Helm creates this object only for `helm test`: "
        "this document is ignored"
    )
    assert Path(node.manifests_dir, "c.yaml").read_text() == text
    alone = http.post("/kubelite/v1/apply", params={"file": "c.yaml"}, content=hook % "t")
    assert alone.status_code == 400 and "`helm test`" in alone.json()["message"]
    gone = http.post("/kubelite/v1/remove", content=whole).json()
    assert [(o["name"], o["result"]) for o in gone["objects"]] == [("c", "deleted")]
