"""Kubelet's pages of the node, through the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.api.rbac.defaults import cluster_role_bindings, cluster_roles
from kubelite.api.rbac.rules import Attributes, Roles
from kubelite.api.secure.users import READERS, User
from tests.unit.api.fake_node import FakeNode, pod_doc
from tests.unit.api.test_api import Http

NODE = "/api/v1/nodes/here"


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Http]:
    client = Http(FakeNode(tmp_path))
    client.runner.run(client.node.store.create("Pod", pod_doc("web")))
    yield client
    client.runner.run(client.node.store.close())
    client.runner.close()


def test_pages_of_kubelet(http: Http) -> None:
    assert http.get(f"{NODE}/proxy/stats/summary").json()["node"] == {"nodeName": "here"}
    assert http.get(f"{NODE}/proxy/metrics").text == "page agent\n"
    assert http.get(f"{NODE}:10250/proxy/metrics/cadvisor").text == "page cadvisor\n"
    assert http.get(f"{NODE}/proxy/metrics/none").status_code == 404
    assert http.get(f"{NODE}/proxy/healthz").text == "ok"
    pods = http.get(f"{NODE}/proxy/pods").json()
    assert (pods["kind"], [one["metadata"]["name"] for one in pods["items"]]) == ("PodList", ["web"])
    assert http.get(f"{NODE}/proxy/containerLogs/default/none/main").status_code == 404


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("/api/v1/nodes/there/proxy/metrics", 404, 'nodes "there" not found'),
        ("/api/v1/nodes/a:b:c:d/proxy/metrics", 400, 'invalid node request "a:b:c:d"'),
        (f"{NODE}/proxy", 404, "it has stats/summary, metrics"),
        (f"{NODE}/proxy/run/default/web/main", 404, 'no page "run/default/web/main" here'),
        (f"{NODE}/proxy/logs/", 404, "journalctl --unit kubelite"),
    ],
)
def test_what_is_not_there_says_what_is(http: Http, path: str, code: int, says: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, says in answer.json()["message"]) == (code, True), answer.text


def test_only_reading(http: Http) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert http.request(method, f"{NODE}/proxy/exec/default/web/main", json={}).status_code in (404, 405)
    verbs = {one["name"]: one["verbs"] for one in http.get("/api/v1").json()["resources"]}
    assert verbs["nodes/proxy"] == ["get"]


def test_readers_may_read_it() -> None:
    roles = Roles(cluster_roles(), cluster_role_bindings().values(), {}, [])
    reader = User("eve", (READERS,))
    assert roles.allow(reader, Attributes("get", "", "nodes", "proxy", "", "here"))
    assert not roles.allow(reader, Attributes("create", "", "nodes", "proxy", "", "here"))
