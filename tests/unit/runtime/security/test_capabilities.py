"""Decisions about capabilities, rlimits and masked paths."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from runtime.errors import SpecError
from runtime.security import capabilities as caps
from runtime.security import capability_names, paths, rlimits

EVERYTHING = (1 << 41) - 1


def test_names_have_the_kernels_numbers() -> None:
    assert (capability_names.NUMBERS["CAP_CHOWN"], capability_names.NUMBERS["CAP_SYS_ADMIN"]) == (0, 21)
    assert (
        capability_names.NUMBERS["CAP_SYS_RESOURCE"],
        capability_names.NUMBERS["CAP_CHECKPOINT_RESTORE"],
    ) == (24, 40)
    assert caps.names(caps.mask(capability_names.ALL_CAPS)) == list(capability_names.NAMES)


def test_the_default_set_is_dockers() -> None:
    assert len(set(capability_names.DEFAULT_CAPS)) == 14
    assert caps.mask(capability_names.DEFAULT_CAPS) == 0xA80425FB  # CapEff in docker run


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], set(capability_names.DEFAULT_CAPS)),
        (["NET_ADMIN"], [], {*capability_names.DEFAULT_CAPS, "CAP_NET_ADMIN"}),
        (["cap_net_admin"], ["kill"], {*capability_names.DEFAULT_CAPS, "CAP_NET_ADMIN"} - {"CAP_KILL"}),
        ([], ["ALL"], set()),
        (["NET_BIND_SERVICE"], ["ALL"], {"CAP_NET_BIND_SERVICE"}),
        (["ALL"], [], set(capability_names.NAMES)),
        (["ALL"], ["SYS_ADMIN"], set(capability_names.NAMES) - {"CAP_SYS_ADMIN"}),
        (["NET_RAW"], ["NET_RAW"], set(capability_names.DEFAULT_CAPS) - {"CAP_NET_RAW"}),
    ],
)
def test_add_and_drop(add: list[str], drop: list[str], expected: set[str]) -> None:
    assert set(capability_names.adjust(add, drop)) == expected


def test_unknown_capability_is_named() -> None:
    with pytest.raises(SpecError, match="CAP_NET_ADMIM"):
        capability_names.adjust(["NET_ADMIM"], [])


def test_the_plan_has_the_requested_sets() -> None:
    names = ["CAP_KILL", "CAP_CHOWN"]
    sets, warnings = caps.plan(dict.fromkeys(caps.CapSets._fields, names), available=EVERYTHING)
    assert set(sets) == {0b100001}
    assert warnings == []


def test_unavailable_capabilities_are_left_out_with_one_warning() -> None:
    wanted = {kind: ["CAP_KILL", "CAP_SYS_RESOURCE", "CAP_FUTURE"] for kind in caps.CapSets._fields}
    sets, warnings = caps.plan(wanted, available=EVERYTHING & ~caps.mask(["CAP_SYS_RESOURCE"]))
    assert set(sets) == {caps.mask(["CAP_KILL"])}
    assert [warning.split()[0] for warning in warnings] == ["CAP_SYS_RESOURCE", "CAP_FUTURE"]


def test_plan_keeps_the_kernels_rules() -> None:
    """Effective and ambient are subsets of permitted, and ambient of inheritable; otherwise capset and prctl fail."""
    sets, _ = caps.plan(
        {"effective": ["CAP_KILL"], "ambient": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
        available=EVERYTHING,
    )
    assert (sets.effective, sets.ambient, sets.permitted) == (0, 0, 1)


@pytest.mark.parametrize("nothing", [None, {}, {"bounding": None}])
def test_without_capabilities_all_sets_are_empty(nothing: dict[str, Any] | None) -> None:
    sets, warnings = caps.plan(nothing, available=EVERYTHING)
    assert (set(sets), warnings) == ({0}, [])


def test_rlimit_names_are_the_systems() -> None:
    for name, number in rlimits.RLIMITS.items():
        if hasattr(resource, name):
            assert getattr(resource, name) == number


def test_rlimits_parse() -> None:
    huge = (1 << 64) - 1
    assert rlimits.parse(
        [
            {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": huge},
        ]
    ) == [("RLIMIT_NOFILE", 10, 20), ("RLIMIT_CORE", 0, -1)]


@pytest.mark.parametrize(
    "wrong",
    [
        [{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}],
        [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}],
        [{"type": "RLIMIT_CPU", "soft": -1, "hard": 1}],
        [{"type": "RLIMIT_CPU", "soft": 1}],
        [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2,
    ],
)
def test_rlimits_refuse(wrong: list[dict[str, Any]]) -> None:
    with pytest.raises(SpecError):
        rlimits.parse(wrong)


def test_hidden_paths() -> None:
    masked = paths.masked_paths()
    assert set(paths.MASKED_PATHS) <= set(masked)
    assert "/proc/kcore" in masked
    assert "/proc/sys" in paths.READONLY_PATHS
    assert not set(masked) & set(paths.READONLY_PATHS)
