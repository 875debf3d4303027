"""The node's network as plain data: names, addresses, port mappings and their holders.

Nothing here touches the kernel or the disk, and imports are cheap: the daemon, the helper and the tests all use it. The
other modules of this package carry out what these values describe.

    host side                                   pod side (its own network namespace)
    bridge  <gateway>/<prefix>  ── kl<node><pod>  ═veth═  eth0  <ip>/<prefix>, default via <gateway>

Everything in the kernel is named after the node's identity, "name@state directory" (`identity()`). Names of host-side
interfaces contain hashes of it and of the pod's uid (IFNAMSIZ leaves 15 characters). So several nodes can share one
network namespace, even with one name, and each recognises its own interfaces.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from runtime.errors import NetworkError, SpecError

POD_IFNAME = "eth0"
IFALIASZ = 256  # bytes of an interface alias with its final zero (linux/if.h)
ANY_ADDRESS, ANY_ADDRESS6 = "0.0.0.0", "::"
BRIDGE_GROUP = 0x6B6C0001  # the interface group of all nodes' bridges, whose pods may reach each other
PROTOCOLS = {
    "TCP": 6,
    "UDP": 17,
}  # IP protocol numbers; Kubernetes also has SCTP, which is not published here


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """One node's network. `state_dir` belongs to one node, which locks it; with the node's name it distinguishes the
    tables and interfaces of several nodes. `mtu` None means the uplink's MTU. `routed`: other machines may connect to
    pods at their own addresses. `pod_cidr6`: the IPv6 network, from which pods get a second address; "": none."""

    bridge: str
    pod_cidr: str
    state_dir: str
    node: str
    mtu: int | None = None
    routed: bool = False
    pod_cidr6: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A pod's port, published on the host. `host_ip` 0.0.0.0 means every IPv4 address of the host, :: every one of
    IPv6, and "" every address of the families that the pod has."""

    host_port: int
    container_port: int
    protocol: str = "TCP"
    host_ip: str = ""

    @property
    def address(self) -> str:
        return self.host_ip or ANY_ADDRESS

    def describe(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.protocol} {address}:{self.host_port}"


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """What a pod may receive and send, in bits per second; 0: as much as it can."""

    ingress: int = 0
    egress: int = 0

    def __bool__(self) -> bool:
        return bool(self.ingress or self.egress)


UNLIMITED = Bandwidth()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A pod's attachment to the network, as created by `add`. `netns` is the path given to `add`."""

    uid: str
    ip: str
    prefix: int
    gateway: str
    mac: str
    host_ifname: str
    netns: str = ""
    ports: tuple[PortMapping, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    antispoof: bool = False  # packets with a source address other than the pod's are dropped
    ip6: str = ""  # the second address, of IPv6

    @property
    def addresses(self) -> dict[str, str]:
        """The pod's addresses, by the names of their fields."""
        return {"ip": self.ip, "ip6": self.ip6} if self.ip6 else {"ip": self.ip}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Attachment:
        ports = tuple(PortMapping(**port) for port in data.get("ports", ()))
        return cls(**{**data, "ports": ports, "warnings": tuple(data.get("warnings", ()))})


@dataclass(frozen=True, slots=True)
class Lease:
    """An address given to a pod: the record that the helper stores as a file. `ready` False: its add has not
    finished."""

    uid: str
    ip: str
    mac: str
    host_ifname: str
    netns: str  # path, as given
    netns_id: str  # st_dev:st_ino of the namespace; differs for a new one behind the same path
    ports: tuple[PortMapping, ...] = ()
    ready: bool = False
    ip6: str = ""  # the second address, of IPv6
    bandwidth: Bandwidth = UNLIMITED

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.ip, self.ip6) if self.ip6 else (self.ip,)

    @property
    def ifb(self) -> str:
        """The name of the interface that the pod's packets pass if its egress is limited. It has the same prefix as
        the names of pods' interfaces."""
        return self.host_ifname[:7] + _digest(self.host_ifname, 8)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The names of the pod's interfaces on the host."""
        return (self.host_ifname, self.ifb) if self.bandwidth.egress else (self.host_ifname,)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Lease:
        """Build a lease from JSON. Unknown fields are ignored, so pods of a newer version keep their addresses. Raises
        KeyError, TypeError or ValueError for anything else."""
        known = {field.name for field in fields(cls)}
        ports = tuple(PortMapping(**port) for port in data["ports"])
        texts = ("uid", "ip", "mac", "host_ifname", "netns", "netns_id")
        if wrong := [name for name in texts if not isinstance(data[name], str)]:
            raise TypeError(f"{wrong[0]} is not a text")
        ipaddress.IPv4Address(data["ip"])
        if second := data.get("ip6"):
            ipaddress.IPv6Address(second)
        rates = data.get("bandwidth", {})
        limits = Bandwidth(**{key: rates[key] for key in ("ingress", "egress") if key in rates})
        given = {key: value for key, value in data.items() if key in known}
        return cls(**{**given, "ports": ports, "bandwidth": limits})


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair's result, as sentences: the problems that are gone, those that are left, and the errors met."""

    repaired: Sequence[str] = ()
    left: Sequence[str] = ()
    failures: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Subnet:
    """The pod network, in the forms that the kernel needs."""

    network: ipaddress.IPv4Network

    @classmethod
    def parse(cls, cidr: str) -> Subnet:
        """Parse "10.88.0.0/16". Raises SpecError. The network needs room for the gateway and one pod (RFC 950: the
        first address names the network, the last one is its broadcast address)."""
        try:
            network = ipaddress.IPv4Network(cidr)
        except ValueError as error:
            raise SpecError(
                f"pod CIDR {cidr!r} is not an IPv4 network such as 10.88.0.0/16: {error}"
            ) from error
        if network.prefixlen > 30 or network.prefixlen < 8:
            raise SpecError(f"pod CIDR {cidr} must have a prefix between /8 and /30")
        return cls(network)

    @staticmethod
    def of(ip: str, prefix: int) -> ipaddress.IPv4Network:
        """The network that contains an address with this prefix length."""
        return ipaddress.IPv4Network((ip, prefix), strict=False)

    @property
    def gateway(self) -> str:
        return str(self.network.network_address + 1)

    @property
    def prefix(self) -> int:
        return self.network.prefixlen

    @property
    def broadcast(self) -> str:
        return str(self.network.broadcast_address)


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def identity(node: str, state_dir: str) -> str:
    """The identity of a node with this name and this directory (absolute, without symbolic links). The name alone is
    not unique: it is the host's by default, so two nodes of one machine share it."""
    return f"{node}@{state_dir}"


def link_prefix(node: str) -> str:
    """The prefix of every host-side interface name of the node with this identity."""
    return f"kl{_digest(node, 5)}"


def host_ifname(node: str, uid: str, taken: Container[str] = ()) -> str:
    """The host-side interface name, 15 characters. If two uids have the same hash (2^-32), the second is hashed
    again."""
    salted = uid
    while (name := link_prefix(node) + _digest(salted, 8)) in taken:
        salted += "+"
    return name


def is_host_ifname(name: str) -> bool:
    """Whether the name is that of a pod's host-side interface, of any node."""
    return len(name) == 15 and name.startswith("kl") and not name[2:].strip("0123456789abcdef")


def bridge_alias(node: str) -> str:
    """The interface alias by which the node with this identity recognises its own bridge."""
    alias = f"kubelite:{node}"
    return alias if len(alias.encode()) < IFALIASZ else f"kubelite:{_digest(node, 16)}"


def table_name(node: str) -> str:
    """The name of the nftables table of the node with this identity: readable, and unique even if the readable part is
    shortened or cleaned."""
    clean = "".join(c if c.isalnum() or c in "-_" else "_" for c in node.partition("@")[0])[:40]
    return f"kubelite-{clean}-{_digest(node, 5)}"


def service_table_name(node: str) -> str:
    """The name of the nftables tables for Services of the node with this identity."""
    return f"{table_name(node)}-services"


def policy_table_name(node: str) -> str:
    """The name of the nftables tables for NetworkPolicies of the node with this identity."""
    return f"{table_name(node)}-policies"


def mac_of(ip: str) -> str:
    """A locally administered hardware address, derived from the IPv4 address. A reused IP address keeps its hardware
    address, so neighbours' ARP caches stay valid. 0a:58 is the prefix of CNI's bridge plugin."""
    return "0a:58:" + ":".join(f"{octet:02x}" for octet in ipaddress.IPv4Address(ip).packed)


def overlaps(a: PortMapping, b: PortMapping) -> bool:
    """Whether two mappings conflict, as in kube-scheduler's CheckConflict: same protocol and port, and equal addresses
    or one of them every address of a family that both have."""
    if (a.protocol, a.host_port) != (b.protocol, b.host_port):
        return False
    if "" in (a.host_ip, b.host_ip) or a.host_ip == b.host_ip:
        return True
    same = (":" in a.host_ip) == (":" in b.host_ip)
    return same and any(one.host_ip in (ANY_ADDRESS, ANY_ADDRESS6) for one in (a, b))


def check_ports(
    ports: Sequence[PortMapping], *, ipv6: bool = False
) -> tuple[tuple[PortMapping, ...], list[str]]:
    """Return the mappings that can be published, without repetitions, and one sentence for each that cannot. `ipv6`:
    pods have IPv6 addresses.

    Raises SpecError for an invalid port number or address, and for two mappings of the pod that overlap.
    """
    good: list[PortMapping] = []
    warnings: list[str] = []
    for asked in ports:
        port = _normalised(asked)
        if not (0 < port.host_port < 65536 and 0 < port.container_port < 65536):
            raise SpecError(
                f"host port {port.host_port} → {port.container_port}: ports are between 1 and 65535"
            )
        if problem := _unpublishable(port, ipv6=ipv6):
            warnings.append(problem)
        elif port not in good:
            if clash := next((p for p in good if overlaps(p, port)), None):
                raise SpecError(f"the pod publishes {port.describe()} and {clash.describe()}, which overlap")
            good.append(port)
    return tuple(good), warnings


def _normalised(port: PortMapping) -> PortMapping:
    """The mapping with the usual spelling of its address: ::0 is ::, for example."""
    try:
        return replace(port, host_ip=str(ipaddress.ip_address(port.host_ip))) if port.host_ip else port
    except ValueError:  # _unpublishable() reports it
        return port


def _unpublishable(port: PortMapping, *, ipv6: bool) -> str:
    if port.protocol not in PROTOCOLS:
        return f"host port {port.describe()} is not published: only TCP and UDP are supported"
    try:
        address = ipaddress.ip_address(port.address)
    except ValueError as error:
        raise SpecError(
            f"hostIP {port.host_ip!r} of host port {port.host_port} is not an IP address"
        ) from error
    if address.version == 6 and not ipv6:
        return f"host port {port.describe()} is not published: pods have no IPv6 addresses, see pod_cidr"
    if address.version == 6 and address.is_loopback:
        return f"host port {port.describe()} is not published: Linux does not route packets from ::1"
    return ""


def port_conflict(uid: str, ports: Iterable[PortMapping], leases: Iterable[Lease]) -> NetworkError | None:
    """The error for the first port that another pod holds; None if all are free."""
    others = [(lease.uid, held) for lease in leases if lease.uid != uid for held in lease.ports]
    for port in ports:
        for holder, held in others:
            if overlaps(port, held):
                return NetworkError(
                    f"host port {port.describe()} is already published by pod {holder} ({held.describe()})",
                    reason="HostPortConflict",
                )
    return None
