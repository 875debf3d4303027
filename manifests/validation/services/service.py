"""Rules of Services (Kubernetes pkg/apis/core/validation/validation.go: ValidateService, ValidateServiceUpdate,
ValidateServiceClusterIPsRelatedFields). What depends on the families of the node is in `kubelite.services.families`."""

from collections.abc import Iterator

from manifests.names import dns_subdomain, qualified_name
from manifests.problems import Path, Problem, duplicate, forbidden, invalid, not_supported, required
from manifests.types.services.service import NO_ADDRESS, Service, ServicePort, ServiceSpec
from manifests.validation.meta import validate_meta
from manifests.validation.pod import validate_labels
from manifests.validation.rules import formatted, port_in_range, port_or_name
from manifests.validation.services.addresses import (
    address_of,
    dns_1035_label,
    network,
    port_names,
    protocol,
    reachable,
)

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
POLICIES = ("Cluster", "Local")
AFFINITIES = ("ClientIP", "None")
FAMILIES = ("IPv4", "IPv6")
FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
SINGLE_STACK = "SingleStack"
DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
MOST_AFFINITY = 86400  # seconds
_ONLY_LOAD_BALANCERS = "may only be used when `type` is 'LoadBalancer'"
_SPEC: Path = ("spec",)
_PORTS: Path = ("spec", "ports")


def service_problems(found: Service) -> Iterator[Problem]:
    spec = found.spec
    yield from validate_meta(found.metadata, name=dns_1035_label)
    if spec.type not in TYPES:
        yield not_supported((*_SPEC, "type"), spec.type or "", TYPES)
    if not spec.ports and not spec.headless and spec.type != "ExternalName":
        yield required(_PORTS)
    if spec.type == "ExternalName":
        yield from _external_name(spec)
    else:
        yield from _families(spec)
        yield from _cluster_ips(spec)
    yield from _ports(spec)
    yield from validate_labels(spec.selector, (*_SPEC, "selector"))
    yield from _affinity(spec)
    for index, address in enumerate(spec.external_ips):
        yield from reachable((*_SPEC, "externalIPs", index), address)
    yield from _load_balancer(spec)
    yield from _traffic(spec)


def service_update_problems(old: Service, new: Service) -> Iterator[Problem]:
    before, after = old.spec, new.spec
    if "ExternalName" not in (before.type, after.type):
        yield from _cluster_ips_update(before, after)
        yield from _families_update(before, after)
    if (
        before.type == after.type == "LoadBalancer"
        and before.load_balancer_class != after.load_balancer_class
    ):
        yield invalid((*_SPEC, "loadBalancerClass"), after.load_balancer_class, "may not change once set")
    if _needs_health_check(before) and _needs_health_check(after):
        had, has = before.health_check_node_port, after.health_check_node_port
        if had and had != has:
            yield forbidden((*_SPEC, "healthCheckNodePort"), "field is immutable")


def _cluster_ips_update(before: ServiceSpec, after: ServiceSpec) -> Iterator[Problem]:
    """Kubernetes: validateUpgradeDowngradeClusterIPs."""
    path, had, has = (*_SPEC, "clusterIPs"), before.addresses, after.addresses
    if had and not has:
        yield invalid((*path, 0), has, "primary clusterIP can not be unset")
    for index, (old, new) in enumerate(zip(had, has, strict=False)):
        if old != new:
            yield invalid((*path, index), new, "may not change once set")
    if len(had) > len(has) == 1 and after.ip_family_policy != SINGLE_STACK:
        sentence = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        yield invalid((*_SPEC, "ipFamilyPolicy"), after.ip_family_policy or "", sentence)


def _families_update(before: ServiceSpec, after: ServiceSpec) -> Iterator[Problem]:
    """Kubernetes: validateUpgradeDowngradeIPFamilies. A headless Service may change its families."""
    had, has = before.ip_families, after.ip_families
    if before.headless or after.headless:
        return
    if any(old != new for old, new in zip(had, has, strict=False)):
        yield invalid((*_SPEC, "ipFamilies", 0), has[0], "may not change once set")
    if len(had) > len(has) == 1 and after.ip_family_policy != SINGLE_STACK:
        sentence = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        yield invalid((*_SPEC, "ipFamilyPolicy"), after.ip_family_policy or "", sentence)


def _external_name(spec: ServiceSpec) -> Iterator[Problem]:
    given = {
        "clusterIPs": spec.addresses,
        "ipFamilies": spec.ip_families,
        "ipFamilyPolicy": spec.ip_family_policy,
    }
    for alias, value in given.items():
        if value:
            yield forbidden((*_SPEC, alias), "may not be set for ExternalName services")
    name = (spec.external_name or "").removesuffix(".")  # a dot at the end: a fully qualified name
    if not name:
        yield required((*_SPEC, "externalName"))
    else:
        yield from formatted((*_SPEC, "externalName"), name, dns_subdomain)


def _families(spec: ServiceSpec) -> Iterator[Problem]:
    path, policy = (*_SPEC, "ipFamilies"), spec.ip_family_policy
    if policy and policy not in FAMILY_POLICIES:
        yield not_supported((*_SPEC, "ipFamilyPolicy"), policy, FAMILY_POLICIES)
    for index, family in enumerate(spec.ip_families):
        if family not in FAMILIES:
            yield not_supported((*path, index), family, FAMILIES)
        elif family in spec.ip_families[:index]:
            yield duplicate((*path, index), family)


def _cluster_ips(spec: ServiceSpec) -> Iterator[Problem]:
    path, given = (*_SPEC, "clusterIPs"), spec.addresses
    if spec.headless and spec.type in ("LoadBalancer", "NodePort"):
        yield invalid((*path, 0), NO_ADDRESS, f"may not be set to 'None' for {spec.type} services")
    if not spec.cluster_ip and given:
        yield invalid(path, given, "must be empty when `clusterIP` is not specified")
    elif given and given[0] != spec.cluster_ip:
        yield invalid(path, given, "first value must match `clusterIP`")
    if len(given) > 2:
        yield invalid(path, given, "may only hold up to 2 values")
    if given[:1] == [NO_ADDRESS]:
        if len(given) > 1:
            yield invalid(path, given, "'None' must be the first and only value")
        return
    addresses = [address_of(value) for value in given]
    if None in addresses:
        for index, value in enumerate(given):
            if addresses[index] is None:
                sentence = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                yield invalid((*path, index), value, sentence)
        return
    versions = [address.version for address in addresses if address is not None]
    if len(versions) > 1 and len(set(versions)) == 1:
        yield invalid(path, given, "may specify no more than one IP for each IP family")
    for index, (version, family) in enumerate(zip(versions, spec.ip_families, strict=False)):
        if f"IPv{version}" != family and family in FAMILIES:
            sentence = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            yield invalid((*path, index), given[index], sentence)


def _ports(spec: ServiceSpec) -> Iterator[Problem]:
    yield from port_names(_PORTS, [port.name for port in spec.ports], needed=len(spec.ports) > 1)
    seen: set[tuple[str | None, int]] = set()
    node_ports: set[tuple[str | None, int]] = set()
    for index, port in enumerate(spec.ports):
        here = (*_PORTS, index)
        yield from _port(port, here)
        if port.node_port and spec.type == "ClusterIP":
            yield forbidden((*here, "nodePort"), "may not be used when `type` is 'ClusterIP'")
        if port.node_port and (port.protocol, port.node_port) in node_ports:
            yield duplicate((*here, "nodePort"), port.node_port)
        if (port.protocol, port.port) in seen:
            yield duplicate(here, {"port": port.port, "protocol": port.protocol})
        node_ports.add((port.protocol, port.node_port or 0))
        seen.add((port.protocol, port.port))


def _port(port: ServicePort, path: Path) -> Iterator[Problem]:
    yield from port_in_range((*path, "port"), port.port)
    yield from protocol((*path, "protocol"), port.protocol)
    if port.target_port is not None:
        yield from port_or_name((*path, "targetPort"), port.target_port)
    if port.app_protocol is not None:
        yield from formatted((*path, "appProtocol"), port.app_protocol, qualified_name)
    if port.node_port:
        yield from port_in_range((*path, "nodePort"), port.node_port)


def _affinity(spec: ServiceSpec) -> Iterator[Problem]:
    kind, config = spec.session_affinity or "", spec.session_affinity_config
    if kind not in AFFINITIES:
        yield not_supported((*_SPEC, "sessionAffinity"), kind, AFFINITIES)
    elif kind == "ClientIP" and config is not None and config.client_ip is not None:
        seconds = config.client_ip.timeout_seconds
        if seconds is not None and not 0 < seconds <= MOST_AFFINITY:
            path = (*_SPEC, "sessionAffinityConfig", "clientIP", "timeoutSeconds")
            yield invalid(path, seconds, f"must be greater than 0 and less than {MOST_AFFINITY}")


def _load_balancer(spec: ServiceSpec) -> Iterator[Problem]:
    ranges, name = spec.load_balancer_source_ranges, spec.load_balancer_class
    path = (*_SPEC, "loadBalancerSourceRanges")
    if spec.type != "LoadBalancer":
        if ranges:
            yield forbidden(path, _ONLY_LOAD_BALANCERS)
        if spec.allocate_load_balancer_node_ports is not None:
            yield forbidden((*_SPEC, "allocateLoadBalancerNodePorts"), _ONLY_LOAD_BALANCERS)
        if name is not None:
            yield forbidden((*_SPEC, "loadBalancerClass"), _ONLY_LOAD_BALANCERS)
    for index, value in enumerate(ranges):
        yield from network((*path, index), value)
    if name is not None:
        yield from formatted((*_SPEC, "loadBalancerClass"), name, qualified_name)


def _traffic(spec: ServiceSpec) -> Iterator[Problem]:
    external, internal = spec.external_traffic_policy, spec.internal_traffic_policy
    path = (*_SPEC, "externalTrafficPolicy")
    if external and not spec.externally_accessible:
        yield invalid(path, external, "may only be set for externally-accessible services")
    elif external and external not in POLICIES:
        yield not_supported(path, external, POLICIES)
    if internal and internal not in POLICIES:
        yield not_supported((*_SPEC, "internalTrafficPolicy"), internal, POLICIES)
    if spec.health_check_node_port:
        path = (*_SPEC, "healthCheckNodePort")
        if _needs_health_check(spec):
            yield from port_in_range(path, spec.health_check_node_port)
        else:
            sentence = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            yield invalid(path, spec.health_check_node_port, sentence)
    if spec.traffic_distribution and spec.traffic_distribution not in DISTRIBUTIONS:
        yield not_supported((*_SPEC, "trafficDistribution"), spec.traffic_distribution, DISTRIBUTIONS)


def _needs_health_check(spec: ServiceSpec) -> bool:
    return spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"
