"""Device rules: the model, the v1 writes that implement it, and the v2 program, run here by a small BPF interpreter."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cgroups import devices
from runtime.cgroups.devices import DEFAULT_RULES, Access, Node
from runtime.cgroups.layout import Layout, Mode
from runtime.cgroups.v1 import V1Cgroup
from runtime.errors import CapabilityError, SpecError
from runtime.oci.prepare import apply_limits

DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}
FUSE = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
FRESH = "a *:* rwm\n"


def run(code: bytes, *, kind: str, access: str, major: int, minor: int) -> bool:
    """The verdict of a device program: the part of eBPF with 64-bit registers that it uses."""
    letters = sum(devices._ACCESS[letter] for letter in access)
    context = [letters << 16 | devices._DEVICE[kind], major, minor]
    registers = [0] * 10
    at = 0
    while True:
        op, regs, off, imm = struct.unpack_from("=BBhi", code, at * 8)
        dst, src = regs & 15, regs >> 4
        at += 1
        match op:
            case 0x61:
                registers[dst] = context[off // 4]
            case 0xBC:
                registers[dst] = registers[src] & 0xFFFFFFFF
            case 0x54:
                registers[dst] &= imm
            case 0x74:
                registers[dst] >>= imm
            case 0xB4:
                registers[dst] = imm
            case 0x55:
                at += off if registers[dst] != imm else 0
            case 0x5D:
                at += off if registers[dst] != registers[src] else 0
            case 0x15:
                at += off if registers[dst] == imm else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"unexpected instruction {op:#x}")


def allowed(access: Access, *, kind: str, letters: str, major: int, minor: int) -> bool:
    """The model's verdict, as the kernel's v1 controller decides."""
    for node, exception in access.exceptions.items():
        if node.type != kind or node.major not in (None, major) or node.minor not in (None, minor):
            continue
        if access.allow and exception & set(letters):
            return False
        if not access.allow and set(letters) <= exception:
            return True
    return access.allow


@pytest.mark.parametrize(
    ("rules", "node", "letters", "verdict"),
    [
        ([DENY_ALL], ("c", 1, 3), "rw", True),  # /dev/null is always there
        ([DENY_ALL], ("c", 136, 7), "rw", True),  # so is a pseudo-terminal
        ([DENY_ALL], ("c", 10, 229), "rw", False),
        ([DENY_ALL], ("b", 8, 0), "m", True),  # mknod of anything
        ([DENY_ALL], ("b", 8, 0), "rm", False),
        ([], ("b", 8, 0), "r", False),
        ([DENY_ALL, FUSE], ("c", 10, 229), "rw", True),
        ([DENY_ALL, FUSE], ("c", 10, 228), "rw", False),
        ([FUSE, DENY_ALL], ("c", 10, 229), "rw", False),  # order counts
        ([DENY_ALL, FUSE, {**FUSE, "allow": False, "access": "w"}], ("c", 10, 229), "w", False),
        ([DENY_ALL, FUSE, {**FUSE, "allow": False, "access": "w"}], ("c", 10, 229), "r", True),
        ([ALLOW_ALL], ("b", 8, 0), "rwm", True),
        ([ALLOW_ALL, {**FUSE, "allow": False}], ("c", 10, 229), "r", False),
        ([ALLOW_ALL, {**FUSE, "allow": False, "access": "w"}], ("c", 10, 229), "r", True),
        (
            [DENY_ALL, {"allow": True, "type": "c", "major": -1, "minor": -1, "access": "r"}],
            ("c", 9, 9),
            "r",
            True,
        ),
        ([DENY_ALL, {"allow": True, "type": "b", "major": 8, "access": "r"}], ("b", 8, 77), "r", True),
        ([DENY_ALL, {"allow": True, "type": "b", "major": 8, "access": "r"}], ("b", 9, 77), "r", False),
    ],
)
def test_rules(rules: list[dict[str, Any]], node: tuple[str, int, int], letters: str, verdict: bool) -> None:
    access = devices.resolve(rules)
    kind, major, minor = node
    assert allowed(access, kind=kind, letters=letters, major=major, minor=minor) is verdict
    assert run(devices.program(access), kind=kind, access=letters, major=major, minor=minor) is verdict


@pytest.mark.parametrize(
    "rule",
    [
        {"allow": True, "type": "x"},
        {"allow": True, "type": "c", "access": "rwx"},
        {"allow": True, "major": 1, "access": "r"},
    ],
)
def test_malformed_rules(rule: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        devices.resolve([rule])


NODES = st.builds(Node, st.sampled_from("bc"), st.none() | st.integers(0, 2), st.none() | st.integers(0, 2))
LETTERS = st.sets(st.sampled_from("rwm"), min_size=1).map(frozenset)


@given(
    st.builds(Access, st.booleans(), st.dictionaries(NODES, LETTERS, max_size=4)),
    st.sampled_from("bc"),
    LETTERS,
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_the_program_agrees_with_the_model(
    access: Access, kind: str, letters: frozenset[str], major: int, minor: int
) -> None:
    asked = "".join(sorted(letters))
    expected = allowed(access, kind=kind, letters=asked, major=major, minor=minor)
    assert run(devices.program(access), kind=kind, access=asked, major=major, minor=minor) is expected


def test_v1_a_fresh_cgroup_is_reset_first() -> None:
    writes = devices.v1_writes(FRESH, devices.resolve([DENY_ALL]))
    assert writes[0] == ("devices.deny", "a")
    assert ("devices.allow", "c 1:3 rwm") in writes
    assert len(writes) == 1 + len(DEFAULT_RULES)


def test_v1_a_used_cgroup_is_changed_entry_by_entry() -> None:
    now = devices.resolve([DENY_ALL, FUSE])
    text = "".join(f"{node} {devices._letters(letters)}\n" for node, letters in now.exceptions.items())
    assert devices.v1_writes(text, now) == []
    assert devices.v1_writes(text, devices.resolve([DENY_ALL])) == [("devices.deny", "c 10:229 rwm")]
    less = devices.resolve([DENY_ALL, {**FUSE, "access": "r"}])
    assert devices.v1_writes(text, less) == [("devices.deny", "c 10:229 wm")]
    assert devices.v1_writes(text, devices.resolve([ALLOW_ALL])) == [("devices.allow", "a")]


def test_v1_everything_allowed_needs_nothing_when_fresh() -> None:
    assert devices.v1_writes(FRESH, devices.resolve([ALLOW_ALL])) == []


def test_a_container_with_all_devices_needs_no_device_control() -> None:
    """Without device control, a container that may use all devices is created; another one only if not `strict`."""
    everything = Layout(Mode.V1, None, {"pids": "/nowhere"}, frozenset())
    group = V1Cgroup("/x", everything)
    assert group.apply({"devices": [{"allow": True, "access": "rwm"}]}) == []
    restricted = {"devices": [{"allow": False, "access": "rwm"}]}
    (said,) = apply_limits(group, restricted, strict=False)
    assert said.startswith(devices.UNRESTRICTED)
    with pytest.raises(CapabilityError, match=r"linux\.resources\.devices: device access is not restricted"):
        apply_limits(group, restricted, strict=True)
