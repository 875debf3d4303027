"""networking.k8s.io/v1 NetworkPolicy (Kubernetes 1.36), with Kubernetes' defaults."""

from itertools import chain
from typing import Literal

from pydantic import Field

from manifests.types.meta import Int32, IntOrString, LabelSelector, Model, Object, ObjectMeta, Str, empty_list

INGRESS, EGRESS = "Ingress", "Egress"


class IPBlock(Model):
    cidr: Str
    except_: list[Str] = Field(default_factory=empty_list, alias="except")


class NetworkPolicyPeer(Model):
    """Pods or addresses. A selector that is absent differs from an empty one, which selects everything."""

    ip_block: IPBlock | None = Field(None, alias="ipBlock")
    namespace_selector: LabelSelector | None = None
    pod_selector: LabelSelector | None = None


class NetworkPolicyPort(Model):
    end_port: Int32 | None = None
    port: IntOrString | None = None
    protocol: Str | None = None


class NetworkPolicyIngressRule(Model):
    from_: list[NetworkPolicyPeer] = Field(default_factory=empty_list, alias="from")
    ports: list[NetworkPolicyPort] = Field(default_factory=empty_list)


class NetworkPolicyEgressRule(Model):
    ports: list[NetworkPolicyPort] = Field(default_factory=empty_list)
    to: list[NetworkPolicyPeer] = Field(default_factory=empty_list)


class NetworkPolicySpec(Model):
    egress: list[NetworkPolicyEgressRule] = Field(default_factory=empty_list)
    ingress: list[NetworkPolicyIngressRule] = Field(default_factory=empty_list)
    pod_selector: LabelSelector | None = None
    policy_types: list[Str] = Field(default_factory=empty_list)


class NetworkPolicy(Object):
    api_version: Literal["networking.k8s.io/v1"] = "networking.k8s.io/v1"
    kind: Literal["NetworkPolicy"] = "NetworkPolicy"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: NetworkPolicySpec = Field(default_factory=NetworkPolicySpec)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_NetworkPolicy, SetDefaults_NetworkPolicyPort (pkg/apis/networking/v1/defaults.go)."""
        spec = self.spec
        spec.pod_selector = spec.pod_selector or LabelSelector()
        if not spec.policy_types:
            spec.policy_types = [INGRESS, EGRESS] if spec.egress else [INGRESS]
        listed = [rule.ports for rule in spec.ingress] + [rule.ports for rule in spec.egress]
        for port in chain.from_iterable(listed):
            port.protocol = port.protocol or "TCP"
