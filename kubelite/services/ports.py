"""Pure: what the data path needs of a Service: where each of its ports is reachable, and where its packets go.

Source: Kubernetes pkg/proxy (serviceport.go: newBaseServiceInfo; topology.go: CategorizeEndpoints) and KEP-1669, which
lets terminating endpoints serve when there are no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kubelite.kube.json import Json
from kubelite.services.families import IPV4, IPV6, canonical, cluster_ips, families_of, family_of
from runtime.network.services.plan import Endpoint, ServiceCount, ServicePort

AFFINITY = 10800  # seconds
_NOBODY = {IPV4: "0.0.0.0/32", IPV6: "::/128"}  # addresses that no packet comes from


@dataclass(frozen=True, slots=True)
class EndpointCount:
    """The packets and bytes that an endpoint of a Service's port has received and sent. `port`: its name or number;
    `address`: the endpoint's, with its own port `number`."""

    namespace: str
    service: str
    port: str
    protocol: str
    address: str
    number: int
    received: tuple[int, int]
    sent: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Target:
    """An endpoint of a slice. `local`: it is on this node."""

    endpoint: Endpoint
    ready: bool
    serving: bool
    terminating: bool
    local: bool


def service_ports(service: Json, slices: Iterable[Json], node: str) -> tuple[ServicePort, ...]:
    """Return the ports of a Service; none if it has no address of its own. `slices`: those with its name; `node`: the
    name of this node."""
    spec = service.get("spec") or {}
    address = spec.get("clusterIP") or ""
    if spec.get("type") == "ExternalName" or address in ("", "None"):
        return ()
    listed = list(slices)
    return tuple(_port(service, port, listed, node) for port in spec.get("ports") or ())


def port_name(service: Json, port: Json) -> str:
    """Return the identity of a port: "namespace/name:port/protocol"; `port` is its name or number."""
    metadata = service["metadata"]
    own = port.get("name") or port["port"]
    return f"{metadata['namespace']}/{metadata['name']}:{own}/{port.get('protocol', 'TCP')}"


def endpoint_count(counted: ServiceCount) -> EndpointCount:
    """Say whose endpoint it is that the kernel has counted, from the name of the port (see port_name)."""
    service, _, port = counted.name.rpartition(":")
    namespace, _, name = service.partition("/")
    own, _, protocol = port.partition("/")
    received = counted.received_packets, counted.received_bytes
    sent = counted.sent_packets, counted.sent_bytes
    where = counted.endpoint
    return EndpointCount(namespace, name, own, protocol, where.ip, where.port, received, sent)


def _port(service: Json, port: Json, slices: Sequence[Json], node: str) -> ServicePort:
    spec = service["spec"]
    targets = list(_targets(port, slices, node, families_of(spec)))
    outside = spec.get("externalTrafficPolicy") == "Local"
    internal = _chosen(targets, local=spec.get("internalTrafficPolicy") == "Local")
    return ServicePort(
        name=port_name(service, port),
        protocol=port.get("protocol", "TCP"),
        port=port["port"],
        addresses=tuple(map(canonical, cluster_ips(spec))),
        external=external_addresses(service),
        node_port=port.get("nodePort", 0) if spec.get("type") in ("NodePort", "LoadBalancer") else 0,
        endpoints=internal,
        external_endpoints=_chosen(targets, local=outside),
        affinity=_affinity(spec),
        preserve_source=outside,
        sources=_sources(spec),
    )


def reached(ports: Iterable[ServicePort]) -> set[str]:
    """Return the addresses to which ports lead new connections."""
    return {one.ip for port in ports for one in (*port.endpoints, *port.external_endpoints)}


def ready_endpoints(service: Json, port: Json, slices: Iterable[Json], node: str) -> tuple[Endpoint, ...]:
    """Return the endpoints of a Service's port that get traffic, of a headless Service, too. Those of its first family
    that has any: a proxy of HTTP needs one address of each pod."""
    listed = list(slices)
    for family in families_of(service["spec"]):
        if found := _chosen(list(_targets(port, listed, node, (family,))), local=False):
            return found
    return ()


def external_addresses(service: Json) -> tuple[str, ...]:
    """Return externalIPs, and the addresses of a load balancer at which traffic arrives, of the Service's families."""
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    ingress = [
        one.get("ip", "") for one in balancer.get("ingress") or () if one.get("ipMode", "VIP") == "VIP"
    ]
    given = (service.get("spec") or {}).get("externalIPs") or ()
    families = families_of(service.get("spec") or {})
    listed = (canonical(ip) for ip in (*given, *ingress) if ip and family_of(ip) in families)
    return tuple(dict.fromkeys(listed))


def _affinity(spec: Json) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    client = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(client.get("timeoutSeconds", AFFINITY))


def _sources(spec: Json) -> tuple[str, ...]:
    """Return the networks that may connect from outside, () for all. Ranges of one family do not open the other one,
    as they do in kube-proxy: nobody may connect by it."""
    if spec.get("type") != "LoadBalancer":
        return ()
    given = [text.strip() for text in spec.get("loadBalancerSourceRanges") or ()]
    found: list[str] = []
    for family in families_of(spec) if given else ():
        found += [text for text in given if family_of(text) == family] or [_NOBODY[family]]
    return tuple(found)


def _targets(port: Json, slices: Iterable[Json], node: str, families: Sequence[str]) -> Iterator[_Target]:
    name, protocol = port.get("name", ""), port.get("protocol", "TCP")
    for one in slices:
        if one.get("addressType") not in families:
            continue
        numbers = [
            found["port"]
            for found in one.get("ports") or ()
            if found.get("port") and (found.get("name", ""), found.get("protocol", "TCP")) == (name, protocol)
        ]
        for endpoint in one.get("endpoints") or () if numbers else ():
            conditions = endpoint.get("conditions") or {}
            ready = conditions.get("ready") is not False
            serving = conditions.get("serving", ready) is not False
            local = bool(node) and endpoint.get("nodeName") == node
            terminating = bool(conditions.get("terminating"))
            for number in numbers:
                target = Endpoint(canonical(endpoint["addresses"][0]), number)
                yield _Target(target, ready, serving, terminating, local)


def _chosen(targets: Iterable[_Target], *, local: bool) -> tuple[Endpoint, ...]:
    """Return the ready endpoints, or those that serve while they terminate if there is none; of each family apart."""
    usable = [one for one in targets if one.local or not local]
    chosen: list[Endpoint] = []
    for family in (IPV4, IPV6):
        own = [one for one in usable if family_of(one.endpoint.ip) == family]
        ready = [one.endpoint for one in own if one.ready]
        chosen += ready or [one.endpoint for one in own if one.serving and one.terminating]
    return tuple(sorted(set(chosen), key=lambda one: (one.ip, one.port)))
