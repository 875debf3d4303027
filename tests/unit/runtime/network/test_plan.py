"""Names, addresses and port conflicts, as pure functions."""

from __future__ import annotations

import json

import pytest

from runtime.errors import SpecError
from runtime.network.plan import (
    Attachment,
    Lease,
    PortMapping,
    Subnet,
    check_ports,
    host_ifname,
    is_host_ifname,
    link_prefix,
    mac_of,
    overlaps,
    port_conflict,
    table_name,
)


def lease(uid: str, *ports: PortMapping, ip: str = "10.1.0.2") -> Lease:
    return Lease(uid=uid, ip=ip, mac="", host_ifname=f"if-{uid}", netns="", netns_id="", ports=ports)


@pytest.mark.parametrize("uid", ["a", "0b0c8a5e-7d1c-4bb5-9d3d-6f3b9c2f1a00", "x" * 200])
def test_interface_names_fit_the_kernel_and_differ_by_node_and_pod(uid: str) -> None:
    name = host_ifname("node", uid)
    assert len(name) == 15 and name.startswith(link_prefix("node"))
    assert is_host_ifname(name) and not any(map(is_host_ifname, ("eth0", "kubelite0", "klein-aber-oho0")))
    assert name == host_ifname("node", uid)
    assert (
        len(
            {
                name,
                host_ifname("other", uid),
                host_ifname("node", uid + "1"),
                host_ifname("node", uid, {name}),
            }
        )
        == 4
    )


@pytest.mark.parametrize("node", ["n1", "a node/with ünusual\nletters", "x" * 300])
def test_table_names_are_plain_short_and_unique(node: str) -> None:
    name = table_name(node)
    assert name.isprintable() and " " not in name and "/" not in name and len(name) < 64
    assert name != table_name(node + "x")


def test_a_hardware_address_is_local_unicast_and_made_from_the_ip() -> None:
    assert mac_of("10.88.1.255") == "0a:58:0a:58:01:ff"
    assert int(mac_of("10.0.0.1")[:2], 16) & 0b11 == 0b10  # locally administered, not multicast


@pytest.mark.parametrize(
    "bad", ["10.1.0.0/31", "10.1.0.0/7", "10.1.0.1/24", "fd00::/64", "ten", "10.1.0.0/33"]
)
def test_an_invalid_pod_cidr_is_rejected(bad: str) -> None:
    with pytest.raises(SpecError, match="pod CIDR"):
        Subnet.parse(bad)


def test_the_gateway_is_the_first_address() -> None:
    subnet = Subnet.parse("10.88.0.0/16")
    assert (subnet.gateway, subnet.prefix, subnet.broadcast) == ("10.88.0.1", 16, "10.88.255.255")


@pytest.mark.parametrize(
    ("a", "b", "clash"),
    [
        (PortMapping(80, 1), PortMapping(80, 2), True),
        (PortMapping(80, 1), PortMapping(81, 1), False),
        (PortMapping(80, 1), PortMapping(80, 1, "UDP"), False),
        (PortMapping(80, 1, host_ip="127.0.0.1"), PortMapping(80, 2), True),
        (PortMapping(80, 1, host_ip="0.0.0.0"), PortMapping(80, 2, host_ip="127.0.0.1"), True),
        (PortMapping(80, 1, host_ip="127.0.0.1"), PortMapping(80, 2, host_ip="127.0.0.2"), False),
        (PortMapping(80, 1, host_ip="127.0.0.1"), PortMapping(80, 2, host_ip="127.0.0.1"), True),
        (PortMapping(80, 1, host_ip="::"), PortMapping(80, 2), True),
        (PortMapping(80, 1, host_ip="::"), PortMapping(80, 2, host_ip="::1"), True),
        (PortMapping(80, 1, host_ip="::"), PortMapping(80, 2, host_ip="0.0.0.0"), False),
        (PortMapping(80, 1, host_ip="::"), PortMapping(80, 2, host_ip="127.0.0.1"), False),
        (PortMapping(80, 1, host_ip="0.0.0.0"), PortMapping(80, 2, host_ip="::1"), False),
    ],
)
def test_ports_overlap_as_in_the_scheduler(a: PortMapping, b: PortMapping, clash: bool) -> None:
    assert overlaps(a, b) is overlaps(b, a) is clash


def test_a_conflict_names_port_and_holder_and_never_the_pod_itself() -> None:
    held = [lease("one", PortMapping(80, 8080)), lease("two", PortMapping(53, 53, "UDP", "127.0.0.1"))]
    error = port_conflict("three", [PortMapping(90, 90), PortMapping(53, 1, "UDP")], held)
    assert error is not None and error.reason == "HostPortConflict"
    assert str(error) == "host port UDP 0.0.0.0:53 is already published by pod two (UDP 127.0.0.1:53)"
    assert port_conflict("one", [PortMapping(80, 8080)], held) is None


def test_unpublishable_ports_are_reported() -> None:
    asked = [
        PortMapping(80, 8080),
        PortMapping(80, 8080),
        PortMapping(5, 5, "SCTP"),
        PortMapping(6, 6, "TCP", "2001:db8::1"),
    ]
    good, warnings = check_ports(asked)
    assert good == (PortMapping(80, 8080),)
    assert len(warnings) == 2 and "SCTP" in warnings[0]
    assert warnings[1] == (
        "host port TCP [2001:db8::1]:6 is not published: pods have no IPv6 addresses, see pod_cidr"
    )
    good, warnings = check_ports(asked, ipv6=True)
    assert good == (asked[0], asked[3]) and len(warnings) == 1
    good, (warning,) = check_ports([PortMapping(6, 6, "TCP", "::1")], ipv6=True)
    assert not good and warning.endswith("Linux does not route packets from ::1")


@pytest.mark.parametrize(
    "ports",
    [
        [PortMapping(0, 1)],
        [PortMapping(1, 65536)],
        [PortMapping(1, 1, host_ip="localhost")],
        [PortMapping(80, 1), PortMapping(80, 2)],
        [PortMapping(80, 1), PortMapping(80, 1, host_ip="127.0.0.1")],
    ],
)
def test_invalid_ports_are_rejected(ports: list[PortMapping]) -> None:
    with pytest.raises(SpecError):
        check_ports(ports)


def test_records_survive_json() -> None:
    ports = (PortMapping(80, 8080, "UDP", "127.0.0.1"),)
    attachment = Attachment("u", "10.1.0.2", 24, "10.1.0.1", "m", "if", "/ns", ports, ("careful",))
    assert Attachment.from_json(json.loads(json.dumps(attachment.to_json()))) == attachment
    held = lease("u", *ports)
    assert Lease.from_json(json.loads(json.dumps(held.to_json()))) == held
