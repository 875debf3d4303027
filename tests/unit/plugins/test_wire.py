"""The wire format of protocol buffers, compared with Google's library."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelite.plugins import device_messages as ours
from kubelite.plugins.wire import WireError, decode, encode
from tests.plugin_protos import DEVICE_PLUGIN, message_classes

GOOGLE = message_classes("v1beta1", DEVICE_PLUGIN)
TEXT = st.text(max_size=8)
MAP = st.dictionaries(TEXT, TEXT, max_size=3)
INT64 = st.integers(-(2**63), 2**63 - 1)


@given(MAP, st.lists(st.tuples(TEXT, TEXT, st.booleans()), max_size=3), st.lists(TEXT, max_size=3))
def test_a_response_is_that_of_google(envs: dict[str, str], mounts: list[Any], names: list[str]) -> None:
    made = ours.ContainerAllocateResponse(
        envs,
        tuple(ours.PluginMount(*one) for one in mounts),
        (),
        {"a": "b"},
        tuple(ours.CDIDevice(name) for name in names),
    )
    theirs = GOOGLE["ContainerAllocateResponse"](
        envs=envs,
        mounts=[{"container_path": a, "host_path": b, "read_only": c} for a, b, c in mounts],
        annotations={"a": "b"},
        cdi_devices=[{"name": name} for name in names],
    )
    assert GOOGLE["ContainerAllocateResponse"].FromString(encode(made)) == theirs
    assert decode(theirs.SerializeToString(), ours.ContainerAllocateResponse) == made


@given(TEXT, TEXT, st.one_of(st.none(), st.lists(INT64, max_size=3)))
def test_a_device_is_that_of_google(identity: str, health: str, nodes: list[int] | None) -> None:
    topology = ours.TopologyInfo(tuple(map(ours.NUMANode, nodes))) if nodes is not None else None
    made = ours.PluginDevice(identity, health, topology)
    theirs = GOOGLE["Device"](ID=identity, health=health)
    if nodes is not None:
        theirs.topology.SetInParent()
        for node in nodes:
            theirs.topology.nodes.add(ID=node)
    assert encode(made) == theirs.SerializeToString()
    assert decode(theirs.SerializeToString(), ours.PluginDevice) == made


def test_unknown_fields_are_skipped() -> None:
    theirs = GOOGLE["RegisterRequest"](
        version="v1beta1", endpoint="x.sock", resource_name="a.b/c", options={"pre_start_required": True}
    )
    newer = theirs.SerializeToString() + b"\xf8\x01\x05" + b"\xf9\x01" + bytes(8) + b"\xfd\x01" + bytes(4)
    options = ours.DevicePluginOptions(pre_start_required=True)
    assert decode(newer, ours.RegisterRequest) == ours.RegisterRequest("v1beta1", "x.sock", "a.b/c", options)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x05ab",
        b"\x0a",
        b"\x0b",
        b"\x0a\x01\xff",
        b"\x08\x01",
        b"\xff" * 11,
        b"\x22\x02\x08",
        b"\x22\x02\x0a\x00",
    ],
    ids=[
        "cut off",
        "no length",
        "group",
        "not UTF-8",
        "a number for a string",
        "endless",
        "cut inside",
        "in a bool",
    ],
)
def test_wrong_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data, ours.RegisterRequest)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        found = decode(data, ours.ContainerAllocateResponse)
    except WireError:
        return
    assert decode(encode(found), ours.ContainerAllocateResponse) == found
