"""Rules of NetworkPolicies (Kubernetes pkg/apis/networking/validation/validation.go: ValidateNetworkPolicy)."""

import ipaddress
from collections.abc import Iterator

from manifests.names import port_name
from manifests.problems import Path, Problem, forbidden, invalid, not_supported, required
from manifests.types.services.network_policy import (
    EGRESS,
    INGRESS,
    IPBlock,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from manifests.validation.meta import validate_meta
from manifests.validation.pod import validate_selector
from manifests.validation.rules import formatted, port_in_range
from manifests.validation.services.addresses import PROTOCOLS, network

POLICY_TYPES = (EGRESS, INGRESS)


def network_policy_problems(found: NetworkPolicy) -> Iterator[Problem]:
    spec = found.spec
    yield from validate_meta(found.metadata)
    if spec.pod_selector is not None:
        yield from validate_selector(spec.pod_selector, ("spec", "podSelector"))
    for index, ingress in enumerate(spec.ingress):
        yield from _rule(ingress.ports, ingress.from_, "from", ("spec", "ingress", index))
    for index, egress in enumerate(spec.egress):
        yield from _rule(egress.ports, egress.to, "to", ("spec", "egress", index))
    if len(spec.policy_types) > len(POLICY_TYPES):
        yield invalid(("spec", "policyTypes"), spec.policy_types, "may not specify more than two policyTypes")
        return
    for index, value in enumerate(spec.policy_types):
        if value not in POLICY_TYPES:
            yield not_supported(("spec", "policyTypes", index), value, POLICY_TYPES)


def _rule(
    ports: list[NetworkPolicyPort], peers: list[NetworkPolicyPeer], alias: str, path: Path
) -> Iterator[Problem]:
    for index, port in enumerate(ports):
        yield from _port(port, (*path, "ports", index))
    for index, peer in enumerate(peers):
        yield from _peer(peer, (*path, alias, index))


def _port(port: NetworkPolicyPort, path: Path) -> Iterator[Problem]:
    end, here = port.end_port, (*path, "endPort")
    if port.protocol is not None and port.protocol not in PROTOCOLS:
        yield not_supported((*path, "protocol"), port.protocol, PROTOCOLS)
    if port.port is None:
        if end is not None:
            yield invalid(here, end, "may not be specified when `port` is not specified")
    elif isinstance(port.port, int):
        yield from port_in_range((*path, "port"), port.port)
        if end is not None:
            if end < port.port:
                yield invalid(here, end, "must be greater than or equal to `port`")
            yield from port_in_range(here, end)
    else:
        if end is not None:
            yield invalid(here, end, "may not be specified when `port` is non-numeric")
        yield from formatted((*path, "port"), port.port, port_name)


def _peer(peer: NetworkPolicyPeer, path: Path) -> Iterator[Problem]:
    selectors = [
        (alias, selector)
        for alias, selector in (
            ("podSelector", peer.pod_selector),
            ("namespaceSelector", peer.namespace_selector),
        )
        if selector is not None
    ]
    for alias, selector in selectors:
        yield from validate_selector(selector, (*path, alias))
    if peer.ip_block is not None:
        yield from _block(peer.ip_block, (*path, "ipBlock"))
        if selectors:
            yield forbidden(path, "may not specify both ipBlock and another peer")
    elif not selectors:
        yield required(path, "must specify a peer")


def _block(block: IPBlock, path: Path) -> Iterator[Problem]:
    if not block.cidr:
        yield required((*path, "cidr"))
        return
    wrong = list(network((*path, "cidr"), block.cidr))
    yield from wrong
    if wrong:
        return
    whole = ipaddress.ip_network(block.cidr.strip(), strict=False)
    for index, text in enumerate(block.except_):
        here = (*path, "except", index)
        wrong = list(network(here, text))
        yield from wrong
        if not wrong:
            part = ipaddress.ip_network(text.strip(), strict=False)
            inside = part.version == whole.version and part.network_address in whole
            if not inside or part.prefixlen <= whole.prefixlen:
                yield invalid(here, text, "must be a strict subset of `cidr`")
