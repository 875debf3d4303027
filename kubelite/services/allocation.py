"""Pure: addresses and node ports of Services. What a Service has, it keeps; what it asks for, it gets if it is free;
the rest is chosen.

Source: Kubernetes pkg/registry/core/service (storage/alloc.go, ipallocator, portallocator; patchAllocatedValues).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kubelite.kube.json import Json

NO_ADDRESS = "None"
Name = tuple[str, str]  # namespace and name


@dataclass(frozen=True, slots=True)
class Ranges:
    """`cidr`: the IPv4 network of cluster IPs. `node_ports`: the first and the last node port."""

    cidr: str
    node_ports: tuple[int, int] = (30000, 32767)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a Service cannot have what it asks for. `field`: as in `spec.ports[0].nodePort`."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """Services with their addresses and ports, and those that cannot have what they ask for."""

    services: Mapping[Name, Json] = field(default_factory=dict)
    refused: Mapping[Name, Refusal] = field(default_factory=dict)


def needs_address(spec: Json) -> bool:
    return spec.get("type") != "ExternalName" and spec.get("clusterIP") != NO_ADDRESS


def needs_node_ports(spec: Json) -> bool:
    """Kubernetes: shouldAllocateNodePorts (pkg/registry/core/service/storage/alloc.go)."""
    if spec.get("type") == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort"


def with_allocated(old: Json, new: Json) -> Json:
    """Return the spec of an edited Service with what it already has and does not name anew. `old`, `new`: specs.

    Kubernetes: patchAllocatedValues (pkg/registry/core/service/storage/storage.go)."""
    kept = dict(new)
    if old.get("type") != "ExternalName" and new.get("type") != "ExternalName" and not new.get("clusterIP"):
        for key in ("clusterIP", "clusterIPs"):
            if key in old:
                kept[key] = old[key]
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
    done: dict[Name, Json] = {}
    # First what manifests name, so that nothing is chosen that another manifest asks for.
    for name in sorted(wanted):
        if (refusal := pool.claim(name, wanted[name]["spec"])) is not None:
            refused[name] = refusal
    for name in sorted(wanted):
        if name in refused:
            continue
        spec = pool.complete(name, wanted[name]["spec"])
        if isinstance(spec, Refusal):
            refused[name] = spec
        else:
            done[name] = wanted[name] if spec is wanted[name]["spec"] else {**wanted[name], "spec": spec}
    return Allocation(done, refused)


class _Pool:
    """Who has which address and which node port."""

    def __init__(self, ranges: Ranges, held: Mapping[Name, Json]) -> None:
        self._ranges = ranges
        self._network = ipaddress.IPv4Network(ranges.cidr)
        self._addresses: dict[str, Name] = {}
        self._ports: dict[int, Name] = {}
        for name, doc in held.items():
            spec = doc.get("spec") or {}
            if address := _address(spec):
                self._addresses.setdefault(address, name)
            for port in _node_ports(spec):
                self._ports.setdefault(port, name)

    def claim(self, name: Name, spec: Json) -> Refusal | None:
        """Reserve what a Service names. Nothing is reserved if anything of it cannot be had."""
        address = _address(spec)
        if address and (said := self._address_refused(name, address)):
            return Refusal(
                "spec.clusterIPs", f'Invalid value: ["{address}"]: failed to allocate IP {address}: {said}'
            )
        for index, port in enumerate(spec.get("ports") or ()):
            number = port.get("nodePort")
            if number and (said := self._port_refused(name, number)):
                return Refusal(f"spec.ports[{index}].nodePort", f"Invalid value: {number}: {said}")
        if address:
            self._addresses[address] = name
        self._ports.update(dict.fromkeys(_node_ports(spec), name))
        return None

    def complete(self, name: Name, spec: Json) -> Json | Refusal:
        """Return the spec with an address and node ports, the same spec if it lacks nothing."""
        if needs_address(spec) and not spec.get("clusterIP"):
            address = self._free_address(name)
            if address is None:
                message = f"Internal error: failed to allocate a serviceIP: range {self._ranges.cidr} is full"
                return Refusal("spec.clusterIP", message)
            self._addresses[address] = name
            spec = {**spec, "clusterIP": address, "clusterIPs": [address]}
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
        holder = self._addresses.get(address)
        if holder not in (None, name):
            return f"provided IP is already allocated to service {'/'.join(holder or ())}"
        if holder == name:  # it has it already, perhaps from another range
            return ""
        inside = ipaddress.IPv4Address(address) in self._network
        if not inside or address in map(str, (self._network[0], self._network[-1])):
            cidr = self._ranges.cidr
            return f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {cidr}"
        return ""

    def _port_refused(self, name: Name, number: int) -> str:
        holder, (first, last) = self._ports.get(number), self._ranges.node_ports
        if holder not in (None, name):
            return f"provided port is already allocated to service {'/'.join(holder or ())}"
        if holder is None and not first <= number <= last:
            return f"provided port is not in the valid range. The range of valid ports is {first}-{last}"
        return ""

    def _free_address(self, name: Name) -> str | None:
        """Return a free address. The search begins at a place that the name decides, so a node that has lost its
        records gives the same one. Addresses that manifests are likely to name come last: the first ones, as in
        Kubernetes (KEP-3070)."""
        size = self._network.num_addresses
        low = min(max(16, size // 16), 256)
        upper = range(low, size - 1) if size - 1 > low else range(0)
        start = _number("/".join(name)) % len(upper) if upper else 0
        for offset in (*upper[start:], *upper[:start], *range(1, min(low, size - 1))):
            if (address := str(self._network[offset])) not in self._addresses:
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


def _address(spec: Json) -> str:
    """Return a Service's address, "" if it has none."""
    found = spec.get("clusterIP") or ""
    return "" if found == NO_ADDRESS or spec.get("type") == "ExternalName" else str(found)


def _node_ports(spec: Json) -> list[int]:
    return [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
