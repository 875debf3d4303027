"""The cases of Kubernetes' tests of NetworkPolicies (test/e2e/network/netpol/network_policy.go, network_policy_api.go),
named as they are there: policies, and which connections between the nine pods they leave.

A case that changes policies or labels while it runs is a sequence of cases here. `rules`: what the policies decide,
later ones win, as in Kubernetes' Reachability.Expect; everything else is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.unit.network_policies.kit import PODS, PORTS, PROTOCOLS


@dataclass(frozen=True)
class Rule:
    """Connections from pods to pods. "": any; "x": those of a namespace; "x/a": one; "x/a y/a": some."""

    source: str = ""
    destination: str = ""
    allowed: bool = False
    port: int = 0
    protocol: str = ""

    def applies(self, source: str, destination: str, port: int, protocol: str) -> bool:
        return (
            _is(source, self.source)
            and _is(destination, self.destination)
            and self.port in (0, port)
            and self.protocol in ("", protocol)
        )


@dataclass(frozen=True)
class Case:
    name: str
    policies: dict[str, str]  # "namespace/name" → spec in YAML
    rules: tuple[Rule, ...] = ()

    def allows(self, source: str, destination: str, port: int, protocol: str) -> bool:
        """Whether the connection is allowed. A pod may always reach itself; Kubernetes' tests leave that out."""
        found = [one.allowed for one in self.rules if one.applies(source, destination, port, protocol)]
        return source == destination or (found[-1] if found else True)

    def allowed(self) -> set[tuple[str, str, int, str]]:
        return {probe for probe in EVERY if self.allows(*probe)}


EVERY = [(a, b, port, protocol) for a in PODS for b in PODS for port in PORTS for protocol in PROTOCOLS]


def _is(name: str, given: str) -> bool:
    return not given or any(name == one or name.startswith(f"{one}/") for one in given.split())


def _deny(source: str = "", destination: str = "", port: int = 0, protocol: str = "") -> Rule:
    return Rule(source, destination, False, port, protocol)


def _allow(source: str = "", destination: str = "", port: int = 0, protocol: str = "") -> Rule:
    return Rule(source, destination, True, port, protocol)


_IN_A = "podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]"
_OUT_A = "podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]"
_NS_Y = "namespaceSelector: {matchLabels: {ns: y}}"
_NS_NOT_X = "namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}"
_POD_A, _POD_B = (f"podSelector: {{matchLabels: {{pod: {name}}}}}" for name in "ab")
_PODS_AB = "podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}"

CASES = [
    Case("should support a 'default-deny-ingress' policy", {"x/p": "{podSelector: {}}"}, (_deny("", "x"),)),
    Case(
        "should support a 'default-deny-all' policy",
        {"x/p": "{podSelector: {}, policyTypes: [Ingress, Egress]}"},
        (_deny("", "x"), _deny("x", "")),
    ),
    Case(
        "should enforce policy to allow traffic from pods within server namespace based on PodSelector",
        {"x/p": f"{{{_IN_A}, ingress: [{{from: [{{{_POD_B}}}]}}]}}"},
        (_deny("", "x/a"), _allow("x/b", "x/a")),
    ),
    Case(
        "should enforce policy to allow ingress traffic for a target",
        {
            "x/deny": "{podSelector: {}}",
            "x/p": f"{{{_IN_A}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{}}}}]}}]}}",
        },
        (_deny("", "x"), _allow("", "x/a")),
    ),
    Case(
        "should enforce policy to allow ingress traffic from pods in all namespaces",
        {"x/p": f"{{{_IN_A}, ingress: [{{from: [{{namespaceSelector: {{}}}}]}}]}}"},
    ),
    Case(
        "should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector",
        {"x/p": f"{{{_IN_A}, ingress: [{{from: [{{{_NS_Y}}}]}}]}}"},
        (_deny("", "x/a"), _allow("y", "x/a")),
    ),
    Case(
        "should enforce policy based on PodSelector with MatchExpressions",
        {
            "x/p": f"{{{_IN_A}, ingress: [{{from: [{{podSelector: {{matchExpressions: "
            "[{key: pod, operator: In, values: [b]}]}}]}]}"
        },
        (_deny("", "x/a"), _allow("x/b", "x/a")),
    ),
    Case(
        "should enforce policy based on NamespaceSelector with MatchExpressions",
        {
            "x/p": f"{{{_IN_A}, ingress: [{{from: [{{namespaceSelector: {{matchExpressions: "
            "[{key: ns, operator: In, values: [y]}]}}]}]}"
        },
        (_deny("", "x/a"), _allow("y", "x/a")),
    ),
    Case(
        "should enforce policy based on PodSelector or NamespaceSelector",
        {"x/p": f"{{{_IN_A}, ingress: [{{from: [{{{_NS_NOT_X}}}, {{{_POD_B}}}]}}]}}"},
        (_deny("", "x/a"), _allow("y z", "x/a"), _allow("x/b", "x/a")),
    ),
    Case(
        "should enforce policy based on PodSelector and NamespaceSelector",
        {"x/p": f"{{{_IN_A}, ingress: [{{from: [{{{_NS_NOT_X}, {_POD_B}}}]}}]}}"},
        (_deny("", "x/a"), _allow("y/b z/b", "x/a")),
    ),
    Case(
        "should enforce policy based on Multiple PodSelectors and NamespaceSelectors",
        {"x/p": f"{{{_IN_A}, ingress: [{{from: [{{{_NS_NOT_X}, {_PODS_AB}}}]}}]}}"},
        (_deny("", "x/a"), _allow("y/a y/b z/a z/b", "x/a")),
    ),
    Case(
        "should enforce policy based on any PodSelectors",
        {
            "x/p": f"{{{_IN_A}, ingress: [{{from: [{{{_POD_A}, namespaceSelector: {{}}}}, {{{_POD_B}, {_NS_Y}}}]}}]}}"
        },
        (_deny("", "x/a"), _allow("x/a y/a z/a y/b", "x/a")),
    ),
    Case(
        "should enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and "
        "NamespaceSelector",
        {"x/p": f"{{{_IN_A}, ingress: [{{from: [{{{_NS_Y}, {_POD_A}}}]}}]}}"},
        (_deny("", "x/a"), _allow("y/a", "x/a")),
    ),
    Case(
        "should enforce policy based on Ports",
        {"x/p": f"{{{_IN_A}, ingress: [{{from: [{{{_NS_Y}}}], ports: [{{port: 81}}]}}]}}"},
        (_deny("", "x/a"), _allow("y", "x/a", 81, "TCP")),
    ),
    Case(
        "should enforce multiple, stacked policies with overlapping podSelectors",
        {
            "x/one": f"{{{_IN_A}, ingress: [{{from: [{{{_NS_Y}}}], ports: [{{port: 80}}]}}]}}",
            "x/two": f"{{{_IN_A}, ingress: [{{from: [{{{_NS_Y}}}], ports: [{{port: 81}}]}}]}}",
        },
        (_deny("", "x/a"), _allow("y", "x/a", 0, "TCP")),
    ),
    Case(
        "should support allow-all policy",
        {"x/p": "{podSelector: {}, ingress: [{}]}"},
    ),
    Case(
        "should allow ingress access on one named port",
        {"x/p": f"{{{_IN_A}, ingress: [{{ports: [{{port: serve-81-tcp}}]}}]}}"},
        (_deny("", "x/a"), _allow("", "x/a", 81, "TCP")),
    ),
    Case(
        "should allow ingress access from namespace on one named port",
        {"x/p": f"{{{_IN_A}, ingress: [{{from: [{{{_NS_Y}}}], ports: [{{port: serve-80-tcp}}]}}]}}"},
        (_deny("", "x/a"), _allow("y", "x/a", 80, "TCP")),
    ),
    Case(
        "should allow egress access on one named port",
        {"x/p": f"{{{_OUT_A}, egress: [{{ports: [{{port: serve-80-tcp}}]}}]}}"},
        (_deny("x/a"), _allow("x/a", "", 80, "TCP")),
    ),
    Case(
        "should allow egress access to server in CIDR block",
        {"x/p": f"{{{_OUT_A}, egress: [{{to: [{{ipBlock: {{cidr: Y_B/32}}}}]}}]}}"},
        (_deny("x/a"), _allow("x/a", "y/b")),
    ),
    Case(
        "should enforce except clause while egress access to server in CIDR block",
        {"x/p": f"{{{_OUT_A}, egress: [{{to: [{{ipBlock: {{cidr: 10.77.0.0/24, except: [Y_B/32]}}}}]}}]}}"},
        (_deny("x/a", "y/b"),),
    ),
    Case(
        "should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed",
        {
            "x/one": f"{{{_OUT_A}, egress: [{{to: [{{ipBlock: {{cidr: 10.77.0.0/24, except: [Y_B/32]}}}}]}}]}}",
            "x/two": f"{{{_OUT_A}, egress: [{{to: [{{ipBlock: {{cidr: Y_B/32}}}}]}}]}}",
        },
    ),
    Case(
        "should enforce policies to check ingress and egress policies can be controlled independently based on "
        "PodSelector",
        {"x/p": f"{{{_OUT_A}, egress: [{{}}]}}", "y/q": "{podSelector: {matchLabels: {pod: a}}}"},
        (_deny("", "y/a"),),
    ),
    Case(
        "should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and "
        "NamespaceSelector",
        {"x/p": f"{{{_OUT_A}, egress: [{{to: [{{{_NS_Y}, {_POD_A}}}]}}]}}"},
        (_deny("x/a"), _allow("x/a", "y/a")),
    ),
    Case(
        "should enforce ingress policy allowing any port traffic to a server on a specific protocol",
        {"x/p": f"{{{_IN_A}, ingress: [{{ports: [{{protocol: TCP}}]}}]}}"},
        (_deny("", "x/a", 0, "UDP"),),
    ),
    Case(
        "should enforce multiple ingress policies with ingress allow-all policy taking precedence",
        {
            "x/one": f"{{{_IN_A}, ingress: [{{from: [{{{_NS_Y}}}], ports: [{{port: 80}}]}}]}}",
            "x/two": "{podSelector: {}, ingress: [{}]}",
        },
    ),
    Case(
        "should enforce multiple egress policies with egress allow-all policy taking precedence",
        {"x/one": f"{{{_OUT_A}}}", "x/two": "{podSelector: {}, policyTypes: [Egress], egress: [{}]}"},
    ),
    Case(
        "should deny egress from pods based on PodSelector",
        {"x/p": f"{{{_OUT_A}}}"},
        (_deny("x/a"),),
    ),
    Case(
        "should deny egress from all pods in a namespace",
        {"x/p": "{podSelector: {}, policyTypes: [Egress]}"},
        (_deny("x"),),
    ),
    Case(
        "should work with Ingress, Egress specified together",
        {
            "x/p": "{podSelector: {matchLabels: {pod: a}}, ingress: "
            f"[{{from: [{{{_POD_B}}}]}}], egress: [{{ports: [{{port: 80}}]}}]}}"
        },
        (_deny("", "x/a"), _allow("x/b", "x/a"), _deny("x/a"), _allow("x/a", "", 80, "TCP")),
    ),
    Case(
        "should support denying of egress traffic on the client side (even if the server explicitly allows this "
        "traffic)",
        {
            "x/out": f"{{{_OUT_A}, egress: [{{to: [{{{_NS_Y}, {_POD_A}}}]}}]}}",
            "y/in": "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}",
        },
        (_deny("x/a"), _allow("x/a", "y/a")),
    ),
    Case(
        "should not mistakenly treat 'protocol: SCTP' as 'protocol: TCP', even if the plugin doesn't support SCTP",
        {"x/p": f"{{{_IN_A}, ingress: [{{ports: [{{protocol: SCTP, port: 81}}]}}]}}"},
        (_deny("", "x/a"),),
    ),
    Case(
        "should support a policy with 'endPort'",
        {"x/p": f"{{{_IN_A}, ingress: [{{ports: [{{port: 70, endPort: 80}}]}}]}}"},
        (_deny("", "x/a"), _allow("", "x/a", 80, "TCP")),
    ),
]
