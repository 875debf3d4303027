"""Pure: what NetworkPolicies mean for a pod: which restrict it, and of which groups it is a member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels
from kubelite.kube.objects import belongs_to_cluster
from kubelite.network_policies.compiled import Compiled, Selected
from kubelite.services.backends import container_ports
from runtime.network.policies.plan import NamedPort, PodRules

NAME_LABEL = "kubernetes.io/metadata.name"  # a label of each namespace: its name
Labels = Mapping[str, Any]
Namespaces = Mapping[str, Labels]  # labels by name, of the namespaces that a manifest defines

DNS = "dns"  # the uid that the DNS server of the node has instead of a pod's


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What rules see of a pod. `ports`: the named ports of its containers. `server`: the address of a server of the
    node that stands for a pod: rules know it as a peer, and no policy restricts it."""

    uid: str
    namespace: str
    name: str
    labels: tuple[tuple[str, Any], ...]
    ports: tuple[tuple[NamedPort, int], ...] = ()
    server: str = ""


def facts_of(pod: Json) -> PodFacts | None:
    """Return what rules see of a pod, or None if no policy of this node applies to it. A pod in the host's network
    sends the host's packets, and a pod of a cluster is subject to the cluster's policies."""
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    if spec.get("hostNetwork") or belongs_to_cluster(pod):
        return None
    ports: dict[NamedPort, int] = {}
    for port in container_ports(pod):
        if port.get("name"):  # of several with one name, the first counts (pkg/api/v1/pod: FindPort)
            ports.setdefault(
                NamedPort(port.get("protocol") or "TCP", port["name"]), int(port["containerPort"])
            )
    labels = tuple(sorted(labels_of(pod).items()))
    return PodFacts(metadata["uid"], metadata["namespace"], metadata["name"], labels, tuple(ports.items()))


def dns_server(address: str) -> PodFacts:
    """Return the node's DNS server as the pod that it is in most clusters: policies for those name it so."""
    ports = ((NamedPort("UDP", "dns"), 53), (NamedPort("TCP", "dns-tcp"), 53))
    return PodFacts(DNS, "kube-system", "dns", (("k8s-app", "kube-dns"),), ports, address)


def pod_rules(pod: PodFacts, rules: Compiled, namespaces: Namespaces) -> PodRules:
    labels = dict(pod.labels)
    own = {**namespaces.get(pod.namespace, {}), NAME_LABEL: pod.namespace}

    def is_selected(by: Selected) -> bool:
        inside = by.namespace == pod.namespace if by.namespace else matches_labels(by.namespaces, own)
        return inside and (by.pods is None or matches_labels(by.pods, labels))

    policies = (
        [policy for policy in rules.policies if is_selected(rules.targets[policy.name])]
        if not pod.server
        else []
    )
    ingress = tuple(policy.name for policy in policies if policy.ingress is not None)
    egress = tuple(policy.name for policy in policies if policy.egress is not None)
    return PodRules(
        pod.uid,
        ingress or None,
        egress or None,
        tuple(name for name, members in rules.groups.items() if any(map(is_selected, members))),
        tuple(port for port in pod.ports if port[0] in rules.named),
        pod.server,
    )
