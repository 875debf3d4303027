"""Unknown and repeated fields, as the parameter fieldValidation asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.test_api import Http, http, node

__all__ = ["http", "node"]

PODS = "/api/v1/namespaces/default/pods"
MERGE = {"content-type": "application/merge-patch+json"}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a"},
    "spec": {"containers": [{"name": "c", "image": "busybox", "imagee": "x"}], "日本": 1},
}
NAMES = ("spec.containers[0].imagee", "spec.日本")
STRICT, WARN, IGNORE = ({"fieldValidation": mode} for mode in ("Strict", "Warn", "Ignore"))


def warning(answer: Any) -> str:
    return str(answer.headers.get("warning", ""))


def test_strict_refuses_and_names_every_field(http: Http) -> None:
    answer = http.post(PODS, json=POD, params=STRICT)
    head = 'Pod in version "v1" cannot be handled as a Pod: strict decoding error: '
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    message = answer.json()["message"]
    assert message.startswith(head) and all(f'unknown field "{name}"' in message for name in NAMES)
    assert 'did you mean "image"?' in message
    assert not list(Path(http.node.manifests_dir).rglob("*.yaml"))


@pytest.mark.parametrize("params", [WARN, {}, IGNORE])
def test_warn_and_ignore_leave_the_fields_out(http: Http, params: dict[str, str]) -> None:
    answer = http.post(PODS, json=POD, params=params)
    assert answer.status_code == 201, answer.json()
    assert all((f'unknown field \\"{name}\\"' in warning(answer)) == (params != IGNORE) for name in NAMES)
    (file,) = Path(http.node.manifests_dir).rglob("*.yaml")
    assert "imagee" not in file.read_text() and "日本" not in file.read_text()


def test_a_field_given_twice(http: Http) -> None:
    body = b'{"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v", "k": "w"}}'
    path, head = "/api/v1/namespaces/default/configmaps", {"content-type": "application/json"}
    answer = http.post(path, content=body, headers=head, params=STRICT)
    assert answer.status_code == 400 and 'duplicate field "k"' in answer.json()["message"]
    yaml = b"kind: ConfigMap\nmetadata: {name: a}\ndata: {k: v, k: w}\n"
    answer = http.post(path, content=yaml, params=STRICT)
    assert answer.status_code == 400 and 'duplicate field "data[k]"' in answer.json()["message"]
    answer = http.post(path, content=body, headers=head)
    assert answer.status_code == 201 and warning(answer) == '299 - "duplicate field \\"k\\""'


def test_patches_and_updates_are_checked(http: Http) -> None:
    good = {**POD, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}
    assert http.post(PODS, json=good, params=STRICT).status_code == 201
    patch = {"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}}
    answer = http.request("PATCH", f"{PODS}/a", json=patch, headers=MERGE, params=STRICT)
    assert answer.status_code == 400 and 'unknown field "spec.x"' in answer.json()["message"]
    answer = http.request("PATCH", f"{PODS}/a", json=patch, headers=MERGE)
    assert (answer.status_code, warning(answer)) == (200, '299 - "unknown field \\"spec.x\\""')
    assert answer.json()["metadata"]["labels"] == {"a": "b"} and "x" not in answer.json()["spec"]
    answer = http.request("PUT", f"{PODS}/a", json={**answer.json(), "x": 1}, params=STRICT)
    assert answer.status_code == 400 and 'unknown field "x"' in answer.json()["message"]


def test_another_mode_is_refused(http: Http) -> None:
    answer = http.post(PODS, json=POD, params={"fieldValidation": "strict"})
    words = 'fieldValidation: Unsupported value: "strict": supported values: "Ignore", "Strict", "Warn"'
    assert answer.status_code == 422 and answer.json()["message"].endswith(words)
