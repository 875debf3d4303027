"""Pure: whether this node can be the load balancer of a Service. Its ports are then open on the node's address, as k3s'
servicelb opens them. Also whether somebody else has a node port of it."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kubelite.kube.json import Json
from kubelite.kube.objects import TERMINAL_PHASES

Port = tuple[str, int]  # protocol and number


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a port of the node's address."""

    protocol: str
    port: int
    words: str  # "service default/web", "pod default/web-0", "a process of this machine"


def wants_address(service: Json) -> bool:
    """Whether the node gives the Service an address. One with a class is left to others."""
    spec = service.get("spec") or {}
    return spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass")


def refusal(service: Json, holders: Iterable[Holder]) -> str:
    """Return why the Service cannot have its ports on the node's address, "" if it can."""
    wanted = {(port.get("protocol", "TCP"), port["port"]) for port in service["spec"].get("ports") or ()}
    for one in sorted(holders, key=lambda found: (found.port, found.protocol, found.words)):
        if (one.protocol, one.port) in wanted:
            return f"port {one.port}/{one.protocol} of the node is taken by {one.words}: the service gets no address"
    return ""


def shadowed(service: Json, holders: Iterable[Holder]) -> list[str]:
    """Return a sentence for each node port that somebody else has, too. As in kube-proxy's nftables mode, no socket
    reserves node ports, and the Service gets the packets."""
    ports = {
        (port.get("protocol", "TCP"), port.get("nodePort")) for port in service["spec"].get("ports") or ()
    }
    found = sorted({one for one in holders if (one.protocol, one.port) in ports}, key=lambda one: one.port)
    return [
        f"node port {one.port}/{one.protocol} is also used by {one.words}, which pods and other machines no longer "
        "reach: choose another nodePort, or another port for it"
        for one in found
    ]


def status(service: Json, addresses: Sequence[str]) -> Json:
    """Return the Service's status with the node's addresses."""
    rest = {key: value for key, value in (service.get("status") or {}).items() if key != "loadBalancer"}
    ingress = [{"ip": address, "ipMode": "VIP"} for address in addresses]
    return {**rest, "loadBalancer": {"ingress": ingress} if ingress else {}}


def own_addresses(addresses: Sequence[str]) -> str:
    """Return the sentence of an event: which addresses of the node have been given."""
    if len(addresses) == 1:
        return f"the address is {addresses[0]}, the node's"
    return f"the addresses are {' and '.join(addresses)}, the node's"


def has_address(service: Json) -> bool:
    return bool(((service.get("status") or {}).get("loadBalancer") or {}).get("ingress"))


def service_holders(services: Iterable[Json], uid: str) -> Iterator[Holder]:
    """Yield the ports of the other Services that have the node's address."""
    for one in services:
        metadata = one["metadata"]
        if metadata.get("uid") == uid or not wants_address(one) or not has_address(one):
            continue
        for port in one["spec"].get("ports") or ():
            words = f"service {metadata['namespace']}/{metadata['name']}"
            yield Holder(port.get("protocol", "TCP"), port["port"], words)


def pod_holders(pods: Iterable[Json], addresses: Collection[str]) -> Iterator[Holder]:
    """Yield the host ports of pods that run, at these addresses of the node."""
    everywhere = ("", *(_every(address) for address in addresses), *addresses)
    for pod in pods:
        if (pod.get("status") or {}).get("phase") in TERMINAL_PHASES:
            continue
        for container in (pod.get("spec") or {}).get("containers") or ():
            for port in container.get("ports") or ():
                if port.get("hostPort") and port.get("hostIP", "") in everywhere:
                    words = f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
                    yield Holder(port.get("protocol", "TCP"), port["hostPort"], words)


def process_holders(tables: Iterable[tuple[str, str]], addresses: Iterable[str]) -> Iterator[Holder]:
    """Yield the ports at which processes of this machine wait. `tables`: protocol, and the text of /proc/net/tcp, tcp6,
    udp or udp6 (proc(5)); `addresses`: the node's."""
    theirs = {*map(_hexadecimal, addresses), "00000000", "0" * 32}
    for protocol, text in tables:
        for line in text.splitlines()[1:]:
            fields = line.split()
            if len(fields) < 4 or fields[3] != ("0A" if protocol == "TCP" else "07"):  # TCP_LISTEN, TCP_CLOSE
                continue
            own, _, port = fields[1].partition(":")
            if own in theirs:
                yield Holder(protocol, int(port, 16), "a process of this machine")


def _every(address: str) -> str:
    return "::" if ":" in address else "0.0.0.0"


def _hexadecimal(address: str) -> str:
    """Return an address as proc(5) has it: words of four bytes, each in the byte order of the machine."""
    packed = ipaddress.ip_address(address).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words)
