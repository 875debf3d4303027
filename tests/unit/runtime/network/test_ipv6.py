"""The IPv6 network of pods as data, and in leases."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import SpecError
from runtime.network import antispoof, nat
from runtime.network.ipam import LeaseStore
from runtime.network.ipv6 import outside
from runtime.network.ipv6.plan import Subnet6
from runtime.network.plan import Bandwidth, Lease, PortMapping, Subnet, check_ports


def test_an_address_ends_in_the_ipv4_address() -> None:
    subnet = Subnet6.parse("fd00:88::/64")
    assert subnet.gateway == "fd00:88::1"
    assert subnet.address("10.88.0.5") == "fd00:88::a58:5"
    assert Subnet6.parse("fd00::/96").address("255.255.255.255") == "fd00::ffff:ffff"


@pytest.mark.parametrize("cidr", ["", "10.0.0.0/8", "fd00::/97", "fd00::1/64", "::/0"])
def test_wrong_networks_are_refused(cidr: str) -> None:
    with pytest.raises(SpecError):
        Subnet6.parse(cidr)


def test_a_lease_of_both_families_outlives_the_helper(tmp_path: Path) -> None:
    def store(subnet6: Subnet6 | None) -> LeaseStore:
        return LeaseStore(str(tmp_path), Subnet.parse("10.77.0.0/24"), "n", subnet6)

    before = store(None)
    old = before.mark_ready(before.allocate("old", netns="/n", netns_id="1:1", ports=()))
    both = store(Subnet6.parse("fd00:77::/64"))
    new = both.mark_ready(both.allocate("new", netns="/n", netns_id="1:2", ports=()))
    assert (old.addresses, new.addresses) == (("10.77.0.2",), ("10.77.0.3", "fd00:77::a4d:3"))
    again = store(Subnet6.parse("fd00:77::/64"))
    assert {lease.uid: lease for lease in again.all()} == {"old": old, "new": new}
    assert again.addresses("new") == new.addresses and again.addresses("nobody") == ()


def test_a_damaged_second_address_is_set_aside() -> None:
    lease = Lease("u", "10.77.0.2", "0a:58:0a:4d:00:02", "kl0", "/n", "1:1", ip6="fd00::2")
    assert Lease.from_json(lease.to_json()) == lease
    with pytest.raises(ValueError, match="junk"):
        Lease.from_json({**lease.to_json(), "ip6": "junk"})


def test_senders_of_ipv6_are_admitted_only_where_the_table_has_them() -> None:
    lease = Lease("u", "10.77.0.2", "0a:58:0a:4d:00:02", "kl0", "/n", "1:1", ip6="fd00::2")
    assert len(antispoof.elements(lease)) == 2
    _, sender, second = antispoof.elements(lease, ipv6=True)
    assert antispoof.describe(second) == "kl0 0a:58:0a:4d:00:02 fd00::2"
    assert antispoof.describe(sender) == "kl0 0a:58:0a:4d:00:02 10.77.0.2"
    assert len(antispoof.chains("kl")[0].rules) + 2 == len(
        antispoof.chains("kl", "0a:58:0a:4d:00:01")[0].rules
    )


def test_every_spelling_of_an_address_is_the_same_address() -> None:
    ports, warnings = check_ports(
        [PortMapping(80, 80, host_ip="::0"), PortMapping(81, 80, host_ip="2001:DB8:0::1")], ipv6=True
    )
    assert [port.host_ip for port in ports] == ["::", "2001:db8::1"] and warnings == []


def test_a_lease_of_a_newer_version_is_read() -> None:
    lease = Lease("u", "10.77.0.2", "0a:58:0a:4d:00:02", "kl0", "/n", "1:1", bandwidth=Bandwidth(egress=8000))
    data = lease.to_json()
    assert Lease.from_json({**data, "bandwidth": {**data["bandwidth"], "burst": 1}}) == lease


def test_a_published_port_has_an_element_for_each_family() -> None:
    lease = Lease("u", "10.77.0.2", "0a:58:0a:4d:00:02", "kl0", "/n", "1:1", ip6="fd00::2")

    def published(host_ip: str) -> list[str]:
        return [nat.describe(item) for item in nat.elements(lease, PortMapping(80, 8080, "TCP", host_ip))]

    four, six = "TCP 0.0.0.0:80 → 10.77.0.2:8080", "TCP [::]:80 → [fd00::2]:8080"
    assert (published(""), published("0.0.0.0"), published("::")) == ([four, six], [four], [six])
    assert published("2001:db8::1") == ["TCP [2001:db8::1]:80 → [fd00::2]:8080"]
    assert published("127.0.0.1") == ["TCP 127.0.0.1:80 → 10.77.0.2:8080"]
    only = replace(lease, ip6="")
    assert [nat.describe(item) for item in nat.elements(only, PortMapping(80, 8080))] == [four]


def test_each_chain_of_ipv6_has_its_hook() -> None:
    found = outside.chains("br0", Subnet6.parse("fd00:77::/64").network, routed=False)
    assert {c.name: (c.type, c.hook, c.priority, len(c.rules)) for c in found} == {
        "forward": ("filter", 2, 0, 1),
        "prerouting": ("nat", 0, -100, 2),
        "output": ("nat", 3, -100, 2),
        "postrouting": ("nat", 4, 100, 2),
    }


def test_a_node_without_ipv6_does_not_import_it() -> None:
    code = "import sys, runtime.network.node; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "runtime.network.node" in loaded and "runtime.network.ipv6" not in loaded
