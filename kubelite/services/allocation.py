"""Pure: addresses and node ports of Services. What a Service has, it keeps; what it asks for, it gets if it is free;
the rest is chosen. Each IP family has its own range.

Source: Kubernetes pkg/registry/core/service (storage/alloc.go, ipallocator, portallocator; patchAllocatedValues).
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from kubelite.kube.json import Json
from kubelite.services.families import (
    EXTERNAL_NAME,
    IPV4,
    IPV6,
    NO_ADDRESS,
    SINGLE,
    Refusal,
    canonical,
    cluster_ips,
    families_of,
    family_of,
    with_families,
)

Name = tuple[str, str]  # namespace and name
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Ranges:
    """`cidr`: the IPv4 network of cluster IPs. `node_ports`: the first and the last node port. `cidr6`: the IPv6
    network of cluster IPs, "" if Services have IPv4 alone."""

    cidr: str
    node_ports: tuple[int, int] = (30000, 32767)
    cidr6: str = ""

    @property
    def networks(self) -> dict[str, Network]:
        """The networks by family, the default family first."""
        found: dict[str, Network] = {IPV4: ipaddress.IPv4Network(self.cidr)}
        return {**found, IPV6: ipaddress.IPv6Network(self.cidr6)} if self.cidr6 else found


@dataclass(frozen=True, slots=True)
class Allocation:
    """Services with their addresses and ports, and those that cannot have what they ask for."""

    services: Mapping[Name, Json] = field(default_factory=dict)
    refused: Mapping[Name, Refusal] = field(default_factory=dict)


def needs_node_ports(spec: Json) -> bool:
    """Kubernetes: shouldAllocateNodePorts (pkg/registry/core/service/storage/alloc.go)."""
    if spec.get("type") == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort"


def with_allocated(old: Json, new: Json) -> Json:
    """Return the spec of an edited Service with what it already has and does not name anew. `old`, `new`: specs. A list
    of addresses or families that names the first one alone means what it meant when the Service was created.

    Kubernetes: patchAllocatedValues (pkg/registry/core/service/storage/storage.go)."""
    kept = dict(new)
    if EXTERNAL_NAME not in (old.get("type"), new.get("type")):
        kept |= {
            key: old[key] for key in ("clusterIP", "ipFamilyPolicy") if old.get(key) and not new.get(key)
        }
        single = kept.get("ipFamilyPolicy") == SINGLE  # the way to release the second address
        same = kept.get("clusterIP") == old.get("clusterIP")
        for name in ("clusterIPs", "ipFamilies") if same else ("ipFamilies",):
            given, had = new.get(name) or [], old.get(name) or []
            if had and given == had[: len(given)]:
                kept[name] = (given or had[:1]) if single else had
    if _uses_node_ports(old) and _uses_node_ports(new):
        kept["ports"] = list(_with_node_ports(old.get("ports") or (), new.get("ports") or ()))
    return kept


def _uses_node_ports(spec: Json) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


def _with_node_ports(old: Iterable[Json], new: Iterable[Json]) -> Iterator[Json]:
    had = {port.get("name", ""): port["nodePort"] for port in old if port.get("nodePort")}
    named = {port["nodePort"] for port in new if port.get("nodePort")}
    for port in new:
        kept = had.get(port.get("name", ""))
        yield {**port, "nodePort": kept} if kept and kept not in named and not port.get("nodePort") else port


def allocate(wanted: Mapping[Name, Json], held: Mapping[Name, Json], ranges: Ranges) -> Allocation:
    """Return the wanted Services (documents by name) with addresses and node ports. `held`: the recorded Services;
    none loses what it has to another one."""
    pool = _Pool(ranges, held)
    refused: dict[Name, Refusal] = {}
    specs: dict[Name, Json] = {}
    configured = tuple(ranges.networks)
    # First what manifests name, so that nothing is chosen that another manifest asks for.
    for name in sorted(wanted):
        old = held[name].get("spec") if name in held else None
        spec = with_families(old, wanted[name]["spec"], configured)
        if isinstance(spec, Refusal):
            refused[name] = spec
        elif (refusal := pool.claim(name, spec)) is not None:
            refused[name] = refusal
        else:
            specs[name] = spec
    done: dict[Name, Json] = {}
    for name, given in specs.items():
        spec = pool.complete(name, given)
        if isinstance(spec, Refusal):
            refused[name] = spec
        else:
            done[name] = wanted[name] if spec is wanted[name]["spec"] else {**wanted[name], "spec": spec}
    return Allocation(done, refused)


class _Pool:
    """Who has which address and which node port."""

    def __init__(self, ranges: Ranges, held: Mapping[Name, Json]) -> None:
        self._ranges = ranges
        self._networks = ranges.networks
        self._addresses: dict[str, Name] = {}
        self._ports: dict[int, Name] = {}
        for name, doc in held.items():
            spec = doc.get("spec") or {}
            for address in _addresses(spec):
                self._addresses.setdefault(canonical(address), name)
            for port in _node_ports(spec):
                self._ports.setdefault(port, name)

    def claim(self, name: Name, spec: Json) -> Refusal | None:
        """Reserve what a Service names. Nothing is reserved if anything of it cannot be had."""
        addresses = _addresses(spec)
        for address in addresses:
            if said := self._address_refused(name, address):
                listed = json.dumps(addresses, separators=(",", ":"))
                message = f"Invalid value: {listed}: failed to allocate IP {address}: {said}"
                return Refusal("spec.clusterIPs", message)
        for index, port in enumerate(spec.get("ports") or ()):
            number = port.get("nodePort")
            if number and (said := self._port_refused(name, number)):
                return Refusal(f"spec.ports[{index}].nodePort", f"Invalid value: {number}: {said}")
        self._addresses.update((canonical(address), name) for address in addresses)
        self._ports.update(dict.fromkeys(_node_ports(spec), name))
        return None

    def complete(self, name: Name, spec: Json) -> Json | Refusal:
        """Return the spec with an address of each family and node ports, the same spec if it lacks nothing."""
        addresses = cluster_ips(spec)
        if spec.get("type") != EXTERNAL_NAME and NO_ADDRESS not in addresses:
            for family in families_of(spec)[len(addresses) :]:
                address = self._free_address(name, self._networks[family])
                if address is None:
                    words = f"failed to allocate a serviceIP: range {self._networks[family]} is full"
                    return Refusal("spec.clusterIP", f"Internal error: {words}")
                self._addresses[address] = name
                addresses.append(address)
            if addresses != spec.get("clusterIPs") or not spec.get("clusterIP"):
                spec = {**spec, "clusterIP": addresses[0], "clusterIPs": addresses}
        missing = any(not port.get("nodePort") for port in spec.get("ports") or ())
        return self._with_ports(name, spec) if needs_node_ports(spec) and missing else spec

    def _with_ports(self, name: Name, spec: Json) -> Json | Refusal:
        """One number serves a port of several protocols, as that of a DNS server has."""
        chosen = {port["port"]: port["nodePort"] for port in spec["ports"] if port.get("nodePort")}
        used: set[tuple[str, int]] = {
            (port.get("protocol", "TCP"), port["nodePort"]) for port in spec["ports"] if port.get("nodePort")
        }
        ports = []
        for index, port in enumerate(spec["ports"]):
            number, protocol = port.get("nodePort"), port.get("protocol", "TCP")
            if not number:
                number = chosen.get(port["port"])
                if number is None or (protocol, number) in used:
                    number = self._free_port(f"{name}:{port['port']}/{protocol}")
                if number is None:
                    first, last = self._ranges.node_ports
                    message = f"Internal error: failed to allocate a nodePort: range {first}-{last} is full"
                    return Refusal(f"spec.ports[{index}].nodePort", message)
                port = {**port, "nodePort": number}  # noqa: PLW2901 - the port as it is from here on
            self._ports[number] = name
            chosen.setdefault(port["port"], number)
            used.add((protocol, number))
            ports.append(port)
        return {**spec, "ports": ports}

    def _address_refused(self, name: Name, address: str) -> str:
        holder = self._addresses.get(canonical(address))
        if holder not in (None, name):
            return f"provided IP is already allocated to service {'/'.join(holder or ())}"
        if holder == name:  # it has it already, perhaps from another range
            return ""
        network = self._networks.get(family_of(address))
        parsed = ipaddress.ip_address(address)
        if network is None or parsed not in network or int(parsed) - int(network[0]) not in _usable(network):
            return (
                f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {network}"
            )
        return ""

    def _port_refused(self, name: Name, number: int) -> str:
        holder, (first, last) = self._ports.get(number), self._ranges.node_ports
        if holder not in (None, name):
            return f"provided port is already allocated to service {'/'.join(holder or ())}"
        if holder is None and not first <= number <= last:
            return f"provided port is not in the valid range. The range of valid ports is {first}-{last}"
        return ""

    def _free_address(self, name: Name, network: Network) -> str | None:
        """Return a free address. The search begins at a place that the name decides, so a node that has lost its
        records gives the same one. Addresses that manifests are likely to name come last: the first ones, as in
        Kubernetes (KEP-3070)."""
        usable = _usable(network)
        low = min(max(16, network.num_addresses // 16), 256)
        upper = range(low, max(low, usable.stop))
        start = _number("/".join(name)) % (upper.stop - low) if upper else 0  # len() fails for a /64
        for offset in chain(upper[start:], upper[:start], range(1, min(low, usable.stop))):
            if (address := str(network[offset])) not in self._addresses:
                return address
        return None

    def _free_port(self, text: str) -> int | None:
        """Return a free node port. The first ones come last, as in Kubernetes (KEP-3668)."""
        first, last = self._ranges.node_ports
        size = last - first + 1
        low = min(max(16, size // 32), 128) if size > 16 else 0
        upper = range(first + low, last + 1)
        start = _number(text) % len(upper)
        ordered = (*upper[start:], *upper[:start], *range(first, first + low))
        return next((port for port in ordered if port not in self._ports), None)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _usable(network: Network) -> range:
    """Return the offsets of a network's addresses that Services get: not the first one, nor an IPv4 network's last,
    which is for broadcasts (Kubernetes: ipallocator)."""
    return range(1, network.num_addresses - (1 if network.version == 4 else 0))


def _addresses(spec: Json) -> list[str]:
    """Return a Service's addresses, [] if it has none."""
    found = cluster_ips(spec)
    return [] if NO_ADDRESS in found or spec.get("type") == EXTERNAL_NAME else found


def _node_ports(spec: Json) -> list[int]:
    return [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
