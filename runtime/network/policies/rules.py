"""The rules of the policies' tables, as expressions. Pure.

    table inet <node>-policies
      map egress4, ingress4    address : chain                the pods that policies restrict
      set self4                address . address              a pod may reach itself
      set servers4             address . protocol . port      the node's DNS server, which policies see as a pod
      set pods4-…, blocks4-…, ports-…, named4-…               what rules of policies name
          (of IPv6, with a 6, if pods have such addresses)
      chain egress    filter forward   established or related? accept; else to the chain of the source
      chain ingress   filter forward   the same for the destination
      chain servers   filter input     the same as egress, for packets to `servers4`
      chain out-<profile>, in-<profile>          jump to the chain of each policy; drop
      chain out-<policy>, in-<policy>            accept what a rule of the policy allows
    table bridge <node>-policies
      chain route     filter prerouting   hand the frames from pod to pod to the host's routing
      chain copies    filter forward      drop broadcasts and multicasts from pod to pod

"accept" ends one base chain: a connection between two pods must pass both. They run behind the translation of Services'
addresses and of host ports, and before masquerading, so both ends have their own addresses.

Packets from and to the host itself are not forwarded, and pass: probes, the host's programs, and what pods send to the
node's addresses (types.go of Kubernetes' API leaves that open; its documentation says that the traffic between a pod
and its node is always allowed). The DNS server is the exception, because in most clusters it is a pod.
"""

from __future__ import annotations

import struct

from runtime.network.nft_messages import (
    ACCEPT,
    DROP,
    EQ,
    FILTER,
    LINK_HEADER,
    META_IIFNAME,
    META_L4PROTO,
    META_OIFNAME,
    NEQ,
    NETWORK_HEADER,
    NF_INET_FORWARD,
    NFT_REG32_00,
    NFT_REG_1,
    NFT_REG_VERDICT,
    TRANSPORT_HEADER,
    Chain,
    Family,
    bitwise_and,
    compare,
    expression,
    load_meta,
    load_payload,
    nested,
    number,
    text,
)
from runtime.network.policies.arrange import (
    CHAINS,
    SELF,
    SERVERS,
    Direction,
    Match,
)
from runtime.network.services.rules import ETH_P_IP, FRAME_DESTINATION, FRAME_KIND, NF_INET_LOCAL_IN

NFT_JUMP, NFT_GOTO = -3, -4
META_NFPROTO = 15
NF_BR_FORWARD = 2
CT_STATE, ESTABLISHED_OR_RELATED = 0, 1 << 1 | 1 << 2
R = NFT_REG32_00  # R + n: the n-th 4-byte register


def _lookup(name: str, source: int, into: int | None = None) -> bytes:
    """Look up the key in `source`. The rule ends if there is no element."""
    return expression(
        "lookup", text(1, name), number(2, source), *([] if into is None else [number(3, into)])
    )


def _family(family: Family) -> bytes:
    return load_meta(META_NFPROTO) + compare(EQ, bytes((family.number,)))


def _address(family: Family, offset: int, register: int = R) -> bytes:
    return load_payload(NETWORK_HEADER, offset, family.size, register)


def _port(register: int) -> bytes:
    """Load protocol . port of the packet's destination into two registers."""
    return load_meta(META_L4PROTO, register) + load_payload(TRANSPORT_HEADER, 2, 2, register + 1)


_KNOWN = (
    expression("ct", number(1, NFT_REG_1), number(2, CT_STATE))
    + bitwise_and(struct.pack("=I", ESTABLISHED_OR_RELATED))
    + compare(NEQ, bytes(4))
    + ACCEPT
)


def base_chains(families: tuple[Family, ...]) -> tuple[Chain, ...]:
    """The chains with a hook of the inet table. `families`: those of pods' addresses."""
    egress, ingress = (_to_profiles(direction, families) for direction in Direction)
    return (
        Chain("egress", "filter", NF_INET_FORWARD, FILTER, (_KNOWN, *egress)),
        Chain("ingress", "filter", NF_INET_FORWARD, FILTER + 1, (_KNOWN, *ingress)),
        Chain("servers", "filter", NF_INET_LOCAL_IN, FILTER, (_KNOWN, *map(_to_server, families))),
    )


def _to_profiles(direction: Direction, families: tuple[Family, ...]) -> list[bytes]:
    rules = []
    for family in families:
        width, name = family.size // 4, f"{CHAINS[direction]}{family.suffix}"
        pair = _address(family, family.source) + _address(family, family.destination, R + width)
        own = family.source if direction is Direction.EGRESS else family.destination
        rules.append(_family(family) + pair + _lookup(f"{SELF}{family.suffix}", R) + ACCEPT)
        rules.append(_family(family) + _address(family, own) + _lookup(name, R, NFT_REG_VERDICT))
    return rules


def _to_server(family: Family) -> bytes:
    width, name = family.size // 4, f"{CHAINS[Direction.EGRESS]}{family.suffix}"
    return (
        _family(family)
        + _address(family, family.destination) + _port(R + width) + _lookup(f"{SERVERS}{family.suffix}", R)
        + _address(family, family.source) + _lookup(name, R, NFT_REG_VERDICT)
    )  # fmt: skip


def profile_rules(chains: tuple[str, ...]) -> tuple[bytes, ...]:
    """The rules of a chain of pods: ask each policy's chain, and drop what none accepts."""
    jumps = tuple(
        expression(
            "immediate",
            number(1, NFT_REG_VERDICT),
            nested(2, nested(2, number(1, NFT_JUMP), text(2, chain))),
        )
        for chain in chains
    )
    return (*jumps, DROP)


def match_rule(direction: Direction, match: Match) -> bytes:
    """A rule of a policy's chain. The port, and the pod that names it, are the destination's in both directions."""
    rule, family = b"", match.family
    if family is not None:
        rule += _family(family)
        if match.peers:
            peer = family.destination if direction is Direction.EGRESS else family.source
            rule += _address(family, peer) + _lookup(match.peers, R)
        if match.named:
            rule += _address(family, family.destination) + _port(R + family.size // 4)
            rule += _lookup(match.named, R)
    if match.ranges:
        rule += _port(R) + _lookup(match.ranges, R)
    return rule + ACCEPT


def copies_chain(prefix: str) -> Chain:
    """Drop IPv4 frames for several receivers that one pod sends to others: they are not routed, and a frame for all
    may carry a packet for one. (antispoof.py drops those of IPv6.) `prefix` starts the names of this node's
    interfaces."""
    rule = (
        load_meta(META_IIFNAME) + compare(EQ, prefix.encode())
        + load_meta(META_OIFNAME) + compare(EQ, prefix.encode())
        + load_payload(LINK_HEADER, FRAME_KIND, 2) + compare(EQ, ETH_P_IP)
        + load_payload(LINK_HEADER, FRAME_DESTINATION, 1) + bitwise_and(b"\x01") + compare(NEQ, b"\x00")
        + DROP
    )  # fmt: skip
    return Chain("copies", "filter", NF_BR_FORWARD, FILTER, (rule,))
