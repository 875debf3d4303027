"""JSON in the body of a request: the data, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelite.api.kube.writes.json_text import CannotRead, read
from manifests.yaml.document import YamlDocument, read_documents

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e300, 1e300) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_what_python_writes_is_read(value: Any, ascii_only: bool) -> None:
    assert read(json.dumps(value, ensure_ascii=ascii_only)).data == value


@pytest.mark.parametrize(
    "text",
    ['{"a": 80.0, "b": [1.5, -2e3, true, null], "c": "\\ud83d\\ude00"}', '"a"', "[]", '{"a": 1, "a": 2}'],
)
def test_the_reader_of_manifests_says_the_same(text: str) -> None:
    (document,) = read_documents(text)
    assert isinstance(document, YamlDocument)
    found = read(text).data
    assert found == document.data
    assert not isinstance(found, dict) or not isinstance(found.get("a"), float)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1, column 2"),
        ("NaN", "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ("1e999", "out of range"),
        ("1" * 21, "out of range"),
        ("1" * 5000, "4300 digits"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
        ("[" * 202 + "]" * 202, "nested more than 200 deep"),
        ("[" * 1_000_000, "nested more than 200 deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested more than 200 deep"),
        ("1 2", "Extra data"),
        ("", "Expecting value"),
    ],
)
def test_what_no_object_can_say_is_refused(text: str, words: str) -> None:
    with pytest.raises(CannotRead, match=words):
        read(text)


def test_fields_that_are_given_twice_are_named() -> None:
    assert read('{"a": {"b": 1, "b": 2}, "c": [{"d": 1, "d": 1}]}') == (
        {"a": {"b": 1}, "c": [{"d": 1}]},
        ("b", "d"),
    )


def test_two_hundred_levels_are_read() -> None:
    found = read("[" * 200 + "]" * 200).data
    assert str(found) == "[" * 200 + "]" * 200
