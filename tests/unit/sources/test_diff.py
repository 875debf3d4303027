"""`kubelite diff`: the changed fields of two documents."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.sources.diff import changed_fields


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": "x"}}, {"a": {"b": "y"}}, ['a.b: "x" -> "y"']),
        ({"a": [1]}, {"a": [1, {"b": 2}]}, ['a[1]: (none) -> {"b": 2}']),
        ({"a": True}, {}, ["a: true -> (none)"]),
        ({"uid": "1", "status": {}}, {"uid": "2", "status": {"phase": "Running"}}, []),
        (
            {"args": ["one\n-- two\nthree\n"]},
            {"args": ["one\n++ 2\nthree\n"]},
            ["args[0]: --- two", "args[0]: +++ 2"],
        ),
        ({"a": "x\n"}, {"a": "x"}, ["a: -"]),  # also the end of the last line
    ],
)
def test_changed_fields(old: Any, new: Any, said: list[str]) -> None:
    assert list(changed_fields(old, new)) == said
