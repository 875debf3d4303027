"""Addresses and node ports: kept, named and chosen; and what is refused, in Kubernetes' words."""

from __future__ import annotations

import random
from typing import Any

import pytest

from kubelite.services.allocation import Name, Ranges, allocate, with_allocated
from kubelite.services.families import Refusal

Doc = dict[str, Any]
RANGES = Ranges("10.96.0.0/16", (30000, 32767))
WEB: Name = ("default", "web")


def service(*ports: Doc, **spec: Any) -> Doc:
    listed = list(ports or ({"port": 80, "protocol": "TCP"},))
    return {"kind": "Service", "metadata": {}, "spec": {"type": "ClusterIP", "ports": listed, **spec}}


def only(doc: Doc, held: dict[Name, Doc] | None = None, ranges: Ranges = RANGES) -> Doc:
    done = allocate({WEB: doc}, held or {}, ranges)
    assert not done.refused
    spec: Doc = done.services[WEB]["spec"]
    return spec


def refused(doc: Doc, held: dict[Name, Doc] | None = None, ranges: Ranges = RANGES) -> Refusal:
    return allocate({WEB: doc}, held or {}, ranges).refused[WEB]


def test_a_service_gets_an_address_and_the_same_one_from_a_node_without_records() -> None:
    first = only(service())
    assert first["clusterIPs"] == [first["clusterIP"]] and first["clusterIP"].startswith("10.96.")
    assert only(service()) == first
    assert "nodePort" not in first["ports"][0]


def test_a_service_that_needs_none_gets_none() -> None:
    external = service(type="ExternalName", externalName="x")
    assert allocate({WEB: external}, {}, RANGES).services[WEB] is external
    assert only(service(clusterIP="None"))["clusterIPs"] == ["None"]


def test_what_it_names_it_gets() -> None:
    spec = only(
        service(
            {"port": 80, "nodePort": 30080},
            type="NodePort",
            clusterIP="10.96.0.10",
            clusterIPs=["10.96.0.10"],
        )
    )
    assert (spec["clusterIP"], spec["ports"][0]["nodePort"]) == ("10.96.0.10", 30080)


def test_nothing_is_chosen_that_another_manifest_names() -> None:
    chosen = only(service())["clusterIP"]
    other = service(clusterIP=chosen, clusterIPs=[chosen])
    done = allocate({WEB: service(), ("default", "z"): other}, {}, RANGES)
    assert not done.refused and done.services[WEB]["spec"]["clusterIP"] != chosen


@pytest.mark.parametrize(
    ("doc", "field", "message"),
    [
        (
            service(clusterIP="10.96.0.9", clusterIPs=["10.96.0.9"]),
            "spec.clusterIPs",
            'Invalid value: ["10.96.0.9"]: failed to allocate IP 10.96.0.9: provided IP is already allocated to '
            "service default/other",
        ),
        (
            service(clusterIP="10.1.0.9", clusterIPs=["10.1.0.9"]),
            "spec.clusterIPs",
            'Invalid value: ["10.1.0.9"]: failed to allocate IP 10.1.0.9: the provided IP (10.1.0.9) is not in the '
            "valid range. The range of valid IPs is 10.96.0.0/16",
        ),
        (
            service(clusterIP="10.96.255.255"),
            "spec.clusterIPs",
            'Invalid value: ["10.96.255.255"]: failed to allocate IP 10.96.255.255: the provided IP (10.96.255.255) is '
            "not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
        (
            service({"port": 80}, {"port": 81, "nodePort": 30009}, type="NodePort"),
            "spec.ports[1].nodePort",
            "Invalid value: 30009: provided port is already allocated to service default/other",
        ),
        (
            service({"port": 80, "nodePort": 80}, type="NodePort"),
            "spec.ports[0].nodePort",
            "Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
    ],
)
def test_what_is_taken_or_out_of_range_is_refused(doc: Doc, field: str, message: str) -> None:
    other = service({"port": 80, "nodePort": 30009}, type="NodePort", clusterIP="10.96.0.9")
    found = refused(doc, {("default", "other"): other})
    assert (found.field, found.message) == (field, message)


def test_a_refused_service_keeps_nothing_from_others() -> None:
    other = service({"port": 80, "nodePort": 30009}, type="NodePort", clusterIP="10.96.0.9")
    greedy = service({"port": 80, "nodePort": 30009}, type="NodePort", clusterIP="10.96.0.7")
    modest = service(clusterIP="10.96.0.7")
    done = allocate({WEB: greedy, ("default", "z"): modest}, {("default", "other"): other}, RANGES)
    assert set(done.refused) == {WEB} and ("default", "z") in done.services


def test_what_it_has_it_keeps_though_the_ranges_have_changed() -> None:
    held = service({"port": 80, "nodePort": 30080}, type="NodePort", clusterIP="10.1.0.9")
    again = only(held, {WEB: held}, Ranges("10.96.0.0/16", (31000, 31999)))
    assert again["clusterIPs"] == ["10.1.0.9"] and again["ports"] == held["spec"]["ports"]


def test_full_ranges() -> None:
    held = {("default", f"s{n}"): service(clusterIP=f"10.96.0.{n}") for n in range(1, 7)}
    assert "range 10.96.0.0/29 is full" in refused(service(), held, Ranges("10.96.0.0/29")).message
    ports = {
        ("default", "s"): service({"port": 80, "nodePort": 30000}, type="NodePort", clusterIP="10.96.0.1")
    }
    found = refused(service(type="NodePort"), ports, Ranges("10.96.0.0/16", (30000, 30000)))
    assert found.field == "spec.ports[0].nodePort" and "30000-30000 is full" in found.message


def test_one_number_for_a_port_of_two_protocols() -> None:
    dns = service(
        {"port": 53, "protocol": "UDP", "name": "u"},
        {"port": 53, "protocol": "TCP", "name": "t"},
        {"port": 9153, "protocol": "TCP", "name": "m"},
        type="NodePort",
    )
    first, second, third = (port["nodePort"] for port in only(dns)["ports"])
    assert first == second != third


def test_a_load_balancer_has_node_ports_unless_it_refuses_them() -> None:
    assert only(service(type="LoadBalancer"))["ports"][0]["nodePort"]
    spec = only(service(type="LoadBalancer", allocateLoadBalancerNodePorts=False))
    assert "nodePort" not in spec["ports"][0]


OLD = {
    "type": "NodePort",
    "clusterIP": "10.96.3.3",
    "clusterIPs": ["10.96.3.3"],
    "ports": [{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 30081}],
}


@pytest.mark.parametrize(
    ("new", "address", "ports"),
    [
        ({"type": "NodePort", "ports": [{"name": "a", "port": 8080}]}, "10.96.3.3", [30080]),
        ({"type": "LoadBalancer", "ports": [{"name": "b", "port": 81}]}, "10.96.3.3", [30081]),
        (
            {
                "type": "NodePort",
                "ports": [{"name": "a", "port": 80}, {"name": "c", "port": 82, "nodePort": 30080}],
            },
            "10.96.3.3",
            [None, 30080],
        ),
        ({"type": "ClusterIP", "ports": [{"name": "a", "port": 80}]}, "10.96.3.3", [None]),
        ({"type": "ExternalName", "externalName": "x"}, None, []),
        ({"type": "NodePort", "clusterIP": "10.96.3.4", "ports": []}, "10.96.3.4", []),
    ],
)
def test_an_edit_keeps_what_it_does_not_name(new: Doc, address: str | None, ports: list[int | None]) -> None:
    kept = with_allocated(OLD, new)
    assert kept.get("clusterIP") == address
    assert [port.get("nodePort") for port in kept.get("ports") or ()] == ports


@pytest.mark.parametrize("seed", range(50))
def test_no_two_services_have_the_same_and_none_loses_what_it_had(seed: int) -> None:
    dice = random.Random(seed)
    ranges = Ranges("10.96.0.0/26", (30000, 30029))
    held: dict[Name, Doc] = {}
    for _ in range(6):
        wanted: dict[Name, Doc] = {}
        for number in dice.sample(range(40), 12):
            name = ("default", f"s{number}")
            doc = service(type=dice.choice(("ClusterIP", "NodePort", "LoadBalancer")))
            if dice.random() < 0.3:
                doc["spec"]["clusterIP"] = f"10.96.0.{dice.randrange(64)}"
            if name in held:
                doc["spec"] = with_allocated(held[name]["spec"], doc["spec"])
                doc["spec"]["clusterIP"] = held[name]["spec"]["clusterIP"]
            wanted[name] = doc
        done = allocate(wanted, held, ranges)
        assert set(done.services) | set(done.refused) == set(wanted)
        for name, doc in done.services.items():
            assert name not in held or doc["spec"]["clusterIP"] == held[name]["spec"]["clusterIP"]
        held |= done.services
        addresses = [doc["spec"]["clusterIP"] for doc in held.values()]
        ports = [p["nodePort"] for doc in held.values() for p in doc["spec"]["ports"] if "nodePort" in p]
        assert len(set(addresses)) == len(addresses) and len(set(ports)) == len(ports)
        for name in dice.sample(sorted(held), len(held) // 3):
            del held[name]


BOTH = Ranges("10.96.0.0/16", cidr6="fd00:96::/112")


def test_an_address_of_each_family_and_the_same_ones_from_a_node_without_records() -> None:
    spec = only(service(ipFamilyPolicy="RequireDualStack"), ranges=BOTH)
    first, second = spec["clusterIPs"]
    assert spec["clusterIP"] == first and first.startswith("10.96.") and second.startswith("fd00:96::")
    assert only(service(ipFamilyPolicy="RequireDualStack"), ranges=BOTH) == spec
    turned = only(service(ipFamilyPolicy="PreferDualStack", ipFamilies=["IPv6"]), ranges=BOTH)
    assert turned["clusterIPs"] == [second, first] and turned["clusterIP"] == second


def test_two_static_addresses() -> None:
    given = ["fd00:96::A", "10.96.0.10"]
    asks = service(clusterIP=given[0], clusterIPs=given, ipFamilyPolicy="RequireDualStack")
    assert only(asks, ranges=BOTH)["clusterIPs"] == given
    other = service(clusterIP="fd00:96::000a", ipFamilies=["IPv6"])
    found = refused(asks, {("default", "other"): other}, BOTH)
    assert found == Refusal(
        "spec.clusterIPs",
        'Invalid value: ["fd00:96::A","10.96.0.10"]: failed to allocate IP fd00:96::A: provided IP is already '
        "allocated to service default/other",
    )


@pytest.mark.parametrize(
    ("address", "fits"),
    [("fd00:96::", False), ("fd00:96::1", True), ("fd00:96::ffff", True), ("fd00:97::1", False)],
)
def test_which_ipv6_addresses_are_in_the_range(address: str, fits: bool) -> None:
    done = allocate({WEB: service(clusterIP=address)}, {}, BOTH)
    assert (WEB in done.services) is fits
    if not fits:
        assert "The range of valid IPs is fd00:96::/112" in done.refused[WEB].message


def test_a_full_range_of_ipv6_and_a_very_large_one() -> None:
    small = Ranges("10.96.0.0/16", cidr6="fd00:96::/124")
    held = {
        ("default", f"s{n}"): service(clusterIP=f"fd00:96::{n:x}", ipFamilies=["IPv6"]) for n in range(1, 16)
    }
    asks = service(ipFamilyPolicy="RequireDualStack")
    assert refused(asks, held, small).message == (
        "Internal error: failed to allocate a serviceIP: range fd00:96::/124 is full"
    )
    large = only(asks, ranges=Ranges("10.96.0.0/16", cidr6="fd00:96::/64"))
    assert large["clusterIPs"][1].startswith("fd00:96::")
