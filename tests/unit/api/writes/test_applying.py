"""Server-side apply: PATCH with application/apply-patch+yaml."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubelite.api.secure.users import User
from kubelite.managed_fields.last_applied import ANNOTATION
from tests.unit.api.test_api import Http, http, node
from tests.unit.api.writes.test_ownership import DEPLOYMENT, DEPLOYMENTS, MAPS, MERGE, managers, settings

__all__ = ["http", "node"]

APPLY = {"content-type": "application/apply-patch+yaml"}
BY_HAND = """\
# the settings of the shop
apiVersion: v1
kind: ConfigMap
metadata: {name: shop}   # as the pods name it
data:
  colour: red   # not blue
  size: "3"
"""


def apply(http: Http, doc: Any, manager: str = "me", url: str = f"{MAPS}/shop", **options: str) -> Any:
    query = "&".join(f"{key}={value}" for key, value in {"fieldManager": manager, **options}.items())
    body = doc if isinstance(doc, str) else json.dumps(doc)
    return http.request("PATCH", f"{url}?{query}", content=body.encode(), headers=APPLY)


def by_hand(http: Http, text: str = BY_HAND) -> Path:
    file = Path(http.node.manifests_dir) / "shop.yaml"
    file.write_text(text)
    http.runner.run(http.node.rescan())
    return file


def test_an_object_that_does_not_exist_is_created(http: Http) -> None:
    made = apply(http, settings(a="1"))
    assert made.status_code == 201, made.text
    assert managers(made.json()) == {"me Apply": {"f:a": {}}}
    assert (Path(http.node.manifests_dir) / "kubectl/default/configmap-shop.yaml").exists()
    assert http.get(f"{MAPS}/shop").json()["data"] == {"a": "1"}


def test_yaml_is_read_and_so_is_json_with_escapes(http: Http) -> None:
    made = apply(http, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: shop\ndata: {a: '1'}\n")
    assert made.status_code == 201 and made.json()["data"] == {"a": "1"}
    again = apply(http, settings(a="\N{SLIGHTLY SMILING FACE}\t/"))  # a pair of surrogates in JSON
    assert again.json()["data"] == {"a": "\N{SLIGHTLY SMILING FACE}\t/"}
    flow = apply(http, "{apiVersion: v1, kind: ConfigMap, metadata: {name: shop}, data: {a: '2'}}")
    assert flow.json()["data"] == {"a": "2"}


def test_what_is_no_longer_applied_is_removed(http: Http) -> None:
    apply(http, settings(a="1", b="1"))
    done = apply(http, settings(b="2"))
    assert (done.status_code, done.json()["data"]) == (200, {"b": "2"})
    assert managers(done.json()) == {"me Apply": {"f:b": {}}}


def test_an_equal_apply_writes_nothing(http: Http) -> None:
    first = apply(http, settings(a="1")).json()
    again = apply(http, settings(a="1")).json()
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_an_apply_of_the_same_values_shares_them(http: Http) -> None:
    apply(http, settings(a="1"))
    done = apply(http, settings(a="1"), manager="other").json()
    assert managers(done) == {"me Apply": {"f:a": {}}, "other Apply": {"f:a": {}}}
    assert managers(http.get(f"{MAPS}/shop").json()) == managers(done)


def test_a_conflict_names_manager_and_field(http: Http) -> None:
    apply(http, settings(a="1", b="1"))
    http.request("PATCH", f"{MAPS}/shop?fieldManager=editor", json={"data": {"b": "2"}}, headers=MERGE)
    answer = apply(http, settings(a="2"), manager="other")
    assert answer.status_code == 409
    assert (answer.json()["reason"], answer.json()["message"]) == (
        "Conflict",
        'Apply failed with 1 conflict: conflict with "me": .data.a',
    )
    both = apply(http, settings(a="2", b="3"), manager="other").json()
    assert both["message"].startswith("Apply failed with 2 conflicts: ")
    assert both["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "me"', "field": ".data.a"},
        {"reason": "FieldManagerConflict", "message": 'conflict with "editor" using v1', "field": ".data.b"},
    ]
    assert http.get(f"{MAPS}/shop").json()["data"] == {"a": "1", "b": "2"}
    done = apply(http, settings(a="2", b="3"), manager="other", force="true").json()
    assert done["data"] == {"a": "2", "b": "3"}
    assert managers(done) == {"other Apply": {"f:a": {}, "f:b": {}}}


def test_a_file_keeps_its_comments_and_belongs_to_the_directory(http: Http) -> None:
    file = by_hand(http)
    refused = apply(http, settings(colour="green"))
    assert refused.json()["message"] == (
        'Apply failed with 1 conflict: conflict with "kubelite-directory" using v1: .data.colour'
    )
    done = apply(http, settings(colour="green"), force="true")
    assert done.status_code == 200
    assert file.read_text() == BY_HAND.replace("colour: red ", "colour: green ")
    assert managers(done.json()) == {
        "me Apply": {"f:colour": {}},
        "kubelite-directory Update": {"f:size": {}},
    }


def test_defaults_of_a_file_belong_to_nobody(http: Http) -> None:
    by_hand(http, json.dumps(DEPLOYMENT))
    patch = {**DEPLOYMENT, "spec": {"replicas": 2, "strategy": {"type": "Recreate"}}}
    done = apply(http, patch, url=f"{DEPLOYMENTS}/store")
    assert done.status_code == 200, done.text
    assert done.json()["spec"]["strategy"] == {"type": "Recreate"}


def test_items_are_merged_by_their_keys(http: Http) -> None:
    apply(http, DEPLOYMENT, url=f"{DEPLOYMENTS}/store")
    side = {"name": "side", "image": "x"}
    more = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "store"},
        "spec": {
            "template": {"spec": {"containers": [side, {"name": "c", "env": [{"name": "A", "value": "1"}]}]}}
        },
    }
    done = apply(http, more, manager="other", url=f"{DEPLOYMENTS}/store").json()
    containers = {one["name"]: one for one in done["spec"]["template"]["spec"]["containers"]}
    assert containers["c"]["image"] == "busybox" and containers["c"]["env"] == [{"name": "A", "value": "1"}]
    assert containers["side"]["image"] == "x"
    fewer = {**more, "spec": {}}
    done = apply(http, fewer, manager="other", url=f"{DEPLOYMENTS}/store").json()
    (left,) = done["spec"]["template"]["spec"]["containers"]
    assert (left["name"], left.get("env", [])) == ("c", [])


def test_a_secret_of_a_file_belongs_to_the_directory_in_both_forms(http: Http) -> None:
    by_hand(http, "apiVersion: v1\nkind: Secret\nmetadata: {name: login}\nstringData: {a: '1'}\n")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "data": {"a": "Mg=="}}
    answer = apply(http, secret, url="/api/v1/namespaces/default/secrets/login")
    assert answer.status_code == 409 and answer.json()["message"].endswith(": .data.a")


def test_a_dry_run_changes_nothing(http: Http) -> None:
    asked = apply(http, settings(a="1"), dryRun="All")
    assert asked.status_code == 201 and managers(asked.json()) == {"me Apply": {"f:a": {}}}
    assert http.get(f"{MAPS}/shop").status_code == 404
    file = by_hand(http)
    before = http.get(f"{MAPS}/shop").json()
    asked = apply(http, settings(size="4"), dryRun="All", force="true")
    assert asked.json()["data"] == {"colour": "red", "size": "4"}
    assert asked.json()["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert file.read_text() == BY_HAND and http.get(f"{MAPS}/shop").json() == before


@pytest.mark.parametrize(
    ("doc", "options", "code", "words"),
    [
        (settings(), {"fieldManager": ""}, 422, "fieldManager: Required value: is required for apply patch"),
        (settings(), {"force": "maybe"}, 400, "neither true nor false"),
        ("[]", {}, 400, "the body is not an object"),
        ("{", {}, 400, "the body cannot be read"),
        ({**settings(), "apiVersion": "v2"}, {}, 400, "Incorrect version specified in apply patch"),
        (
            settings(),
            {"fieldManager": "é" * 65},
            422,
            "fieldManager: Too long: may not be more than 128 bytes",
        ),
        ({**settings(), "metadata": []}, {}, 400, "the body is not an object with metadata"),
        ({"apiVersion": "v1", "metadata": {}}, {}, 400, "Incorrect kind specified in apply patch"),
        (settings("other"), {}, 400, "does not match the name on the URL"),
        ({**settings(), "metadata": {"managedFields": []}}, {}, 400, "metadata.managedFields must be nil"),
        ({**settings(), "metadata": {"namespace": "x"}}, {}, 400, "does not match the namespace sent"),
        ({**settings(), "metadata": {"uid": "x"}}, {}, 409, "no existing object was found"),
        ({**settings(), "extra": 1}, {}, 400, ".extra: field not declared in schema"),
        ({**settings(), "extra": 1}, {"fieldValidation": "Ignore"}, 400, ".extra: field not declared"),
        ({**settings(), "extra": 1}, {"fieldValidation": "Strict"}, 400, 'unknown field "extra"'),
        (
            {**settings(), "data": []},
            {},
            400,
            "failed to create typed patch object (default/shop; v1, Kind=Conf",
        ),
        ({**settings(), "data": {"a": 1}}, {}, 422, "must be a string"),
    ],
)
def test_what_is_no_apply_is_refused(
    http: Http, doc: Any, options: dict[str, str], code: int, words: str
) -> None:
    answer = apply(http, doc, **options)
    assert answer.status_code == code and words in answer.json()["message"], answer.text
    assert http.get(f"{MAPS}/shop").status_code == 404


def test_a_version_is_a_precondition(http: Http) -> None:
    first = apply(http, settings(a="1")).json()
    version = {"resourceVersion": first["metadata"]["resourceVersion"]}
    second = apply(http, {**settings(a="2"), "metadata": version})
    assert second.status_code == 200
    old = apply(http, {**settings(a="3"), "metadata": version})
    assert old.status_code == 409 and "has been modified" in old.json()["message"]


def test_items_twice_are_refused(http: Http) -> None:
    item = {"name": "c", "image": "x"}
    doc = {**DEPLOYMENT, "spec": {"template": {"spec": {"containers": [item, item]}}}}
    answer = apply(http, doc, url=f"{DEPLOYMENTS}/store")
    assert answer.status_code == 400
    assert 'duplicate entries for key [name="c"]' in answer.json()["message"]


def test_force_is_for_an_apply(http: Http) -> None:
    http.post(MAPS, json=settings(a="1"))
    answer = http.request("PATCH", f"{MAPS}/shop?force=true", json={"data": {}}, headers=MERGE)
    assert answer.status_code == 422
    assert "force: Forbidden: may not be specified for non-apply patch" in answer.json()["message"]


def test_kubectl_goes_on_with_what_it_applied_from_the_client(http: Http) -> None:
    said = {**settings(a="1", b="1"), "metadata": {"name": "shop", "namespace": "default"}}
    metadata = {**said["metadata"], "annotations": {ANNOTATION: json.dumps(said)}}
    http.post(f"{MAPS}?fieldManager=kubectl-client-side-apply", json={**said, "metadata": metadata})
    changed = {**said, "data": {"a": "2", "b": "1"}}
    assert apply(http, changed, manager="other").status_code == 409
    done = apply(http, changed, manager="kubectl")
    assert done.status_code == 200, done.text
    assert done.json()["data"] == {"a": "2", "b": "1"}
    renewed = json.loads(done.json()["metadata"]["annotations"][ANNOTATION])
    assert renewed["data"] == {"a": "2", "b": "1"}
    http.request("PATCH", f"{MAPS}/shop?fieldManager=editor", json={"data": {"b": "5"}}, headers=MERGE)
    refused = apply(http, {**said, "data": {"a": "3", "b": "3"}}, manager="kubectl")
    assert refused.json()["message"] == (
        'Apply failed with 1 conflict: conflict with "editor" using v1: .data.b'
    )


def scale(replicas: Any = None, **metadata: str) -> dict[str, Any]:
    spec = {} if replicas is None else {"replicas": replicas}
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec}


def test_a_scale_is_applied_by_a_manager_of_its_own(http: Http) -> None:
    url = f"{DEPLOYMENTS}/store/scale"
    assert apply(http, scale(2), url=url).status_code == 404
    apply(http, DEPLOYMENT, url=f"{DEPLOYMENTS}/store")
    done = apply(http, scale(2), manager="scaler", url=url)
    assert (done.status_code, done.json()["kind"], done.json()["spec"]) == (200, "Scale", {"replicas": 2})
    doc = http.get(f"{DEPLOYMENTS}/store").json()
    assert managers(doc)["scaler/scale Apply"] == {"f:spec": {"f:replicas": {}}}
    refused = apply(http, {**DEPLOYMENT, "spec": {"replicas": 3}}, url=f"{DEPLOYMENTS}/store")
    assert refused.json()["message"] == (
        'Apply failed with 1 conflict: conflict with "scaler" with subresource "scale": .spec.replicas'
    )
    assert apply(http, scale(3), manager="other", url=url).status_code == 409
    assert apply(http, scale(3), manager="other", url=url, force="true").json()["spec"] == {"replicas": 3}
    assert apply(http, scale(), manager="other", url=url).status_code == 200  # gives it up
    doc = http.get(f"{DEPLOYMENTS}/store").json()
    assert list(managers(doc)) == ["me Apply"] and doc["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    ("doc", "code", "words"),
    [
        (scale(-1), 422, "must be a whole number"),
        (scale("2"), 422, "must be a whole number"),
        ({**scale(2), "spec": [1]}, 422, "must be a whole number"),
        ({**scale(2), "kind": "Deployment"}, 400, "Incorrect kind specified"),
        (scale(2, resourceVersion="1"), 409, "has been modified"),
        (scale(2, name="other"), 400, "does not match the name on the URL"),
    ],
)
def test_what_is_no_scale_is_refused(http: Http, doc: Any, code: int, words: str) -> None:
    apply(http, DEPLOYMENT, url=f"{DEPLOYMENTS}/store")
    answer = apply(http, doc, url=f"{DEPLOYMENTS}/store/scale")
    assert (answer.status_code, words in answer.json()["message"]) == (code, True), answer.text


def test_a_status_and_the_node_cannot_be_applied(http: Http) -> None:
    apply(http, DEPLOYMENT, url=f"{DEPLOYMENTS}/store")
    assert apply(http, DEPLOYMENT, url=f"{DEPLOYMENTS}/store/status").status_code == 405
    answer = apply(http, {"apiVersion": "v1", "kind": "Node"}, url="/api/v1/nodes/here")
    assert answer.status_code == 415 and "only be changed by a merge patch" in answer.json()["message"]


def test_creation_needs_the_verb_create(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    patcher = User("patcher")
    monkeypatch.setattr("kubelite.api.kube.writes.applying.user_of", lambda scope: patcher)
    answer = apply(http, settings(a="1"))
    assert answer.status_code == 403
    assert 'User "patcher" cannot create resource "configmaps"' in answer.json()["message"]


ODD: tuple[Any, ...] = (
    None, 0, 1.5, -1, True, "", "x", [], {}, [None], [{}], [[]], [1], ["a", "a"], {"": 1}, {"a": None}, {"name": {}},
    [{"name": "c"}, {"name": "c"}], [{"name": None}], [{"name": 1}], {"x": [{"y": {}}]}, "\N{SNOWMAN}",
)  # fmt: skip
SPEC: dict[str, Any] = DEPLOYMENT["spec"]  # type: ignore[assignment]
FULL: dict[str, Any] = {
    **DEPLOYMENT,
    "metadata": {"name": "store", "labels": {"a": "b"}, "annotations": {"n": "v"}, "finalizers": ["a/b"]},
    "spec": {
        **SPEC,
        "strategy": {"rollingUpdate": {"maxSurge": 1}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "nodeSelector": {"a": "b"},
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [
                    {
                        "name": "c",
                        "image": "busybox",
                        "env": [{"name": "A", "value": "1"}],
                        "ports": [{"containerPort": 80}],
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                        "resources": {"limits": {"cpu": "1"}},
                    }
                ],
            },
        },
    },
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a value."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, one in entries:
        yield (*path, key)
        yield from places(one, (*path, key))


def spoiled(rng: random.Random) -> Any:
    """A Deployment with odd values in some places."""
    found = copy.deepcopy(FULL)
    for _ in range(rng.randint(1, 3)):
        *parents, last = rng.choice([*places(found)])
        place = found
        for key in parents:
            place = place[key]
        place[last] = copy.deepcopy(rng.choice(ODD))
    return found


@pytest.mark.parametrize("seed", range(int(os.environ.get("APPLY_SEEDS", "4"))))
def test_odd_values_are_accepted_or_refused(http: Http, seed: int) -> None:
    rng = random.Random(seed)
    assert apply(http, FULL, url=f"{DEPLOYMENTS}/store").status_code == 201
    for _ in range(25):
        doc, force = spoiled(rng), rng.choice(["true", "false"])
        answer = apply(http, doc, rng.choice("ab"), url=f"{DEPLOYMENTS}/store", force=force)
        assert answer.status_code in (200, 400, 409, 422), (doc, answer.text)
        managers(http.get(f"{DEPLOYMENTS}/store").json())
