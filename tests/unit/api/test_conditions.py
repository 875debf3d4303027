"""Pod conditions that other controllers maintain."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.api.kube.conditions import conditions

READY = {"type": "Ready", "status": "False", "lastTransitionTime": "t0"}
GATE = {"type": "example.com/lb", "status": "False", "lastTransitionTime": "t0"}
OPEN = {**GATE, "status": "True", "lastTransitionTime": "t1"}
NEW = {"type": "x", "status": "True", "lastTransitionTime": "t1"}


@pytest.mark.parametrize(
    ("given", "whole", "after"),
    [
        ([], False, [READY, GATE]),
        ([], True, [READY]),
        ([{"type": "x", "status": "True"}], False, [READY, GATE, NEW]),
        ([{**OPEN, "lastTransitionTime": None}], False, [READY, OPEN]),
        ([{"type": "example.com/lb", "message": "m"}], False, [READY, {**GATE, "message": "m"}]),
        ([{"type": "example.com/lb", "$patch": "delete"}], False, [READY]),
    ],
)  # fmt: skip
def test_conditions_are_merged_by_type_and_keep_their_transition_time(
    given: list[dict[str, Any]], whole: bool, after: list[dict[str, Any]]
) -> None:
    assert conditions([READY, GATE], given, whole=whole, now="t1") == after
