"""DeleteOptions as kubectl sends them: in JSON, and in Kubernetes' protobuf."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api.fake_node import FakeNode, pod_doc
from tests.unit.api.test_api import Http

HEAD = b"k8s\0\n\x13\n\x02v1\x12\rDeleteOptions\x12"
TAIL = b'\x1a\0"\0'
POD = "/api/v1/namespaces/default/pods/web"
PROTOBUF = {"Content-Type": "application/vnd.kubernetes.protobuf"}


def message(options: bytes) -> bytes:
    return HEAD + bytes([len(options)]) + options + TAIL


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Http]:
    client = Http(FakeNode(tmp_path))
    client.runner.run(client.node.store.create("Pod", pod_doc("web")))
    yield client
    client.runner.run(client.node.store.close())
    client.runner.close()


def test_a_pod_is_deleted_with_options_in_protobuf(http: Http) -> None:
    """And with a dry run it stays, as with one in JSON."""
    for content, headers, params in (
        (message(b"\x08\x05*\x03All"), PROTOBUF, {}),
        (b'{"dryRun": ["All"]}', {"Content-Type": "application/json"}, {}),
        (b"", {}, {"dryRun": "All"}),
    ):
        answer = http.request("DELETE", POD, content=content, headers=headers, params=params)
        assert answer.status_code == 200 and answer.json()["metadata"]["name"] == "web", answer.text
    assert not http.node.deleted
    cut = http.request("DELETE", POD, content=b"k8s\0\n", headers=PROTOBUF)
    assert cut.status_code == 400 and "it ends early" in cut.json()["message"]
    other = http.request("DELETE", POD, json={"preconditions": {"resourceVersion": "0"}})
    assert other.status_code == 409 and "resourceVersion in the precondition" in other.json()["message"]
    assert http.request("DELETE", POD, content=message(b"\x08\x05"), headers=PROTOBUF).status_code == 200
    assert http.node.deleted == [("default", "web", 5)]
    assert http.request("POST", "/kubelite/v1/apply", content=b"k8s\0", headers=PROTOBUF).status_code == 415
