"""Anti-spoofing: a frame from a pod's port is dropped unless it claims the pod's own addresses.

    table bridge <node>
      set ports    interface                                   the checked ports: one for each pod
      set senders  interface . hardware address . IPv4 address  what may come in there
      set senders6 interface . hardware address . IPv6 address  the same, if pods have IPv6 addresses
      chain senders  filter prerouting:  from one of our interfaces?
          ARP  with the pod's hardware and IP address, in the frame header and in the payload   accept
          IPv4 with the pod's hardware and IP address                                           accept
          IPv6 to the bridge, with the pod's hardware and IPv6 address, not neighbour discovery accept
          anything else that comes in at one of `ports`                                         drop
      chain reserved  filter input: to an address that bridges reserve (01:80:c2:00:00:0X)      drop

Without this, a container with CAP_NET_RAW (a default capability) could answer ARP for its neighbours or the gateway and
read their traffic, or send with their addresses. With CAP_NET_ADMIN, or as root of a user namespace, it could simply
take their addresses. The chain runs before the bridge learns the location of a hardware address
(br_handle_frame_finish), and before br_netfilter and its NAT. Frames to reserved addresses do not pass this chain: the
bridge delivers them locally and learns from them (br_handle_local_finish).

IPv6 on a node without an IPv6 network, VLAN tags and other protocols: no pod has such an address, so such frames have
no legitimate sender. The protocol is read from the frame, because skb->protocol is the protocol inside a VLAN tag.

IPv6 frames may go to the bridge's own hardware address only, so the host routes them all: no frame from pod to pod and
no multicast passes by the rules of its forward hook. Pods have no use for neighbour and multicast listener discovery
(`runtime.network.ipv6`), so theirs is dropped. It is found behind extension headers, too; the kernel does not accept
it in fragments (RFC 6980, suppress_frag_ndisc).

A port in neither set passes: it is an uplink that an administrator added to the bridge, or belongs to a pod of an older
kubelite, which does not know this table.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence

from runtime.network.netlink import NLM_F_ACK, NLM_F_CREATE, Request
from runtime.network.nft_messages import (
    ACCEPT,
    DROP,
    EQ,
    LINK_HEADER,
    META_IIFNAME,
    META_L4PROTO,
    NETWORK_HEADER,
    NFPROTO_BRIDGE,
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_REG32_00,
    SADDR,
    TRANSPORT_HEADER,
    TYPE_ETHERADDR,
    TYPE_IFNAME,
    TYPE_IP6ADDR,
    TYPE_IPADDR,
    Chain,
    Table,
    attribute,
    bitwise_and,
    compare,
    concatenated,
    expression,
    load_meta,
    load_payload,
    nested,
    number,
    text,
)
from runtime.network.plan import Lease

PORTS, SENDERS, SENDERS6 = "ports", "senders", "senders6"
_SET_IDS = {PORTS: 1, SENDERS: 2, SENDERS6: 3}
_KEYS = {
    PORTS: (TYPE_IFNAME,),
    SENDERS: (TYPE_IFNAME, TYPE_ETHERADDR, TYPE_IPADDR),
    SENDERS6: (TYPE_IFNAME, TYPE_ETHERADDR, TYPE_IP6ADDR),
}
_SIZES = {
    PORTS: 16,
    SENDERS: 16 + 8 + 4,
    SENDERS6: 16 + 8 + 16,
}  # bytes: each part fills whole 4-byte registers

_HOST_ORDER = struct.pack("=BBI", 0, 4, 1)  # NFTNL_UDATA_SET_KEYBYTEORDER: makes `nft list` show names

NF_BR_PRE_ROUTING, NF_BR_LOCAL_IN = 0, 1
FIRST = -300  # NF_BR_PRI_NAT_DST_BRIDGED; br_netfilter runs at 0
FRAME_DESTINATION, FRAME_SOURCE, FRAME_KIND = 0, 6, 12  # offsets in the Ethernet header
ARP_SENDER_MAC, ARP_SENDER_IP = 8, 14  # offsets in the ARP header of Ethernet and IPv4 (RFC 826)
ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"
SADDR6 = 8  # offset in the IPv6 header
GTE, LTE = 5, 3  # NFT_CMP_*
ICMPV6 = b"\x3a"
_FIRST_DISCOVERY, _LAST_DISCOVERY = b"\x82", b"\x89"  # 130 … 137: listeners (RFC 2710), neighbours (RFC 4861)
_ARP_OF_IPV4 = bytes.fromhex("000108000604")  # hardware and protocol type, and their address lengths
_RESERVED = bytes.fromhex("0180c2000000")  # IEEE 802.1D, table 7-10

Element = tuple[str, bytes]


def elements(lease: Lease, *, ipv6: bool = False) -> tuple[Element, ...]:
    """The (set, key) of a pod's port and of each address it may send from. Its IPv6 address counts only with `ipv6`."""
    name = lease.host_ifname.encode().ljust(16, b"\0")
    mac = bytes.fromhex(lease.mac.replace(":", "")).ljust(8, b"\0")
    found = (PORTS, name), (SENDERS, name + mac + ipaddress.IPv4Address(lease.ip).packed)
    if not (ipv6 and lease.ip6):
        return found
    return *found, (SENDERS6, name + mac + ipaddress.IPv6Address(lease.ip6).packed)


def describe(item: Element) -> str:
    """An element as text, for messages."""
    name = item[1][:16].rstrip(b"\0").decode(errors="replace")
    if item[0] == PORTS:
        return name
    return f"{name} {item[1][16:22].hex(':')} {ipaddress.ip_address(item[1][24:])}"


def _is_in(name: str) -> bytes:
    return expression("lookup", text(1, name), number(2, NFT_REG32_00), number(4, _SET_IDS[name]))


def _sender(base: int, mac: int, ip: int, *, size: int = 4) -> bytes:
    """Match the port, the hardware address at offset `mac` of the header `base` and the IP address of `size` bytes at
    offset `ip` of the network header with the set of senders."""
    words = (NFT_REG32_00, NFT_REG32_00 + 4, NFT_REG32_00 + 6)
    return (
        load_meta(META_IIFNAME, words[0])
        + load_payload(base, mac, 6, words[1])
        + load_payload(NETWORK_HEADER, ip, size, words[2])
        + _is_in(SENDERS if size == 4 else SENDERS6)
    )


def _ipv6(ours: bytes, gateway: str) -> tuple[bytes, bytes]:
    """Drop neighbour and multicast listener discovery; accept what goes from a pod's address to the bridge."""
    to_the_bridge = load_payload(LINK_HEADER, FRAME_DESTINATION, 6) + compare(
        EQ, bytes.fromhex(gateway.replace(":", ""))
    )
    kind = load_payload(LINK_HEADER, FRAME_KIND, 2) + compare(EQ, ETH_P_IPV6)
    discovery = (
        load_meta(META_L4PROTO)
        + compare(EQ, ICMPV6)
        + load_payload(TRANSPORT_HEADER, 0, 1)
        + compare(GTE, _FIRST_DISCOVERY)
        + compare(LTE, _LAST_DISCOVERY)
    )
    allowed = to_the_bridge + _sender(LINK_HEADER, FRAME_SOURCE, SADDR6, size=16)
    return ours + kind + discovery + DROP, ours + kind + allowed + ACCEPT


def chains(prefix: str, gateway: str = "") -> tuple[Chain, ...]:
    """The table's chains. `prefix` starts the names of this node's interfaces. `gateway`: the bridge's hardware
    address, if pods have IPv6 addresses."""
    ours = load_meta(META_IIFNAME) + compare(EQ, prefix.encode())
    kind = load_payload(LINK_HEADER, FRAME_KIND, 2)
    arp = kind + compare(EQ, ETH_P_ARP) + load_payload(NETWORK_HEADER, 0, 6) + compare(EQ, _ARP_OF_IPV4)
    senders = (
        ours
        + arp
        + _sender(LINK_HEADER, FRAME_SOURCE, ARP_SENDER_IP)
        + _sender(NETWORK_HEADER, ARP_SENDER_MAC, ARP_SENDER_IP)
        + ACCEPT,
        ours + kind + compare(EQ, ETH_P_IP) + _sender(LINK_HEADER, FRAME_SOURCE, SADDR) + ACCEPT,
        *(_ipv6(ours, gateway) if gateway else ()),
        load_meta(META_IIFNAME, NFT_REG32_00) + _is_in(PORTS) + DROP,
    )
    to_the_bridge = (
        load_payload(LINK_HEADER, FRAME_DESTINATION, 6)
        + bitwise_and(b"\xff\xff\xff\xff\xff\xf0")
        + compare(EQ, _RESERVED)
    )
    reserved = (to_the_bridge + load_meta(META_IIFNAME, NFT_REG32_00) + _is_in(PORTS) + DROP,)
    return (
        Chain("senders", "filter", NF_BR_PRE_ROUTING, FIRST, senders),
        Chain("reserved", "filter", NF_BR_LOCAL_IN, FIRST, reserved),
    )


class SenderTable(Table):
    """One node's table. Every change is one transaction: it happens completely or not at all."""

    def __init__(self, name: str, prefix: str, gateway: str = "") -> None:
        """`prefix` and `gateway` as for chains(). Raises CapabilityError if the kernel has no nftables."""
        super().__init__(NFPROTO_BRIDGE, name)
        self._prefix = prefix
        self._gateway = gateway
        self._names = (PORTS, SENDERS, SENDERS6) if gateway else (PORTS, SENDERS)

    def elements_of(self, lease: Lease) -> tuple[Element, ...]:
        """The elements of a pod in this table. Without an IPv6 network, the table has no IPv6 addresses."""
        return elements(lease, ipv6=bool(self._gateway))

    def rebuild(self, leases: Iterable[Lease]) -> None:
        """Replace the table, if there is one, by one that restricts these pods to their addresses. Raises
        CapabilityError if the kernel lacks a part of nftables."""
        self.replace(
            [self._new_set(name) for name in self._names],
            chains(self._prefix, self._gateway),
            self._changes(NFT_MSG_NEWSETELEM, leases),
            lacking="this kernel cannot filter bridge frames with nftables (it needs CONFIG_NF_TABLES_BRIDGE)",
        )

    def admit(self, lease: Lease) -> None:
        """Restrict the pod to its addresses. No effect if it is restricted already."""
        self.transaction(self._changes(NFT_MSG_NEWSETELEM, [lease]))

    def forget(self, leases: Sequence[Lease]) -> None:
        """Remove the elements of pods whose interfaces are gone. Missing elements are no error."""
        singly = (one for lease in leases for one in self._changes(NFT_MSG_DELSETELEM, [lease]))
        self.remove(self._changes(NFT_MSG_DELSETELEM, leases), singly)

    def admitted(self) -> set[Element]:
        """The current elements of both sets, in the form of elements(). Raises NetlinkError if the table does not
        exist."""
        return {(name, key) for name in self._names for key, _ in self.elements(name)}

    def _new_set(self, name: str) -> Request:
        payload = (
            text(1, self.name)
            + text(2, name)
            + number(3, 0)
            + number(4, concatenated(_KEYS[name]))
            + number(5, _SIZES[name])
            + number(10, _SET_IDS[name])
            + (attribute(13, _HOST_ORDER) if name == PORTS else b"")
        )
        return self.message(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_ACK, payload, f"create set {name}")

    def _changes(self, kind: int, leases: Iterable[Lease]) -> list[Request]:
        """The messages that change elements: one per set and 200 elements, because an attribute holds at most 64 KB."""
        listed = [item for lease in leases for item in self.elements_of(lease)]
        flags = NLM_F_ACK | (NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0)
        requests = []
        for name in self._names:
            keys = [key for set_name, key in listed if set_name == name]
            for start in range(0, len(keys), 200):
                items = [nested(1, nested(1, attribute(1, key))) for key in keys[start : start + 200]]
                payload = text(1, self.name) + text(2, name) + nested(3, *items)
                requests.append(self.message(kind, flags, payload, f"change {name} in {self.name}"))
        return requests
