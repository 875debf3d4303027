"""NetworkPolicies as plain data: rules, and which of them apply to which pod.

Nothing here touches the kernel, and imports are cheap: the daemon decides these values, and the network helper carries
them out. Every choice (selectors, defaults, named ports of pods) has been made before. Pods have no addresses here,
because a pod gets its address later: the helper adds it, before the pod's first packet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Block:
    """A range of addresses of one family, both ends included."""

    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Peers:
    """Pods that are members of `group` ("": none), and addresses."""

    group: str = ""
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports of TCP, UDP or SCTP, both ends included."""

    protocol: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, order=True)
class NamedPort:
    """A port by the name that the destination's containers give it."""

    protocol: str
    name: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Ranges that do not overlap, and names."""

    ranges: tuple[PortRange, ...] = ()
    named: tuple[NamedPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows connections from or to `peers` (None: anywhere) at `ports` (None: all ports and protocols)."""

    peers: Peers | None = None
    ports: Ports | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, by "namespace/name". `ingress` and `egress`: what it allows; None: it does not restrict that
    direction."""

    name: str
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """Build a policy from to_json()'s form. Raises KeyError or TypeError for anything else."""
        rules = {
            name: None if data[name] is None else tuple(_rule(one) for one in data[name])
            for name in ("ingress", "egress")
        }
        return cls(data["name"], **rules)


@dataclass(frozen=True, slots=True)
class PodRules:
    """What policies mean for one pod.

    `ingress` and `egress` are the names of the policies that restrict the pod in that direction, sorted; None: it is
    not restricted. `groups` are those of which it is a member, `ports` the numbers of its named ports that rules use.
    `address` is "" for a pod, whose address the helper knows, and set for a server of the node that stands for a pod.
    """

    uid: str
    ingress: tuple[str, ...] | None = None
    egress: tuple[str, ...] | None = None
    groups: tuple[str, ...] = ()
    ports: tuple[tuple[NamedPort, int], ...] = ()
    address: str = ""

    @property
    def restricted(self) -> bool:
        return self.ingress is not None or self.egress is not None

    @property
    def concerned(self) -> bool:
        """Whether any rule knows the pod."""
        return self.restricted or bool(self.groups or self.ports or self.address)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PodRules:
        """Build it from to_json()'s form. Raises KeyError or TypeError for anything else."""
        lists = {name: _tuple(data[name]) for name in ("ingress", "egress", "groups")}
        ports = tuple((NamedPort(**port), number) for port, number in data["ports"])
        return cls(**{**data, **lists, "ports": ports})


@dataclass(frozen=True, slots=True)
class PolicySet:
    """All policies of a node, sorted by name, and all pods that they concern."""

    policies: tuple[Policy, ...] = ()
    pods: tuple[PodRules, ...] = ()


def _rule(data: Mapping[str, Any]) -> Rule:
    peers, ports = data["peers"], data["ports"]
    return Rule(
        None if peers is None else Peers(peers["group"], tuple(Block(**one) for one in peers["blocks"])),
        None
        if ports is None
        else Ports(
            tuple(PortRange(**one) for one in ports["ranges"]),
            tuple(NamedPort(**one) for one in ports["named"]),
        ),
    )


def _tuple(found: Any) -> tuple[str, ...] | None:
    return None if found is None else tuple(found)
