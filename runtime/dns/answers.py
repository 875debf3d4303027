"""What a question's answer is: a pure function of the question and the zone.

The rules are those of Kubernetes' DNS specification 1.1; where it is silent, those of CoreDNS' plugin `kubernetes` as
kubeadm configures it (https://coredns.io/plugins/kubernetes/).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from runtime.dns.zone import SPEC_VERSION, Entry, Zone, parents, reverse_address

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 255  # RFC 1035, 2782, 3596
MAX_CHAIN: Final = 8  # CNAMEs followed inside the zone


class Code(IntEnum):
    """Response codes (RFC 1035, 4.1.1)."""

    NOERROR = 0
    NXDOMAIN = 3


@dataclass(frozen=True, slots=True)
class Record:
    """`data`: the record's text as in a zone file (RFC 1035, 5)."""

    name: str
    type: int
    data: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the zone says. `further`: a name outside of the zone, to be asked upstream, whose records come after
    these."""

    code: Code
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    further: str = ""


class Resolver:
    """Answers from one zone. `lookup` returns None for a question that the zone does not decide."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self._domain = zone.domain
        own = [name for name in zone.names if self.is_own(name)]
        self._parents = parents(own) | {self._domain}
        self._networks = [ipaddress.ip_network(network) for network in zone.networks]

    def is_own(self, name: str) -> bool:
        return name == self._domain or name.endswith(f".{self._domain}")

    def lookup(self, name: str, kind: int) -> Answer | None:
        """The answer for a name in lower case without its final dot, and a type."""
        if address := reverse_address(name):
            return self._pointer(name, address, kind)
        if name in self.zone.names:
            return self._entry(name, kind)
        if not self.is_own(name):
            return None
        if name == self._domain:
            return self._apex(kind)
        if name == f"dns-version.{self._domain}":
            return Answer(Code.NOERROR, _records(name, Entry(txt=(SPEC_VERSION,)), kind))
        if name in self._parents:
            return Answer(Code.NOERROR)
        return self._pod(name, kind)

    def servers(self, name: str) -> tuple[str, ...]:
        """The servers to ask about a name that the zone does not decide: the stub with the longest matching domain, or
        the upstreams."""
        labels = name.split(".")
        for position in range(len(labels)):
            if found := self.zone.stubs.get(".".join(labels[position:])):
                return found
        return self.zone.upstreams

    def _pointer(self, name: str, address: str, kind: int) -> Answer | None:
        if target := self.zone.pointers.get(address):
            return Answer(Code.NOERROR, (Record(name, PTR, f"{target}."),) if kind in (PTR, ANY) else ())
        parsed = ipaddress.ip_address(address)
        ours = any(parsed.version == network.version and parsed in network for network in self._networks)
        return Answer(Code.NXDOMAIN) if ours else None

    def _entry(self, name: str, kind: int) -> Answer:
        records: list[Record] = []
        for _ in range(MAX_CHAIN):
            entry = self.zone.names[name]
            records += _records(name, entry, kind)
            if not entry.cname or kind in (CNAME, ANY):
                return Answer(Code.NOERROR, tuple(records), self._glue(records))
            name = entry.cname
            if name not in self.zone.names:
                break
        if self.is_own(name):
            return Answer(Code.NOERROR, tuple(records))
        return Answer(Code.NOERROR, tuple(records), further=name)

    def _glue(self, records: list[Record]) -> tuple[Record, ...]:
        """The addresses of the targets of SRV records, as CoreDNS adds them."""
        targets = dict.fromkeys(
            record.data.rpartition(" ")[2].rstrip(".") for record in records if record.type == SRV
        )
        return tuple(
            record
            for target in targets
            if (entry := self.zone.names.get(target)) is not None
            for kind in (A, AAAA)
            for record in _records(target, entry, kind)
        )

    def _apex(self, kind: int) -> Answer:
        if kind in (SOA, ANY):
            return Answer(Code.NOERROR, (self.soa(),))
        if kind == NS:
            return Answer(Code.NOERROR, (Record(self._domain, NS, f"ns.dns.{self._domain}."),))
        return Answer(Code.NOERROR)

    def soa(self) -> Record:
        """The zone's SOA; its last number is how long a negative answer may be kept (RFC 2308)."""
        zone = self.zone
        serial = zone.serial % (1 << 32)
        text = f"ns.dns.{zone.domain}. hostmaster.{zone.domain}. {serial} 7200 1800 86400 {zone.ttl}"
        return Record(zone.domain, SOA, text)

    def _pod(self, name: str, kind: int) -> Answer:
        """The address that `1-2-3-4.namespace.pod.domain` spells, if it is in one of the node's networks. Whether a pod
        has it is not checked, as in CoreDNS' mode `pods insecure`. CoreDNS spells any address: a certificate for such a
        name would then be good for a machine outside."""
        labels = name.removesuffix(f".{self._domain}").split(".")
        if labels[-1] != "pod":
            return Answer(Code.NXDOMAIN)
        if len(labels) < 3:
            return Answer(Code.NOERROR)
        if len(labels) > 3:
            return Answer(Code.NXDOMAIN)
        try:
            address = ipaddress.ip_address(labels[0].replace("-", "." if labels[0].count("-") == 3 else ":"))
        except ValueError:
            return Answer(Code.NXDOMAIN)
        if not any(address.version == network.version and address in network for network in self._networks):
            return Answer(Code.NXDOMAIN)
        entry = Entry(a=(str(address),)) if address.version == 4 else Entry(aaaa=(str(address),))
        return Answer(Code.NOERROR, _records(name, entry, kind))


def _records(name: str, entry: Entry, kind: int) -> tuple[Record, ...]:
    if entry.cname:
        return (Record(name, CNAME, f"{entry.cname}."),)
    found: list[Record] = []
    if kind in (A, ANY):
        found += [Record(name, A, address) for address in entry.a]
    if kind in (AAAA, ANY):
        found += [Record(name, AAAA, address) for address in entry.aaaa]
    if kind in (SRV, ANY):
        found += [
            Record(name, SRV, f"{srv.priority} {srv.weight} {srv.port} {srv.target}.") for srv in entry.srv
        ]
    if kind in (TXT, ANY):
        found += [Record(name, TXT, '"{}"'.format(text.replace('"', r"\""))) for text in entry.txt]
    return tuple(found)
