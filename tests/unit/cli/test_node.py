"""Taints as arguments of `kubelite node taint`."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.cli.errors import CliError
from kubelite.cli.node.node import _with, _without

NOW: list[dict[str, Any]] = [
    {"key": "gpu", "value": "a", "effect": "NoSchedule"},
    {"key": "gpu", "effect": "NoExecute"},
    {"key": "old", "effect": "NoSchedule"},
]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("gpu", ["old:NoSchedule"]),
        ("gpu:NoSchedule", ["gpu:NoExecute", "old:NoSchedule"]),
        ("gpu=a:NoSchedule", ["gpu:NoExecute", "old:NoSchedule"]),
        ("gpu=other:NoExecute", ["gpu:NoSchedule", "old:NoSchedule"]),
    ],
)
def test_a_taint_is_removed_by_key_and_effect(given: str, left: list[str]) -> None:
    assert [f"{t['key']}:{t['effect']}" for t in _without(NOW, given)] == left


def test_a_missing_taint_is_reported() -> None:
    with pytest.raises(CliError, match='taint "old:NoExecute" not found'):
        _without(NOW, "old:NoExecute")


def test_a_taint_is_added_once() -> None:
    assert {"key": "new", "value": "1", "effect": "NoExecute"} in _with(
        NOW, "new=1:NoExecute", overwrite=False
    )
    with pytest.raises(CliError, match="--overwrite is false"):
        _with(NOW, "gpu=b:NoSchedule", overwrite=False)
    assert len(_with(NOW, "gpu=b:NoSchedule", overwrite=True)) == len(NOW)
    with pytest.raises(CliError, match="KEY"):
        _with(NOW, "gpu", overwrite=False)
