"""Limits the bandwidth of pods (annotations kubernetes.io/ingress-bandwidth and egress-bandwidth).

    to the pod      a token bucket (tbf) at the host's end of the pod's veth, which delays what is sent to the pod
    from the pod    what arrives at the host's end is led through an interface of its own (ifb), with a token bucket

CNI's bandwidth plugin does the same (containernetworking/plugins, plugins/meta/bandwidth: ifb_creator.go). Both places
are the host's, so a pod cannot lift its limit. A pod without a limit has none of this.

There, a setting of the network says how large a burst may be. Here a bucket has what the rate gives in 20 ms, and at
least 32 KB: packets up to that size pass whole, and tbf divides larger ones.

Sources: tc-tbf(8); linux/pkt_sched.h and linux/pkt_cls.h; net/sched/sch_tbf.c: tbf_change.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping

from runtime.network import netlink
from runtime.network.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    RTM_NEWLINK,
    NetlinkError,
    NetlinkSocket,
    Request,
    attributes,
    message,
)
from runtime.network.nft_messages import attribute, nested
from runtime.network.plan import Lease

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC, RTM_NEWTFILTER, RTM_GETTFILTER = 36, 37, 38, 44, 46
TC_H_ROOT, TC_H_INGRESS, INGRESS, BUCKET = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFF0000, 0x00010000
TC_LINKLAYER_ETHERNET, TC_U32_TERMINAL, TC_ACT_STOLEN, TCA_EGRESS_REDIR = 1, 1, 4, 1
TCA_KIND, TCA_OPTIONS = 1, 2
ETH_P_ALL = 0x0003
LATENCY = 0.025  # seconds that a packet waits at most, beside those of the bucket; as in the plugin
BURST, LEAST_BURST = 0.02, 32 << 10  # seconds of the rate in a bucket, and bytes at least
LACKS = (
    "this kernel cannot limit bandwidth (it needs CONFIG_NET_SCH_TBF and, for egress, CONFIG_IFB, "
    "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED)"
)
_LACKING = (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV)
MIRRED = "mirred"
# (interface, kind, number): queueing disciplines, with the bytes per second of a tbf; redirections (MIRRED), with the
# interface that the packets go to.
InForce = set[tuple[int, str, int]]
_TCMSG = struct.Struct("=BxxxiIII")  # family, interface, handle, parent, info
_GONE = (errno.ENOENT, errno.EINVAL, errno.ENODEV)


def shape(sock: NetlinkSocket, lease: Lease) -> list[str]:
    """Give the pod's interfaces the limits of its lease, and no others. Returns a warning if the kernel cannot. Raises
    NetlinkError."""
    try:
        _shape(sock, lease)
    except NetlinkError as error:
        if error.errno not in _LACKING or not netlink.interface_index(lease.host_ifname, missing_ok=True):
            raise
        return [f"the pod's bandwidth is not limited: {LACKS}: {error}"]
    return []


def _shape(sock: NetlinkSocket, lease: Lease) -> None:
    host, wanted = netlink.interface_index(lease.host_ifname), lease.bandwidth
    sock.attempt([_delete(host, TC_H_INGRESS), *([] if wanted.ingress else [_delete(host, TC_H_ROOT)])])
    if wanted.ingress:
        sock.request([token_bucket(host, wanted.ingress)])
    if not wanted.egress:
        sock.request([netlink.delete_link(lease.ifb)], ignore=_GONE)
        return
    with contextlib.ExitStack() as undo:
        undo.callback(sock.attempt, [_delete(host, TC_H_INGRESS), netlink.delete_link(lease.ifb)])
        sock.request([_new_ifb(lease.ifb)], ignore=(errno.EEXIST,))
        ifb = netlink.interface_index(lease.ifb)
        sock.request([token_bucket(ifb, wanted.egress), _ingress(host), _redirect(host, ifb)])
        undo.pop_all()


def is_shaped(lease: Lease, links: Mapping[str, netlink.Link], found: InForce) -> bool:
    """Whether the kernel has the limits of the pod, which has an interface."""
    host, wanted = links[lease.host_ifname].index, lease.bandwidth
    if wanted.ingress and (host, "tbf", wanted.ingress // 8) not in found:
        return False
    if not wanted.egress:
        return True
    if (ifb := links.get(lease.ifb)) is None:
        return False
    return {(ifb.index, "tbf", wanted.egress // 8), (host, "ingress", 0), (host, MIRRED, ifb.index)} <= found


def burst_of(rate: int) -> int:
    """Bytes in the bucket for a rate in bits per second."""
    return min(max(int(rate / 8 * BURST), LEAST_BURST), 0xFFFFFFFF)  # the kernel has 32 bits for it


def token_bucket(index: int, rate: int) -> Request:
    """Set an interface's tbf. `rate`: bits per second."""
    size, burst = rate // 8, burst_of(rate)
    spec = struct.pack("=BBHhHI", 0, TC_LINKLAYER_ETHERNET, 0, 0, 0, min(size, 0xFFFFFFFF))
    queue = min(int(size * LATENCY) + burst, 0xFFFFFFFF)
    parameters = (
        spec + bytes(12) + struct.pack("=III", queue, 0, 0)
    )  # no peak rate; TCA_TBF_BURST has the buffer
    options = nested(
        TCA_OPTIONS,
        attribute(1, parameters),  # TCA_TBF_PARMS
        attribute(4, struct.pack("=Q", size)),  # TCA_TBF_RATE64
        attribute(6, struct.pack("=I", burst)),  # TCA_TBF_BURST
    )
    payload = _TCMSG.pack(0, index, BUCKET, TC_H_ROOT, 0) + _kind("tbf") + options
    flags = NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK
    return message(RTM_NEWQDISC, flags, payload, "limit the bandwidth (tbf)")


def _ingress(index: int) -> Request:
    payload = _TCMSG.pack(0, index, INGRESS, TC_H_INGRESS, 0) + _kind("ingress")
    return message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_ACK, payload, "look at incoming packets (ingress)")


def _redirect(index: int, ifb: int) -> Request:
    """Send all that arrives at an interface to the ifb, which hands it back after its bucket."""
    every = struct.pack("=BBBxHHhhI", TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + bytes(
        16
    )  # one key that all match
    mirred = struct.pack("=IIiiiiI", 0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, ifb)
    action = nested(1, attribute(1, b"mirred\0"), nested(2, attribute(2, mirred)))
    options = nested(TCA_OPTIONS, attribute(5, every), nested(7, action))  # TCA_U32_SEL, TCA_U32_ACT
    info = 1 << 16 | socket.htons(ETH_P_ALL)  # priority and protocol
    payload = _TCMSG.pack(0, index, 0, INGRESS, info) + _kind("u32") + options
    return message(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_ACK, payload, "redirect packets (u32, mirred)")


def _kind(name: str) -> bytes:
    return attribute(TCA_KIND, name.encode() + b"\0")


def _delete(index: int, parent: int) -> Request:
    return message(
        RTM_DELQDISC, NLM_F_ACK, _TCMSG.pack(0, index, 0, parent, 0), "lift the limit of bandwidth"
    )


def _new_ifb(name: str) -> Request:
    head = struct.pack("=BxHiII", 0, 0, 0, netlink.IFF_UP, netlink.IFF_UP)
    kind = nested(netlink.IFLA_LINKINFO, attribute(netlink.IFLA_INFO_KIND, b"ifb\0"))
    payload = head + attribute(netlink.IFLA_IFNAME, name.encode() + b"\0") + kind
    return message(RTM_NEWLINK, netlink.CREATE | NLM_F_ACK, payload, f"create interface {name} (ifb)")


def in_force(sock: NetlinkSocket, redirected: Iterable[int]) -> InForce:
    """The queueing disciplines of all interfaces, and the redirections at the interfaces with these indexes."""
    found: InForce = set()
    query = message(RTM_GETQDISC, NLM_F_DUMP, _TCMSG.pack(0, 0, 0, 0, 0), "list queueing disciplines")
    for data in sock.dump(query):
        index = _TCMSG.unpack_from(data, 16)[1]
        parts = attributes(data[16 + _TCMSG.size :])
        kind = parts.get(TCA_KIND, b"").rstrip(b"\0").decode()
        rate = _rate(attributes(parts.get(TCA_OPTIONS, b""))) if kind == "tbf" else 0
        found.add((index, kind, rate))
    for index in redirected:
        if (index, "ingress", 0) in found:  # without it, the kernel has no filters to list
            found |= {(index, MIRRED, target) for target in _targets(sock, index)}
    return found


def _targets(sock: NetlinkSocket, index: int) -> Iterator[int]:
    """The interfaces to which the u32 filters of an interface redirect what arrives there."""
    query = message(RTM_GETTFILTER, NLM_F_DUMP, _TCMSG.pack(0, index, 0, INGRESS, 0), "list filters")
    for data in sock.dump(query):
        options = attributes(attributes(data[16 + _TCMSG.size :]).get(TCA_OPTIONS, b""))
        action = attributes(attributes(options.get(7, b"")).get(1, b""))  # the first of TCA_U32_ACT
        if action.get(TCA_KIND, b"").rstrip(b"\0") == MIRRED.encode():
            mirred = attributes(action.get(TCA_OPTIONS, b"")).get(2, bytes(28))  # TCA_MIRRED_PARMS
            yield struct.unpack_from("=I", mirred, 24)[0]  # tc_mirred.ifindex


def _rate(options: Mapping[int, bytes]) -> int:
    if 4 in options:  # only of rates that 32 bits do not hold
        return int(struct.unpack("=Q", options[4])[0])
    return int(struct.unpack_from("=I", options.get(1, bytes(12)), 8)[0])
