"""FieldsV1: sets of paths and their form on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.managed_fields.fields import InvalidFields, decoded, display, encoded

ITEM = 'k:{"name":"web"}'

SETS: list[tuple[dict[str, Any], set[tuple[str, ...]]]] = [
    ({}, set()),
    ({"f:data": {}}, {("f:data",)}),
    ({"f:data": {"f:a": {}}}, {("f:data", "f:a")}),
    ({"f:data": {".": {}, "f:a": {}}}, {("f:data",), ("f:data", "f:a")}),
    ({"f:l": {ITEM: {".": {}, "f:name": {}}}}, {("f:l", ITEM), ("f:l", ITEM, "f:name")}),
    ({"f:l": {'v:"x"': {}, "v:1": {}, "i:0": {}}}, {("f:l", 'v:"x"'), ("f:l", "v:1"), ("f:l", "i:0")}),
    ({"f:a.b/c": {}}, {("f:a.b/c",)}),
]


@pytest.mark.parametrize(("document", "fields"), SETS)
def test_the_wire_form_is_read_and_written(document: dict[str, Any], fields: set[tuple[str, ...]]) -> None:
    assert decoded(document) == fields
    assert encoded(fields) == document


def test_keys_have_one_form_whatever_the_client_sends() -> None:
    sent: dict[str, Any] = {"f:ports": {'k:{"protocol": "TCP", "containerPort": 80}': {}}}
    assert decoded(sent) == {("f:ports", 'k:{"containerPort":80,"protocol":"TCP"}')}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "fieldsV1 is not an object"),
        ({"f:a": 1}, ".a is not an object"),
        ({"spec": {}}, "'spec' is no element of a path"),
        ({"k:{": {}}, "is no element of a path"),
        ({"k:[1]": {}}, "the keys are not an object"),
        ({'v:"\\ud800"': {}}, "surrogates not allowed"),
        ({'k:{"\\ud800":1}': {}}, "surrogates not allowed"),
        ({f"v:{'[' * 200_000}{']' * 200_000}": {}}, "maximum recursion depth"),
    ],
)
def test_other_documents_are_refused(document: object, words: str) -> None:
    with pytest.raises(InvalidFields, match=words.replace("'", ".")):
        decoded(document)


def test_a_bottomless_document_is_refused() -> None:
    document: dict[str, Any] = {}
    for _ in range(5000):
        document = {"f:a": document}
    with pytest.raises(InvalidFields, match="more than 100 elements"):
        decoded(document)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("f:spec", "f:replicas"), ".spec.replicas"),
        (("f:containers", ITEM, "f:image"), '.containers[name="web"].image'),
        (("f:ports", 'k:{"containerPort":80,"protocol":"TCP"}'), '.ports[containerPort=80,protocol="TCP"]'),
        (("f:finalizers", 'v:"a/b"'), '.finalizers[="a/b"]'),
        (("f:list", "i:3"), ".list[3]"),
    ],
)
def test_paths_are_shown_as_kubernetes_shows_them(path: tuple[str, ...], words: str) -> None:
    assert display(path) == words
