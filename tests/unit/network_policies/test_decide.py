"""What NetworkPolicies allow: each rule of Kubernetes' API (networking/v1 types.go) by an example."""

from __future__ import annotations

import pytest

from kubelite.network_policies.pods import dns_server, facts_of
from runtime.network.policies.plan import NamedPort, PodRules, Policy
from tests.unit.network_policies.kit import OUTSIDE, PODS, pod, policy, world


def sources(spec: str, destination: str = "x/a", port: int = 80, protocol: str = "TCP") -> str:
    """The pods that may connect to `destination` under a policy of the namespace x with this spec."""
    found = world(policy("x/p", spec))
    return " ".join(name for name in PODS if found.allows(name, destination, port, protocol))


def destinations(spec: str, source: str = "x/a", port: int = 80, protocol: str = "TCP") -> str:
    found = world(policy("x/p", spec))
    return " ".join(name for name in PODS if found.allows(source, name, port, protocol))


EVERY = " ".join(PODS)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{podSelector: {}}", "x/a"),
        ("{podSelector: {}, policyTypes: [Ingress], ingress: []}", "x/a"),
        ("{podSelector: {}, ingress: [{}]}", EVERY),
        ("{podSelector: {}, ingress: [{from: []}]}", EVERY),
        ("{podSelector: {}, policyTypes: [Egress]}", "x/a y/a y/b y/c z/a z/b z/c"),
        ("{podSelector: {matchLabels: {pod: b}}}", EVERY),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}", "x/a x/b x/c"),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}", "x/a x/b"),
        ("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}", EVERY),
        (
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}",
            "x/a y/a y/b y/c",
        ),
        (
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}, "
            "podSelector: {matchLabels: {pod: b}}}]}]}",
            "x/a y/b",
        ),
        (
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}, "
            "{podSelector: {matchLabels: {pod: b}}}]}]}",
            "x/a x/b y/a y/b y/c",
        ),
        (
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: "
            "{kubernetes.io/metadata.name: z}}}]}]}",
            "x/a z/a z/b z/c",
        ),
        (
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: "
            "[{key: ns, operator: NotIn, values: [x, y]}]}, podSelector: {matchExpressions: "
            "[{key: pod, operator: In, values: [a, b]}]}}]}]}",
            "x/a z/a z/b",
        ),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.88.2.0/24}}]}]}", "x/a y/a y/b y/c"),
        (
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.88.2.0/24, except: [10.88.2.3/32]}}]}]}",
            "x/a y/a y/c",
        ),
        ("{podSelector: {}, ingress: [{ports: [{port: 80}]}]}", EVERY),
        ("{podSelector: {}, ingress: [{ports: [{port: 80, protocol: UDP}]}]}", "x/a"),
        ("{podSelector: {}, ingress: [{ports: [{protocol: TCP}]}]}", EVERY),
        ("{podSelector: {}, ingress: [{ports: [{port: 79, endPort: 90}]}]}", EVERY),
        ("{podSelector: {}, ingress: [{ports: [{port: 81, endPort: 90}]}]}", "x/a"),
        ("{podSelector: {}, ingress: [{ports: [{port: serve-80-tcp}]}]}", EVERY),
        ("{podSelector: {}, ingress: [{ports: [{port: serve-80-tcp, protocol: UDP}]}]}", "x/a"),
        ("{podSelector: {}, ingress: [{ports: [{port: serve-81-tcp}]}]}", "x/a"),
    ],
)  # fmt: skip
def test_who_may_connect_to_a_pod_at_port_80(spec: str, expected: str) -> None:
    assert sources(spec) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{podSelector: {}, policyTypes: [Egress]}", "x/a"),
        ("{podSelector: {}, policyTypes: [Egress], egress: [{}]}", EVERY),
        ("{podSelector: {}}", "x/a y/a y/b y/c z/a z/b z/c"),
        ("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}", "x/a x/b x/c"),
        ("{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]}", EVERY),
        ("{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-81-tcp}]}]}", "x/a"),
        (
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: "
            "{matchLabels: {ns: z}}}], ports: [{port: serve-80-tcp}]}]}",
            "x/a z/a z/b z/c",
        ),
        (
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], "
            "egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.88.1.0/24, 10.88.3.0/24]}}]}]}",
            "x/a y/a y/b y/c",
        ),
    ],
)  # fmt: skip
def test_to_what_a_pod_may_connect_at_port_80(spec: str, expected: str) -> None:
    assert destinations(spec) == expected


def test_rules_of_all_policies_add_up() -> None:
    found = world(
        policy("x/one", "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}"),
        policy("x/two", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81}]}]}"),
        policy("y/other", "{podSelector: {}, ingress: [{}]}"),
    )
    assert found.allows("x/b", "x/a", 80) and found.allows("z/c", "x/a", 81)
    assert not found.allows("z/c", "x/a", 80) and not found.allows("z/c", "x/b", 81)
    said = found.judge("z/c", "x/a", 81)
    assert said.ingress.by == ("x/two", 0) and said.ingress.policies == ("x/one", "x/two")


def test_a_connection_needs_egress_and_ingress() -> None:
    out = policy(
        "x/out",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}",
    )
    into = policy("y/in", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")
    assert world(out).allows("x/a", "y/a") and not world(out, into).allows("x/a", "y/a")
    assert world(out, into).judge("x/a", "y/a").egress.allowed
    assert world(out, into).allows("y/b", "y/a")


def test_addresses_outside_are_matched_by_blocks_alone() -> None:
    pods = policy("x/p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}")
    block = policy("x/p", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/28}}]}]}")
    assert not world(pods).allows(OUTSIDE, "x/a") and world(block).allows(OUTSIDE, "x/a")
    assert not world(block).allows("198.51.100.1", "x/a")
    assert not world(block).allows("2001:db8::1", "x/a")


def test_a_pod_of_the_host_network_is_neither_selected_nor_a_peer() -> None:
    assert facts_of(pod("x/a", hostNetwork=True)) is None


def test_a_named_port_is_the_number_that_the_destination_gives_it() -> None:
    web = {"name": "web", "containerPort": 8080}
    sidecar = {"name": "s", "restartPolicy": "Always", "ports": [{"name": "web", "containerPort": 9090}]}
    pods = [pod("x/a", ports=[web]), pod("x/b", ports=[], initContainers=[sidecar]), pod("x/c", ports=[])]
    spec = "{podSelector: {}, ingress: [{ports: [{port: web}]}]}"
    found = world(policy("x/p", spec), pods=pods)
    assert [found.allows("y/a", name, 8080) for name in ("x/a", "x/b", "x/c")] == [True, False, False]
    assert found.allows("y/a", "x/b", 9090)
    by_uid = {one.uid: one for one in found.rules.pods}
    assert by_uid["x.a"].ports == ((NamedPort("TCP", "web"), 8080),) and not by_uid["x.c"].ports


def test_policies_with_the_same_peers_share_a_group() -> None:
    spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}"
    found = world(policy("x/p", spec), policy("z/q", spec)).rules
    assert {one.groups for one in found.pods if one.uid.startswith("y.")} == {
        (found.policies[0].ingress[0].peers.group,)  # type: ignore[index, union-attr]
    }
    of_namespace = "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"
    two = world(policy("x/p", of_namespace), policy("z/q", of_namespace)).rules
    assert len({group for one in two.pods for group in one.groups}) == 2, "each its own namespace's pods"


def test_pods_that_no_rule_knows_are_left_out() -> None:
    spec = (
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}"
    )
    assert [one.uid for one in world(policy("x/p", spec)).rules.pods] == ["x.a", "x.b"]
    assert not world().rules.pods


def test_the_dns_server_is_a_peer_that_no_policy_restricts() -> None:
    from kubelite.network_policies.decide import decide

    spec = (
        "{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {matchLabels: "
        "{kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], "
        "ports: [{port: dns, protocol: UDP}]}]}"
    )
    listed = [policy("kube-system/p", spec), policy("x/p", spec)]
    found = {one.uid: one for one in decide(listed, [dns_server("10.88.0.1")], {}).pods}
    server = found["dns"]
    assert server.address == "10.88.0.1" and not server.restricted and len(server.groups) == 1
    assert server.ports == ((NamedPort("UDP", "dns"), 53),)


def test_rules_are_the_same_after_a_way_through_json() -> None:
    found = world(
        policy("x/p", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]}"),
        policy("y/p", "{podSelector: {}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: '::/0'}}]}]}"),
    ).rules
    assert tuple(Policy.from_json(one.to_json()) for one in found.policies) == found.policies
    assert tuple(PodRules.from_json(one.to_json()) for one in found.pods) == found.pods
