"""The DNS names of a Service: a pure function of the Service and its EndpointSlices.

Source: Kubernetes' DNS specification 1.1 (https://github.com/kubernetes/dns/blob/master/docs/specification.md), and
CoreDNS' plugin `kubernetes` where that leaves a choice.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kubelite.kube.json import Json
from kubelite.services.families import IPV4, IPV6, NO_ADDRESS, canonical, cluster_ips, family_of
from runtime.dns.zone import Entry, Srv

SPREAD = 100  # CoreDNS divides this weight among the SRV records of a port


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one Service, and of the addresses that lead back to them."""

    names: Mapping[str, Entry] = field(default_factory=dict)
    pointers: Mapping[str, str] = field(default_factory=dict)


def service_names(
    service: Json, slices: Sequence[Json], domain: str, families: Collection[str] = (IPV4, IPV6)
) -> Names:
    """`slices`: those with the label `kubernetes.io/service-name` of the Service; `families`: those in which the node
    serves Services: an address of another one, from an earlier setting, leads nowhere. A Service without an address has
    no names."""
    spec = service.get("spec") or {}
    metadata = service["metadata"]
    name = f"{metadata['name']}.{metadata.get('namespace') or 'default'}.svc.{domain}".lower()
    if spec.get("type") == "ExternalName":
        return _external(name, spec.get("externalName") or "")
    addresses = cluster_ips(spec)
    if NO_ADDRESS in addresses:
        return _headless(name, slices)
    addresses = [canonical(address) for address in addresses if family_of(address) in families]
    if not addresses:
        return Names()
    names = {name: _addresses(addresses)}
    for port in spec.get("ports") or ():
        if port.get("name"):
            names[_port_name(port, name)] = Entry(srv=(Srv(port["port"], name),))
    return Names(names, dict.fromkeys(addresses, name))


def custom_names(records: Mapping[str, str]) -> dict[str, Entry]:
    """Names that the setting dns_records adds: name → addresses with `;` between them, or one other name."""
    found = {}
    for name, text in records.items():
        values = text.split(";")
        try:
            entry = _addresses(values)
        except ValueError:
            entry = Entry(cname=text.rstrip(".").lower())
        found[name.rstrip(".").lower()] = entry
    return found


def _external(name: str, target: str) -> Names:
    """2.5: an alias. A name that is an address makes no alias; Kubernetes accepts it, and no resolver can use it."""
    target = target.rstrip(".").lower()
    return Names({name: Entry(cname=target)}) if target else Names()


def _headless(name: str, slices: Sequence[Json]) -> Names:
    """2.4: a name for the addresses of all ready endpoints, and one for each endpoint. The Service's name exists
    without any endpoint, too."""
    hosts: dict[str, dict[str, None]] = {}  # name of an endpoint → its addresses, in order
    targets: dict[str, dict[Srv, None]] = {}  # name of a port → where it is
    pointers: dict[str, str] = {}
    for one in slices:
        if one.get("addressType") == "FQDN":
            continue  # its endpoints are names
        for endpoint in one.get("endpoints") or ():
            if not _is_ready(endpoint):
                continue
            for address in map(canonical, endpoint.get("addresses") or ()):
                host = f"{(endpoint.get('hostname') or _dashed(address)).lower()}.{name}"
                hosts.setdefault(host, {})[address] = None
                pointers.setdefault(address, host)
                for port in one.get("ports") or ():
                    if port.get("name") and port.get("port") is not None:
                        targets.setdefault(_port_name(port, name), {})[Srv(port["port"], host)] = None
    every = dict.fromkeys(address for addresses in hosts.values() for address in addresses)
    names = {name: _addresses(every), **{host: _addresses(addresses) for host, addresses in hosts.items()}}
    for port_name, found in targets.items():
        weight = max(1, SPREAD // len(found))
        names[port_name] = Entry(srv=tuple(Srv(srv.port, srv.target, weight=weight) for srv in found))
    return Names(names, pointers)


def _is_ready(endpoint: Json) -> bool:
    """An unset condition means ready (discovery/v1, EndpointConditions)."""
    return (endpoint.get("conditions") or {}).get("ready") is not False


def _port_name(port: Json, name: str) -> str:
    return f"_{port['name']}._{port.get('protocol') or 'TCP'}.{name}".lower()


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")


def _addresses(addresses: Iterable[str]) -> Entry:
    found = list(addresses)
    return Entry(
        a=tuple(address for address in found if ipaddress.ip_address(address).version == 4),
        aaaa=tuple(address for address in found if ipaddress.ip_address(address).version == 6),
    )
