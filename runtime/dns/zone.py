"""The zone that the node serves, as plain values: the daemon writes it as a JSON file, the server reads it.

Names are lower case, without the final dot. Source of the rules about names: Kubernetes' DNS specification 1.1
(https://github.com/kubernetes/dns/blob/master/docs/specification.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1  # of the file; a server that reads a higher one keeps what it has
ZONE_FILE = "zone.json"  # in the directory of the server
TTL = 5  # seconds; CoreDNS' default for names of a cluster
SPEC_VERSION = "1.1.0"  # the text of dns-version.<domain>


@dataclass(frozen=True, slots=True)
class Srv:
    """An SRV record: where a named port is."""

    port: int
    target: str
    priority: int = 0
    weight: int = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """What the zone knows of one name. A name with a CNAME has nothing else (RFC 1034, 3.6.2)."""

    a: tuple[str, ...] = ()
    aaaa: tuple[str, ...] = ()
    srv: tuple[Srv, ...] = ()
    txt: tuple[str, ...] = ()
    cname: str = ""

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            key: value
            for key, value in (("a", self.a), ("aaaa", self.aaaa), ("txt", self.txt), ("cname", self.cname))
            if value
        }
        if self.srv:
            found["srv"] = [[srv.port, srv.target, srv.priority, srv.weight] for srv in self.srv]
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Entry:
        return cls(
            a=tuple(data.get("a", ())),
            aaaa=tuple(data.get("aaaa", ())),
            srv=tuple(Srv(*fields) for fields in data.get("srv", ())),
            txt=tuple(data.get("txt", ())),
            cname=data.get("cname", ""),
        )


@dataclass(frozen=True, slots=True)
class Zone:
    """`names`: of the domain, and custom ones outside of it. `pointers`: address → name. `networks`: those of pods and
    Services, whose addresses have no other names. `upstreams`: addresses of servers, each with an optional `#port`,
    asked in order. `stubs`: domain → servers that are asked about its names."""

    domain: str
    names: Mapping[str, Entry] = field(default_factory=dict)
    pointers: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    stubs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    serial: int = 0
    ttl: int = TTL

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "domain": self.domain,
            "names": {name: entry.to_json() for name, entry in self.names.items()},
            "pointers": dict(self.pointers),
            "networks": list(self.networks),
            "upstreams": list(self.upstreams),
            "stubs": {domain: list(servers) for domain, servers in self.stubs.items()},
            "serial": self.serial,
            "ttl": self.ttl,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Zone:
        """Raises ValueError for a format of a newer version, and KeyError or TypeError for what is no zone."""
        if data["format"] > FORMAT:
            raise ValueError(f"the zone has format {data['format']}, and this version reads {FORMAT}")
        return cls(
            domain=data["domain"],
            names={name: Entry.from_json(entry) for name, entry in data["names"].items()},
            pointers=dict(data["pointers"]),
            networks=tuple(data["networks"]),
            upstreams=tuple(data["upstreams"]),
            stubs={domain: tuple(servers) for domain, servers in data["stubs"].items()},
            serial=data["serial"],
            ttl=data["ttl"],
        )


def parents(names: Iterable[str]) -> frozenset[str]:
    """The names above others. They exist, even without a record of their own (RFC 8020)."""
    found: set[str] = set()
    for name in names:
        parent = name.partition(".")[2]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.partition(".")[2]
    return frozenset(found)


def reverse_address(name: str) -> str:
    """The address that a name below in-addr.arpa or ip6.arpa stands for; "" for any other name."""
    labels = name.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return str(ipaddress.IPv4Address(".".join(reversed(labels[:4]))))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            return str(ipaddress.IPv6Address(int("".join(reversed(labels[:32])), 16)))
    except ValueError:
        pass
    return ""
