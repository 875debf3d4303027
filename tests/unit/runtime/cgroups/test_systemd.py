"""The requests to systemd, and their D-Bus messages."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import dbus
from runtime.cgroups import systemd
from runtime.errors import SpecError
from tests.conformance.systemd_peer import Reader, packet, text


@pytest.mark.parametrize(
    ("wanted", "user", "unit", "path"),
    [
        ("", False, "runc-id.scope", "/system.slice/runc-id.scope"),
        ("", True, "runc-id.scope", "/user.slice/runc-id.scope"),
        ("system.slice:docker:abc", False, "docker-abc.scope", "/system.slice/docker-abc.scope"),
        (":docker:abc", False, "docker-abc.scope", "/system.slice/docker-abc.scope"),
        ("a-b-c.slice::x", False, "x.scope", "/a.slice/a-b.slice/a-b-c.slice/x.scope"),
        ("-.slice:p:x", False, "p-x.scope", "/p-x.scope"),
    ],
)
def test_the_cgroup_of_a_scope(wanted: str, user: bool, unit: str, path: str) -> None:
    scope = systemd.scope(wanted, "id", user=user)
    assert (scope.unit, scope.path) == (unit, path)


@pytest.mark.parametrize(
    "wanted", ["/x", "a:b", "a.slice:p:", "a.slice:p:x/y", "a.slice:p:b.slice", "x/y.slice:p:n"]
)
def test_invalid_scopes(wanted: str) -> None:
    with pytest.raises(SpecError, match=r"linux\.cgroupsPath"):
        systemd.scope(wanted, "id", user=False)


@pytest.mark.parametrize(
    ("resources", "v1", "v2"),
    [
        (
            {"memory": {"limit": 100, "reservation": 50, "swap": 300}},
            {"MemoryLimit": 100},
            {"MemoryMax": 100, "MemoryLow": 50, "MemorySwapMax": 200},
        ),
        (
            {"memory": {"limit": -1}},
            {"MemoryLimit": 2**64 - 1},
            {"MemoryMax": 2**64 - 1, "MemorySwapMax": 2**64 - 1},
        ),
        ({"cpu": {"shares": 1024}}, {"CPUShares": 1024}, {"CPUWeight": 100}),
        ({"cpu": {"idle": 1}}, {}, {"CPUWeight": 0}),
        ({"cpu": {"quota": 50000}}, {"CPUQuotaPerSecUSec": 500000}, {"CPUQuotaPerSecUSec": 500000}),
        (
            {"cpu": {"quota": 12345, "period": 50000}},
            {"CPUQuotaPeriodUSec": 50000, "CPUQuotaPerSecUSec": 250000},
            {"CPUQuotaPeriodUSec": 50000, "CPUQuotaPerSecUSec": 250000},
        ),
        ({"cpu": {"quota": -1}}, {"CPUQuotaPerSecUSec": 2**64 - 1}, {"CPUQuotaPerSecUSec": 2**64 - 1}),
        ({"cpu": {"cpus": "0-2,9"}}, {}, {"AllowedCPUs": [7, 2]}),
        ({"pids": {"limit": 10}}, {"TasksMax": 10}, {"TasksMax": 10}),
        ({"pids": {"limit": 0}}, {"TasksMax": 1}, {"TasksMax": 1}),
        ({"pids": {"limit": -1}}, {"TasksMax": 2**64 - 1}, {"TasksMax": 2**64 - 1}),
        ({"blockIO": {"weight": 10}}, {"BlockIOWeight": 10}, {"IOWeight": 1}),
        (
            {"unified": {"memory.high": "max", "pids.max": "7", "io.max": "x"}},
            None,
            {"MemoryHigh": 2**64 - 1, "TasksMax": 7},
        ),
        ({}, {}, {}),
    ],
)
def test_limits(resources: dict[str, Any], v1: dict[str, Any] | None, v2: dict[str, Any]) -> None:
    for wanted, unified in ((v1, False), (v2, True)):
        if wanted is not None:
            found = {name: value for name, (_, value) in systemd.properties(resources, v2=unified)}
            assert found == wanted


@pytest.mark.parametrize(
    ("text_", "kind", "value"),
    [
        ("7", "i", 7),
        ("uint64 10", "t", 10),
        ("true", "b", True),
        ("'a b'", "s", "a b"),
        ("objectpath '/x'", "o", "/x"),
        ("1.5", "d", 1.5),
        ("['a', 'b']", "as", ["a", "b"]),
        ("[uint32 1, uint32 2]", "au", [1, 2]),
    ],
)
def test_annotations(text_: str, kind: str, value: Any) -> None:
    assert systemd.annotated({"org.systemd.property.Some": text_, "other": "x"}) == [("Some", (kind, value))]


def test_seconds_are_microseconds() -> None:
    found = systemd.annotated({"org.systemd.property.TimeoutStopSec": "double 1.5"})
    assert found == [("TimeoutStopUSec", ("t", 1_500_000))]


@pytest.mark.parametrize(
    ("name", "value"), [("X", "1"), ("Some_Name", "1"), ("Name", "what"), ("Name", "[1, 'a']")]
)
def test_invalid_properties(name: str, value: str) -> None:
    with pytest.raises(SpecError, match=r"annotations\.org\.systemd"):
        systemd.annotated({f"org.systemd.property.{name}": value})


# --- D-Bus ---

_BASIC = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "q": st.integers(0, 2**16 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "t": st.integers(0, 2**64 - 1),
    "d": st.floats(allow_nan=False),
    "s": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "g": st.just("a(sv)"),
}


@st.composite
def typed(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    shape = draw(st.sampled_from(["basic", "array", "struct", "variant"] if depth else ["basic"]))
    if shape == "variant":
        return "v", draw(typed(depth - 1))
    if shape == "struct":
        parts = draw(st.lists(typed(depth - 1), min_size=1, max_size=3))
        return f"({''.join(kind for kind, _ in parts)})", tuple(value for _, value in parts)
    if shape == "array":
        kind = draw(st.sampled_from(sorted(_BASIC)))
        return f"a{kind}", draw(st.lists(_BASIC[kind], max_size=4))
    kind = draw(st.sampled_from(sorted(_BASIC)))
    return kind, draw(_BASIC[kind])


@given(st.lists(typed(), max_size=4))
def test_messages_are_packed_and_unpacked(values: list[tuple[str, Any]]) -> None:
    signature = "".join(kind for kind, _ in values)
    body = [value for _, value in values]
    assert dbus.split(signature) == [kind for kind, _ in values]
    assert list(dbus.unpack(signature, dbus.pack(signature, body))) == body


def test_a_call_is_read_by_another_implementation() -> None:
    """tests/conformance/systemd_peer.py has its own implementation of the message format."""
    args = ["x.scope", "replace", [("PIDs", ("au", [1, 2])), ("Slice", ("s", "a.slice"))], []]
    raw = dbus.message(1, 9, {1: ("o", "/p"), 3: ("s", "M")}, "ssa(sv)a(sa(sv))", args)
    size, serial, block = struct.unpack("<III", raw[4:16])
    assert serial == 9
    fields = Reader(raw, 12).read("a(yv)")[0]
    assert fields == [[1, "/p"], [3, "M"], [8, "ssa(sv)a(sa(sv))"]]
    assert len(raw) == 16 + block + -block % 8 + size
    body = Reader(raw[len(raw) - size :]).read("ssa(sv)a(sa(sv))")
    assert body == ["x.scope", "replace", [["PIDs", [1, 2]], ["Slice", "a.slice"]], []]


@pytest.mark.parametrize("signature", ["a", "(s", "z", "a(", "(s))"])
def test_invalid_signatures(signature: str) -> None:
    with pytest.raises(ValueError, match="signature"):
        dbus.split(signature)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("unix:path=/run/x", "/run/x"),
        ("tcp:host=x;unix:path=/y,guid=1", "/y"),
        ("unix:abstract=z", b"\0z"),
    ],
)
def test_addresses(address: str, found: str | bytes) -> None:
    assert dbus.socket_address(address) == found


def test_an_unsupported_transport() -> None:
    with pytest.raises(ValueError, match="unix"):
        dbus.socket_address("tcp:host=x")


def test_the_peers_own_packets() -> None:
    raw = packet(4, 2, [(3, "s", "JobRemoved")], "s", text("done"))
    assert dbus.unpack("s", raw[-9:]) == ("done",)
