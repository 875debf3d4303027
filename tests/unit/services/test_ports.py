"""What the data path gets of a Service. Rows follow pkg/proxy/topology_test.go and KEP-1669."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.services.ports import service_ports
from runtime.network.services.plan import Endpoint, ServicePort
from tests.unit.services.docs import NODE, Doc, service

HERE, ELSEWHERE = NODE, "other"


def endpoint(last: int, state: str = "ready", node: str = HERE) -> Doc:
    states = {
        "ready": {"ready": True, "serving": True, "terminating": False},
        "unready": {"ready": False, "serving": False, "terminating": False},
        "serving": {"ready": False, "serving": True, "terminating": True},
        "ending": {"ready": False, "serving": False, "terminating": True},
        "unsaid": {},
    }
    found: Doc = {"addresses": [f"10.88.0.{last}"], "conditions": states[state]}
    return {**found, "nodeName": node} if node else found


def piece(*endpoints: Doc, **fields: Any) -> Doc:
    ports = [{"name": "", "port": 8080, "protocol": "TCP"}]
    return {"addressType": "IPv4", "endpoints": list(endpoints), "ports": ports, **fields}


def only(doc: Doc, *slices: Doc) -> ServicePort:
    (found,) = service_ports(doc, slices, NODE)
    return found


def lasts(endpoints: tuple[Endpoint, ...]) -> list[int]:
    return [int(one.ip.rpartition(".")[2]) for one in endpoints]


def test_a_cluster_ip() -> None:
    assert only(service(), piece(endpoint(5))) == ServicePort(
        name="default/web:80/TCP",
        protocol="TCP",
        port=80,
        addresses=("10.96.0.7",),
        endpoints=(Endpoint("10.88.0.5", 8080),),
        external_endpoints=(Endpoint("10.88.0.5", 8080),),
    )


@pytest.mark.parametrize(
    ("endpoints", "chosen"),
    [
        ([endpoint(1), endpoint(2)], [1, 2]),
        ([endpoint(1), endpoint(2, "unready")], [1]),
        ([endpoint(1), endpoint(2, "serving")], [1]),
        ([endpoint(1, "serving"), endpoint(2, "serving")], [1, 2]),
        ([endpoint(1, "serving"), endpoint(2, "ending"), endpoint(3, "unready")], [1]),
        ([endpoint(1, "ending")], []),
        ([endpoint(1, "unsaid")], [1]),
        ([endpoint(1, node="")], [1]),
        ([], []),
    ],
)
def test_ready_endpoints_or_else_those_that_end_and_still_serve(
    endpoints: list[Doc], chosen: list[int]
) -> None:
    found = only(service(), piece(*endpoints))
    assert lasts(found.endpoints) == lasts(found.external_endpoints) == chosen


@pytest.mark.parametrize(
    ("spec", "internal", "external"),
    [
        ({"internalTrafficPolicy": "Local"}, [1], [1, 2]),
        ({"type": "NodePort", "externalTrafficPolicy": "Local"}, [1, 2], [1]),
    ],
)
def test_local_policies(spec: Doc, internal: list[int], external: list[int]) -> None:
    found = only(service(**spec), piece(endpoint(1), endpoint(2, node=ELSEWHERE)))
    assert (lasts(found.endpoints), lasts(found.external_endpoints)) == (internal, external)
    assert found.preserve_source is (spec.get("externalTrafficPolicy") == "Local")


def test_a_local_policy_falls_back_to_local_endpoints_alone() -> None:
    found = only(
        service(internalTrafficPolicy="Local"), piece(endpoint(1, "serving"), endpoint(2, node=ELSEWHERE))
    )
    assert lasts(found.endpoints) == [1]


@pytest.mark.parametrize(
    "spec",
    [{"clusterIP": "None"}, {"clusterIP": None}, {"type": "ExternalName", "clusterIP": None}],
)
def test_a_service_without_an_address_has_no_ports(spec: Doc) -> None:
    assert service_ports(service(**spec), [piece(endpoint(1))], NODE) == ()


def test_ports_are_matched_by_name_and_protocol() -> None:
    dns = service(
        "dns",
        {"name": "u", "port": 53, "protocol": "UDP"},
        {"name": "t", "port": 53, "protocol": "TCP"},
        {"name": "m", "port": 9153, "protocol": "TCP"},
    )
    ports = [{"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 54, "protocol": "TCP"}]
    found = service_ports(dns, [piece(endpoint(1), ports=ports)], NODE)
    assert [(one.name, [end.port for end in one.endpoints]) for one in found] == [
        ("default/dns:u/UDP", [53]),
        ("default/dns:t/TCP", [54]),
        ("default/dns:m/TCP", []),
    ]


def test_slices_of_other_types_and_repeated_endpoints_count_for_nothing() -> None:
    found = only(
        service(), piece(endpoint(1)), piece(endpoint(1), endpoint(2)), piece(endpoint(9), addressType="IPv6")
    )
    assert lasts(found.endpoints) == [1, 2]


def test_what_a_load_balancer_has() -> None:
    doc = service(
        "web",
        {"port": 80, "nodePort": 30080},
        type="LoadBalancer",
        externalIPs=["203.0.113.9", "fd00::9"],
        loadBalancerSourceRanges=[" 192.0.2.0/24 ", "fd00::/8"],
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
    )
    ingress = [{"ip": "198.51.100.1", "ipMode": "VIP"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}]
    doc["status"] = {"loadBalancer": {"ingress": ingress}}
    found = only(doc)
    assert found.external == ("203.0.113.9", "198.51.100.1")
    assert (found.node_port, found.affinity, found.sources) == (30080, 60, ("192.0.2.0/24",))


SIX = {"addresses": ["fd00:88::5"], "conditions": {"ready": True}}
DUAL: dict[str, Any] = {"clusterIPs": ["10.96.0.7", "FD00:96::07"], "ipFamilies": ["IPv4", "IPv6"]}


def test_both_families_of_a_service() -> None:
    pieces = piece(endpoint(5)), piece(SIX, addressType="IPv6")
    found = only(service(**DUAL, externalIPs=["2001:db8::1"]), *pieces)
    assert found.addresses == ("10.96.0.7", "fd00:96::7")
    assert found.endpoints == (Endpoint("10.88.0.5", 8080), Endpoint("fd00:88::5", 8080))
    six = found.of_family(ipv6=True)
    assert six is not None and six.external == ("2001:db8::1",) and six.endpoints == (found.endpoints[1],)
    assert only(service(), *pieces).endpoints == (Endpoint("10.88.0.5", 8080),), (
        "a family that it does not have"
    )


def test_endpoints_that_terminate_serve_where_their_family_has_no_others() -> None:
    ending = {
        "addresses": ["fd00:88::6"],
        "conditions": {"ready": False, "serving": True, "terminating": True},
    }
    found = only(service(**DUAL), piece(endpoint(5)), piece(ending, addressType="IPv6"))
    assert [one.ip for one in found.endpoints] == ["10.88.0.5", "fd00:88::6"]


def test_ranges_of_one_family_do_not_open_the_other() -> None:
    balancer: dict[str, Any] = {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]}
    assert only(service(**balancer)).sources == ("192.0.2.0/24",)
    found = only(service(**balancer, **DUAL)).of_family(ipv6=True)
    assert found is not None and found.sources == ("::/128",)
