"""Secrets in history: versions of manifests do not contain their values, and an undo takes the values from the present
Secrets."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubelite.history.redaction import REDACTED, Lost, redact, restore
from kubelite.history.service import NodeHistory, record_version
from kubelite.kube.errors import ApiError
from state.history import Version
from state.store import Store

SECRET = """\
# a comment
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData:
  password: hunter2  # a note
  key: |
    -----BEGIN hunter2
    more
  "quoted": 'hunter2 ''x'''
data: {token: aHVudGVyMg==, empty: }
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {open: "yes"}
"""


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_values_are_removed_and_the_rest_is_retained() -> None:
    found = redact(SECRET)
    assert found is not None
    assert "hunter2" not in found and "aHVudGVyMg" not in found and "BEGIN" not in found
    for kept in ("# a comment", "# a note", 'data: {open: "yes"}', "password:", '"quoted":'):
        assert kept in found
    secret, conf = yaml.safe_load_all(found)
    assert secret["stringData"] == {"password": REDACTED, "key": REDACTED, "quoted": REDACTED}
    assert secret["data"] == {"token": REDACTED, "empty": None}
    assert conf["data"] == {"open": "yes"}
    assert redact(found) == found


def test_an_undo_restores_the_values() -> None:
    values = {"password": "hunter3", "key": "a\nb\n", "quoted": 'q"', "token": "t"}
    present = {("default", "login"): {key: b64(value) for key, value in values.items()}}
    secret, _ = yaml.safe_load_all(restore(redact(SECRET) or "", present))
    assert secret["stringData"] == {"password": "hunter3", "key": "a\nb\n", "quoted": 'q"'}
    assert secret["data"] == {"token": b64("t"), "empty": None}


@pytest.mark.parametrize(
    "present", [{}, {("default", "login"): {"password": b64("x")}}, {("other", "login"): {}}]
)
def test_missing_values_are_reported(present: Any) -> None:
    with pytest.raises(
        Lost, match="history does not retain the values of Secrets, and secret default/login has no"
    ):
        restore(redact(SECRET) or "", present)


_ITEM = {"kind": "Secret", "metadata": {"name": "a", "namespace": "n"}, "data": {"k": "aHVudGVyMg=="}}
JSON_LIST = json.dumps({"kind": "List", "items": [_ITEM]})
ANCHORED = "kind: Secret\nmetadata: {name: a}\nstringData: {a: &x hunter2, b: *x}\n"
ELSEWHERE = "kind: Secret\nmetadata: {name: a}\nstringData: {a: &x hunter2}\n---\nkind: Pod\n"
MERGED = "base: &b {k: hunter2}\nkind: Secret\nmetadata: {name: a}\nstringData: {<<: *b}\n"
FOLDED = "kind: Secret\nmetadata: {name: a}\nstringData:\n  a: >-\n    hunter2\n\n    more\n  b: x\n"
BINARY = "kind: Secret\nmetadata: {name: a}\ndata:\n  a: !!binary aHVudGVyMg==\n  b: ? \n"
UNICODE = "kind: Secret\nmetadata: {name: ä€😀}\nstringData: {ü: hunter2😀, z: hunter2}\n"


@pytest.mark.parametrize("text", [JSON_LIST, ANCHORED, ELSEWHERE, MERGED, FOLDED, BINARY, UNICODE, SECRET])
def test_every_spelling_of_a_secret_is_redacted(text: str) -> None:
    found = redact(text)
    assert found is None or ("hunter2" not in found and "aHVudGVyMg" not in found)
    if text in (JSON_LIST, ELSEWHERE, FOLDED, UNICODE):
        assert found is not None
        list(yaml.safe_load_all(found))


def test_a_text_without_secrets_is_unchanged() -> None:
    assert redact("kind: Pod\n") == "kind: Pod\n"
    assert redact("{: not yaml") == "{: not yaml"
    assert redact("kind: Secret\n{: not yaml") is None


def _bomb(levels: int) -> str:
    """A text of a few lines whose aliases name the first node 10 ** levels times."""
    lines = [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(levels)]
    return "a0: &a0 []\n" + "".join(lines)


CIRCLE = "kind: Pod\nx: &x [*x]\n"


@pytest.mark.parametrize("other", [CIRCLE, _bomb(20), "kind: Pod\n"], ids=["circle", "bomb", "plain"])
def test_other_documents_of_any_form_are_passed_over(other: str) -> None:
    """A rollback also reads the current text of the file, which may be an invalid edit."""
    found = redact(f"{other}---\n{ELSEWHERE}")
    assert found is not None and "hunter2" not in found and found.startswith(other)


def test_a_key_that_is_not_text_is_passed_over() -> None:
    text = "kind: Secret\nmetadata: {? [a]: b, name: a}\nstringData: {k: hunter2}\n"
    found = redact(text)
    assert found is not None and "hunter2" not in found


async def test_a_recorded_text_that_cannot_be_redacted_is_deleted(tmp_path: Path) -> None:
    """An empty text instead would be valid, and a rollback would write it."""
    store, file = Store.open(str(tmp_path / "state.db")), tmp_path / "m/s.yaml"
    store.note(Version(str(file), 1.0, "kind: Secret\nstringData: {a: &x hunter2}\nmetadata: {name: *x}\n"))
    await store.revisions()
    store.note(Version(str(file), 2.0, "kind: Pod\n"))
    await store.revisions()

    async def nothing() -> None: ...

    await NodeHistory(store, str(file.parent), nothing).prune(seconds=10**10, size=10**9)
    assert [(r.number, r.text) for r in await store.revisions()] == [(2, "kind: Pod\n")]
    await store.close()


async def test_the_store_has_no_values(tmp_path: Path) -> None:
    """No file of the store contains the values, neither new ones nor those that an older version recorded."""
    path, file = str(tmp_path / "state.db"), tmp_path / "m/s.yaml"
    file.parent.mkdir()
    store = Store.open(path)
    store.note(Version(str(file), 1.0, SECRET))  # as before
    await store.revisions(str(file))

    async def nothing() -> None: ...

    history = NodeHistory(store, str(file.parent), nothing)
    await history.prune(seconds=10**10, size=10**9)
    record_version(store, str(file), SECRET.replace("hunter2", "hunter3"))
    record_version(store, str(file), SECRET.replace('"yes"', '"no"'))
    found = await store.revisions(str(file))
    assert [r.number for r in found] == [1, 2] and not any("hunter" in r.text for r in found)

    file.write_text(SECRET.replace('"yes"', '"no"'))
    with pytest.raises(ApiError, match="cannot go back to revision 1: history does not retain"):
        await history.roll_back({"file": str(file)}, number=None, dry_run=False)
    data = {key: b64("now") for key in ("password", "key", "quoted", "token")}
    about = {"name": "login", "namespace": "default", "uid": "u"}
    await store.create("Secret", {"kind": "Secret", "metadata": about, "data": data})
    answer = await history.roll_back({"file": str(file)}, number=None, dry_run=False)
    assert "hunter" not in answer["diff"] and '+data: {open: "yes"}' in answer["diff"]
    secret, conf = yaml.safe_load_all(file.read_text())
    assert secret["stringData"]["password"] == "now" and conf["data"] == {"open": "yes"}
    await store.close()
