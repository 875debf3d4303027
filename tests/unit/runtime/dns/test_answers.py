"""What the DNS server answers from its zone: a row for each rule of Kubernetes' DNS specification 1.1
(https://github.com/kubernetes/dns/blob/master/docs/specification.md; sections in the rows)."""

from __future__ import annotations

import pytest

from runtime.dns.answers import AAAA, ANY, CNAME, MAX_CHAIN, NS, PTR, SOA, SRV, TXT, A, Answer, Code, Resolver
from runtime.dns.zone import Entry, Srv, Zone, parents, reverse_address

WEB = "web.shop.svc.cluster.local"
NAMES = {
    "web.shop.svc.cluster.local": Entry(a=("10.89.0.5",)),
    "_http._tcp.web.shop.svc.cluster.local": Entry(srv=(Srv(80, "web.shop.svc.cluster.local"),)),
    "db.shop.svc.cluster.local": Entry(a=("10.88.0.3", "10.88.0.4")),
    "db-0.db.shop.svc.cluster.local": Entry(a=("10.88.0.3",)),
    "mail.shop.svc.cluster.local": Entry(cname="mx.example.com"),
    "alias.shop.svc.cluster.local": Entry(cname="web.shop.svc.cluster.local"),
    "gone.shop.svc.cluster.local": Entry(cname="nothing.shop.svc.cluster.local"),
    "printer.office": Entry(a=("192.0.2.7",), txt=('second "floor"',)),
}
ZONE = Zone(
    "cluster.local",
    NAMES,
    pointers={"10.89.0.5": "web.shop.svc.cluster.local", "10.88.0.3": "db-0.db.shop.svc.cluster.local"},
    networks=("10.88.0.0/16", "10.89.0.0/16"),
    upstreams=("192.0.2.1",),
    stubs={"corp": ("192.0.2.2",), "lab.corp": ("192.0.2.3#5353",)},
    serial=(1 << 32) + 4,
)
SOA_TEXT = "ns.dns.cluster.local. hostmaster.cluster.local. 4 7200 1800 86400 5"


def _asked(name: str, kind: int) -> Answer | None:
    return Resolver(ZONE).lookup(name, kind)


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        pytest.param("web.shop.svc.cluster.local", A, ["10.89.0.5"], id="2.3.1 a Service with a cluster IP"),
        pytest.param("web.shop.svc.cluster.local", AAAA, [], id="the name exists, a record of this type does not"),
        pytest.param(f"_http._tcp.{WEB}", SRV, [f"0 100 80 {WEB}."], id="2.3.2 SRV"),
        pytest.param("_tcp.web.shop.svc.cluster.local", SRV, [], id="a name above another one exists"),
        pytest.param("db.shop.svc.cluster.local", A, ["10.88.0.3", "10.88.0.4"], id="2.4.1 a headless Service"),
        pytest.param("db-0.db.shop.svc.cluster.local", A, ["10.88.0.3"], id="2.4.1 an endpoint with a host name"),
        pytest.param("mail.shop.svc.cluster.local", CNAME, ["mx.example.com."], id="2.5 ExternalName"),
        pytest.param("alias.shop.svc.cluster.local", A, [f"{WEB}.", "10.89.0.5"], id="an alias within"),
        pytest.param("gone.shop.svc.cluster.local", A, ["nothing.shop.svc.cluster.local."], id="an alias of nothing"),
        pytest.param("5.0.89.10.in-addr.arpa", PTR, ["web.shop.svc.cluster.local."], id="2.3.3 PTR"),
        pytest.param("3.0.88.10.in-addr.arpa", PTR, ["db-0.db.shop.svc.cluster.local."], id="2.4.3 PTR of an endpoint"),
        pytest.param("3.0.88.10.in-addr.arpa", A, [], id="another type of an address that has a name"),
        pytest.param("dns-version.cluster.local", TXT, ['"1.1.0"'], id="2.2 the version of the schema"),
        pytest.param("cluster.local", SOA, [SOA_TEXT], id="the zone's SOA, its serial cut to 32 bits"),
        pytest.param("cluster.local", NS, ["ns.dns.cluster.local."], id="the zone's NS"),
        pytest.param("cluster.local", A, [], id="the zone has no address"),
        pytest.param("svc.cluster.local", A, [], id="svc exists while a Service does"),
        pytest.param("shop.svc.cluster.local", A, [], id="and so does its namespace"),
        pytest.param("10-88-0-9.shop.pod.cluster.local", A, ["10.88.0.9"], id="a pod by its address"),
        pytest.param("10-88-0-9.shop.pod.cluster.local", AAAA, [], id="which has no IPv6"),
        pytest.param("shop.pod.cluster.local", A, [], id="a namespace of pods"),
        pytest.param("printer.office", A, ["192.0.2.7"], id="a custom record"),
        pytest.param("printer.office", ANY, ["192.0.2.7", '"second \\"floor\\""'], id="everything of a name"),
    ],
)  # fmt: skip
def test_a_name_that_exists(name: str, kind: int, data: list[str]) -> None:
    answer = _asked(name, kind)
    assert answer is not None
    assert (answer.code, [record.data for record in answer.records]) == (Code.NOERROR, data)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nobody.shop.svc.cluster.local", id="a Service that does not exist"),
        pytest.param("web.other.svc.cluster.local", id="a namespace without Services"),
        pytest.param("x.web.shop.svc.cluster.local", id="an endpoint of a Service with a cluster IP"),
        pytest.param("web.svc.cluster.local", id="no namespace"),
        pytest.param("6.0.89.10.in-addr.arpa", id="an address of the node's networks without a name"),
        pytest.param("192-0-2-1.shop.pod.cluster.local", id="an address outside of them is no pod's"),
        pytest.param("10-88-0.shop.pod.cluster.local", id="no address"),
        pytest.param("a.10-88-0-9.shop.pod.cluster.local", id="a name below a pod's"),
    ],
)
def test_a_name_that_does_not_exist(name: str) -> None:
    answer = _asked(name, A)
    assert answer is not None
    assert (answer.code, answer.records) == (Code.NXDOMAIN, ())


@pytest.mark.parametrize(
    "name", ["example.com", "local", "notcluster.local", "1.2.0.192.in-addr.arpa", "office"]
)
def test_other_names_are_asked_upstream(name: str) -> None:
    assert _asked(name, A) is None


def test_an_alias_of_another_domain_is_followed_there() -> None:
    answer = _asked("mail.shop.svc.cluster.local", A)
    assert answer is not None
    assert answer.further == "mx.example.com"


def test_a_circle_of_aliases_ends() -> None:
    circle = {
        "a.cluster.local": Entry(cname="b.cluster.local"),
        "b.cluster.local": Entry(cname="a.cluster.local"),
    }
    answer = Resolver(Zone("cluster.local", circle)).lookup("a.cluster.local", A)
    assert answer is not None
    assert (len(answer.records), answer.further) == (MAX_CHAIN, "")


def test_srv_brings_the_addresses_of_its_targets() -> None:
    answer = _asked("_http._tcp.web.shop.svc.cluster.local", SRV)
    assert answer is not None
    assert [(record.name, record.data) for record in answer.additional] == [
        ("web.shop.svc.cluster.local", "10.89.0.5")
    ]


@pytest.mark.parametrize(
    ("name", "servers"),
    [
        ("example.com", ("192.0.2.1",)),
        ("git.corp", ("192.0.2.2",)),
        ("corp", ("192.0.2.2",)),
        ("x.lab.corp", ("192.0.2.3#5353",)),
        ("mycorp", ("192.0.2.1",)),
    ],
)
def test_the_stub_of_the_longest_domain_is_asked(name: str, servers: tuple[str, ...]) -> None:
    assert Resolver(ZONE).servers(name) == servers


def test_a_zone_survives_its_file() -> None:
    assert Zone.from_json(ZONE.to_json()) == ZONE


def test_a_zone_of_a_newer_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 2"):
        Zone.from_json({**ZONE.to_json(), "format": 2})


def test_names_above_others() -> None:
    assert parents(["a.b.c", "d.b.c", "c"]) == {"b.c", "c"}


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4"),
        ("3.2.1.in-addr.arpa", ""),
        ("256.3.2.1.in-addr.arpa", ""),
        ("1" + ".0" * 27 + ".8.8.d.f.ip6.arpa", "fd88::1"),
        ("1.ip6.arpa", ""),
        ("example.com", ""),
    ],
)
def test_reverse_names(name: str, address: str) -> None:
    assert reverse_address(name) == address
