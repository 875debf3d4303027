"""Rules of Endpoints (Kubernetes pkg/apis/core/validation/validation.go: ValidateEndpoints) and EndpointSlices
(pkg/apis/discovery/validation/validation.go: ValidateEndpointSlice)."""

from collections.abc import Iterator

from manifests.names import dns_label, dns_subdomain, qualified_name
from manifests.problems import Path, Problem, invalid, not_supported, required
from manifests.types.services.endpoints import (
    Endpoint,
    EndpointAddress,
    Endpoints,
    EndpointSlice,
    EndpointSubset,
)
from manifests.validation.meta import validate_meta
from manifests.validation.rules import formatted, port_in_range
from manifests.validation.services.addresses import address_of, port_names, protocol, reachable

ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
MOST_ENDPOINTS, MOST_PORTS, MOST_ADDRESSES = 1000, 20000, 100


def endpoints_problems(found: Endpoints) -> Iterator[Problem]:
    yield from validate_meta(found.metadata)
    for index, subset in enumerate(found.subsets):
        yield from _subset(subset, ("subsets", index))


def _subset(subset: EndpointSubset, path: Path) -> Iterator[Problem]:
    if not subset.addresses and not subset.not_ready_addresses:
        yield required(path, "must specify `addresses` or `notReadyAddresses`")
    for alias, addresses in (
        ("addresses", subset.addresses),
        ("notReadyAddresses", subset.not_ready_addresses),
    ):
        for index, address in enumerate(addresses):
            yield from _address(address, (*path, alias, index))
    names = [port.name for port in subset.ports]
    yield from port_names((*path, "ports"), names, needed=len(names) > 1)
    for index, port in enumerate(subset.ports):
        here = (*path, "ports", index)
        yield from port_in_range((*here, "port"), port.port)
        yield from protocol((*here, "protocol"), port.protocol)
        if port.app_protocol is not None:
            yield from formatted((*here, "appProtocol"), port.app_protocol, qualified_name)


def _address(address: EndpointAddress, path: Path) -> Iterator[Problem]:
    yield from reachable((*path, "ip"), address.ip)
    if address.hostname:
        yield from formatted((*path, "hostname"), address.hostname, dns_label)
    if address.node_name:
        yield from formatted((*path, "nodeName"), address.node_name, dns_subdomain)


def endpoint_slice_problems(found: EndpointSlice) -> Iterator[Problem]:
    yield from validate_meta(found.metadata)
    if not found.address_type:
        yield required(("addressType",))
    elif found.address_type not in ADDRESS_TYPES:
        yield not_supported(("addressType",), found.address_type, ADDRESS_TYPES)
    if len(found.endpoints) > MOST_ENDPOINTS:
        yield Problem(
            ("endpoints",), f"Too many: {len(found.endpoints)}: must have at most {MOST_ENDPOINTS} items"
        )
    for index, endpoint in enumerate(found.endpoints):
        yield from _endpoint(endpoint, found.address_type, ("endpoints", index))
    if len(found.ports) > MOST_PORTS:
        yield Problem(("ports",), f"Too many: {len(found.ports)}: must have at most {MOST_PORTS} items")
    yield from port_names(("ports",), [port.name for port in found.ports], needed=len(found.ports) > 1)
    for index, port in enumerate(found.ports):
        yield from protocol(("ports", index, "protocol"), port.protocol)
        if port.port is not None:
            yield from port_in_range(("ports", index, "port"), port.port)
        if port.app_protocol is not None:
            yield from formatted(("ports", index, "appProtocol"), port.app_protocol, qualified_name)


def endpoint_slice_update_problems(old: EndpointSlice, new: EndpointSlice) -> Iterator[Problem]:
    if old.address_type != new.address_type:
        yield invalid(("addressType",), new.address_type, "field is immutable")


def _endpoint(endpoint: Endpoint, kind: str, path: Path) -> Iterator[Problem]:
    here = (*path, "addresses")
    if not endpoint.addresses:
        yield required(here, "must contain at least 1 address")
    elif len(endpoint.addresses) > MOST_ADDRESSES:
        count = len(endpoint.addresses)
        yield Problem(here, f"Too many: {count}: must have at most {MOST_ADDRESSES} items")
    for index, value in enumerate(endpoint.addresses):
        if kind == "FQDN":
            yield from formatted((*here, index), value, dns_subdomain)
            continue
        address, version = address_of(value), 6 if kind == "IPv6" else 4
        if address is not None and address.version != version:
            yield invalid((*here, index), value, f"must be an IPv{version} address")
        else:
            yield from reachable((*here, index), value)
    if endpoint.hostname:
        yield from formatted((*path, "hostname"), endpoint.hostname, dns_label)
    if endpoint.node_name:
        yield from formatted((*path, "nodeName"), endpoint.node_name, dns_subdomain)
