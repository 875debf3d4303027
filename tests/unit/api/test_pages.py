"""Lists in pages: limit, continue, remainingItemCount."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelite.api.kube.lists import pages
from kubelite.api.kube.lists.pages import LATEST, MOST, SECONDS, Place, Snapshot, Snapshots, Token
from kubelite.kube.errors import ApiError
from tests.unit.api.fake_node import pod_doc
from tests.unit.api.test_api import TABLE, Http, http, names, node

__all__ = ["http", "node"]

PODS = "/api/v1/namespaces/default/pods"
DOCS = [
    {"metadata": {"namespace": namespace, "name": name}} for namespace in ("a", "a-b", "b") for name in "xyz"
]


def followed(http: Http, path: str, limit: int) -> list[list[str]]:
    """The names of each page."""
    found, token = [], ""
    while True:
        answer = http.get(path, params={"limit": str(limit), "continue": token}).json()
        found.append(names(answer))
        token = answer["metadata"].get("continue", "")
        assert (answer["metadata"].get("remainingItemCount") is not None) == bool(token)
        if not token:
            return found


@given(st.integers(1, 10), st.sets(st.integers(0, 8)))
def test_the_pages_together_are_the_list(limit: int, chosen: set[int]) -> None:
    whole = [doc for number, doc in enumerate(DOCS) if number in chosen]
    found: list[Any] = []
    after = None
    while True:
        page = pages.page(Snapshot(1, DOCS), lambda doc: doc in whole, lambda doc: doc, after, limit)
        assert len(page.items) <= limit
        found += page.items
        if page.after is None:
            break
        assert len(page.items) == limit
        text = pages.encoded(Token(1, page.after), namespaced=True)
        after = pages.decoded(text, namespace="", namespaced=True).after
    assert found == whole


def test_pages_over_the_api(http: Http) -> None:
    for name in ("a", "b", "c"):
        http.runner.run(http.node.store.create("Pod", pod_doc(name)))
    assert followed(http, PODS, 2) == [["a", "b"], ["c", "db"], ["web"]]
    assert followed(http, "/api/v1/pods", 3) == [["a", "b", "c"], ["db", "web", "api"]]
    assert followed(http, "/api/v1/namespaces", 1) == [["default"], ["prod"]]
    roles = [
        name for page in followed(http, "/apis/rbac.authorization.k8s.io/v1/clusterroles", 5) for name in page
    ]
    assert roles == sorted(roles) and "cluster-admin" in roles
    first = http.get(f"{PODS}?limit=2").json()["metadata"]
    assert first["remainingItemCount"] == 3
    assert "remainingItemCount" not in http.get(f"{PODS}?limit=1&labelSelector=app").json()["metadata"]
    assert "continue" not in http.get(f"{PODS}?limit=2&resourceVersion=0").json()["metadata"]
    assert "continue" not in http.get(f"{PODS}?limit=5").json()["metadata"]
    assert http.get(f"{PODS}?limit=-1").status_code == 400


def test_all_pages_show_the_same_version(http: Http) -> None:
    first = http.get("/api/v1/pods?limit=1").json()
    http.runner.run(http.node.store.create("Pod", pod_doc("new")))
    http.runner.run(http.node.store.delete("uid-prod-api"))
    token = first["metadata"]["continue"]
    second = http.get("/api/v1/pods", params={"continue": token}).json()
    assert names(second) == ["web", "api"]
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}


def test_a_table_has_pages_too(http: Http) -> None:
    table = http.get(f"{PODS}?limit=1", headers=TABLE).json()
    assert (table["kind"], len(table["rows"]), table["metadata"]["remainingItemCount"]) == ("Table", 1, 1)
    params = {"limit": "1", "continue": table["metadata"]["continue"]}
    rest = http.get(PODS, params=params, headers=TABLE).json()
    assert rest["rows"][0]["cells"][0] == "web" and "continue" not in rest["metadata"]


def test_an_expired_token_comes_with_one_for_the_rest(http: Http) -> None:
    token = http.get(f"{PODS}?limit=1").json()["metadata"]["continue"]
    http.runner.run(http.node.store.create("Pod", pod_doc("new")))
    http.client._transport.app.state.snapshots = None  # type: ignore[attr-defined]  # as after a restart
    answer = http.get(PODS, params={"limit": "1", "continue": token})
    said = answer.json()
    assert (answer.status_code, said["reason"]) == (410, "Expired")
    rest = http.get(PODS, params={"continue": said["metadata"]["continue"]}).json()
    assert names(rest) == ["new", "web"]
    assert rest["metadata"]["resourceVersion"] == str(http.node.store.resource_version)


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


GOOD = {"v": "meta.k8s.io/v1", "rv": 1, "start": "web\0"}


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "é",
        "%%%",
        encoded([]),
        encoded("[" * 9),
        encoded({**GOOD, "v": "meta.k8s.io/v2"}),
        encoded({**GOOD, "rv": 0}),
        encoded({**GOOD, "rv": "1"}),
        encoded({**GOOD, "rv": 2**70}),
        encoded({**GOOD, "start": "\0"}),
        encoded({**GOOD, "start": 5}),
        encoded({**GOOD, "start": "default/web\0"}),
        encoded({**GOOD, "start": "w" * 9999}),
    ],
)
def test_what_is_no_token_is_a_bad_request(http: Http, token: str) -> None:
    answer = http.get(PODS, params={"continue": token})
    assert answer.status_code == 400 and "invalid continue token: " in answer.json()["message"]


def test_tokens_are_those_of_an_api_server() -> None:
    """apiserver pkg/storage/continue.go: base64 without padding of v, rv and start."""
    for namespaced, key in ((True, "shop/web\0"), (False, "web\0")):
        text = pages.encoded(Token(5, Place("shop", "web")), namespaced=namespaced)
        raw = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        assert raw == {"v": "meta.k8s.io/v1", "rv": 5, "start": key} and "=" not in text
        assert pages.decoded(text, namespace="shop", namespaced=namespaced).after == Place("shop", "web")
    assert pages.decoded(encoded({**GOOD, "rv": -1}), namespace="", namespaced=False).version == LATEST
    with pytest.raises(ApiError):
        pages.decoded(encoded(GOOD), namespace="", namespaced=True)


def test_snapshots_are_few_and_end() -> None:
    kept = Snapshots()
    for version in range(MOST + 1):
        kept.keep(("v1", "Pod", ""), Snapshot(version, []), 0.0)
    assert kept.get(("v1", "Pod", ""), 0, 0.0) is None
    assert kept.get(("v1", "Pod", ""), 1, SECONDS) is not None
    assert kept.get(("v1", "Pod", "shop"), 1, SECONDS) is None
    assert kept.get(("v1", "Pod", ""), 1, SECONDS + 1) is None
