"""What `kubelite policy trace` says."""

from __future__ import annotations

from kubelite.kube.json import Json
from kubelite.network_policies.explanation import Cluster, Place, Trace, named_port, together, trace, traces
from tests.unit.network_policies.kit import ADDRESSES, OUTSIDE, pod, policy

DNS = "10.88.0.1"
OUT = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}"
TO_DNS = (
    "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: "
    "{kubernetes.io/metadata.name: kube-system}}}], ports: [{port: dns, protocol: UDP}]}]}"
)


def place(name: str, doc: Json | None = None) -> Place:
    return Place(f"pod {name}", ADDRESSES[name], doc or pod(name))


def traced(
    source: Place, destination: Place, *policies: Json, port: int = 80, protocol: str = "TCP"
) -> Trace:
    return trace(Cluster(policies, (), ()), source, destination, port, protocol, dns=DNS)


def test_each_side_names_the_policy_that_decides() -> None:
    found = traced(
        place("x/a"), place("y/a"), policy("x/out", OUT), policy("y/in", "{podSelector: {}, ingress: [{}]}")
    )
    assert not found.allowed
    assert found.reasons == (
        "pod x/a (egress): dropped, no rule of x/out allows it",
        "pod y/a (ingress): allowed by rule 1 of the ingress of NetworkPolicy y/in",
    )
    inside = traced(place("x/a"), place("x/b"), policy("x/out", OUT))
    assert inside.allowed and inside.reasons[1] == "pod x/b (ingress): allowed, no policy restricts it"


def test_addresses_outside_and_the_dns_server() -> None:
    outside = Place(OUTSIDE, OUTSIDE)
    assert not traced(place("x/a"), outside, policy("x/out", OUT)).allowed
    assert traced(outside, place("x/a"), policy("x/out", OUT)).allowed
    server = Place("the DNS server", DNS)
    assert not traced(place("x/a"), server, policy("x/out", OUT), port=53, protocol="UDP").allowed
    assert traced(place("x/a"), server, policy("x/dns", TO_DNS), port=53, protocol="UDP").allowed
    assert not traced(place("x/a"), server, policy("x/dns", TO_DNS), port=53).allowed


def test_pods_of_the_host_network_and_a_pod_itself() -> None:
    host = place("x/a", pod("x/a", hostNetwork=True))
    found = traced(host, place("x/b"), policy("x/deny", "{podSelector: {}}"))
    assert found.allowed and "host's network" in found.reasons[0]
    own = place("x/a")
    assert traced(own, own, policy("x/deny", "{podSelector: {}}")).allowed


def test_named_ports() -> None:
    assert named_port(pod("x/a"), "serve-80-tcp", "TCP") == 80
    assert named_port(pod("x/a"), "serve-80-tcp", "UDP") is None


ONLY_IPV4 = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.88.0.0/16}}]}]}"


def both(name: str) -> tuple[Place, Place]:
    doc = pod(name)
    return Place(f"pod {name}", ADDRESSES[name], doc), Place(f"pod {name}", _six(name), doc)


def _six(name: str) -> str:
    return f"fd00:88::{ADDRESSES[name].rpartition('.')[2]}"


def test_a_rule_of_one_family_does_not_speak_for_the_other() -> None:
    cluster = Cluster((policy("y/in", ONLY_IPV4),), (), ())
    found = traces(cluster, both("x/a"), both("y/b"), 80, "TCP", dns=DNS)
    assert {family: one.allowed for family, one in found.items()} == {"IPv4": True, "IPv6": False}
    assert together(found) == Trace(
        False,
        (
            "IPv4: pod x/a (egress): allowed, no policy restricts it",
            "IPv4: pod y/b (ingress): allowed by rule 1 of the ingress of NetworkPolicy y/in",
            "IPv6: pod x/a (egress): allowed, no policy restricts it",
            "IPv6: pod y/b (ingress): dropped, no rule of y/in allows it",
        ),
    )


def test_families_that_agree_are_not_named() -> None:
    cluster = Cluster((policy("y/in", "{podSelector: {}}"),), (), ())
    found = traces(cluster, both("x/a"), both("y/b"), 80, "TCP", dns=DNS)
    assert list(found) == ["IPv4", "IPv6"]
    assert together(found) == traced(place("x/a"), place("y/b"), *cluster.policies)


def test_only_families_that_both_ends_have_count() -> None:
    cluster = Cluster((policy("y/in", ONLY_IPV4),), (), ())
    assert list(traces(cluster, both("x/a")[1:], both("y/b"), 80, "TCP", dns=DNS)) == ["IPv6"]
    assert not traces(cluster, both("x/a")[1:], both("y/b")[:1], 80, "TCP", dns=DNS)
