"""Address leases: which pod has which address, one small file per pod, so that a kill -9 at any line loses nothing.

    <state_dir>/leases/<uid>.json     the Lease of an attached pod
    <state_dir>/leases/<uid>.part     the Lease of a pod during its add or delete; rename(2) moves it to .json and back
    <state_dir>/last                  the address allocated last
    <state_dir>/node                  the node's identity when this state was created

The state directory is part of the run directory: leases end with a reboot, as the namespaces do. The network's first
address is the gateway (the bridge). Addresses are given round-robin, starting after the last one (as in CNI's
host-local), so that a freed address is reused as late as possible. By then peers' ARP caches and half-open connections
of the old pod have expired.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from runtime.errors import NetworkError, SpecError
from runtime.network.plan import Lease, PortMapping, Subnet, host_ifname, identity, mac_of

if TYPE_CHECKING:  # loaded when pods have IPv6 addresses
    from runtime.network.ipv6.plan import Subnet6


class LeaseStore:
    """The leases of one node. Only one process writes them: the helper, which holds the lock of the directory
    (`helper.py`)."""

    def __init__(self, state_dir: str, subnet: Subnet, node: str, subnet6: Subnet6 | None = None) -> None:
        """`subnet6`: the network of the second address of pods that get a lease from now on; None: they get none."""
        self._dir = os.path.join(state_dir, "leases")
        self._last_path = os.path.join(state_dir, "last")
        self._name_path = os.path.join(state_dir, "node")
        self._subnet = subnet
        self._subnet6 = subnet6
        self._node = node
        self.warnings: list[str] = []
        os.makedirs(self._dir, mode=0o700, exist_ok=True)
        self._leases: dict[str, Lease] = {}
        self._turn = 0  # index of the lease with which next() begins
        self._load()
        self._last_file = os.open(self._last_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._last = os.pread(self._last_file, 15, 0).decode(errors="replace").strip()

    def get(self, uid: str) -> Lease | None:
        return self._leases.get(uid)

    def all(self) -> list[Lease]:
        return list(self._leases.values())

    def next(self, count: int | None) -> list[Lease] | None:
        """The next `count` leases in turn; None if that is all of them."""
        leases = self.all()
        if count is None or count >= len(leases):
            return None
        start, self._turn = self._turn % len(leases), (self._turn + count) % len(leases)
        return [*leases[start:], *leases[:start]][:count]

    def addresses(self, uid: str) -> tuple[str, ...]:
        """The addresses of a pod, one of each family that it has."""
        lease = self.get(uid)
        return lease.addresses if lease else ()

    def allocate(
        self, uid: str, *, netns: str, netns_id: str, ports: tuple[PortMapping, ...], had: str = ""
    ) -> Lease:
        """Create a lease and write it as not ready. It gets the pod's earlier address `had` if that is free, else the
        next free one. The uid becomes a file name, so it is checked first. Raises SpecError, or NetworkError
        (AddressPoolExhausted)."""
        if not uid or "/" in uid or uid.startswith(".") or len(uid) > 200:
            raise SpecError(f"pod uid {uid!r} cannot be used as a file name")
        ip = had if self._is_free(had) else self._free_address()
        lease = Lease(
            uid=uid,
            ip=ip,
            mac=mac_of(ip),
            host_ifname=host_ifname(self._node, uid, {held.host_ifname for held in self._leases.values()}),
            netns=netns,
            netns_id=netns_id,
            ports=ports,
            ip6=self._subnet6.address(ip) if self._subnet6 else "",
        )
        self.write_pending(lease)
        self._last = ip
        os.pwrite(self._last_file, f"{ip:15}\n".encode(), 0)
        return lease

    def write_pending(self, lease: Lease) -> None:
        """Write a lease before its pod is attached. A half-written file does no harm, because nothing has been created
        for it yet."""
        with open(self._path(lease.uid, ready=False), "w") as file:
            json.dump(lease.to_json(), file)
        self._leases[lease.uid] = replace(lease, ready=False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(lease.uid, ready=True))

    def mark_ready(self, lease: Lease) -> Lease:
        """Mark a lease as ready: its pod is attached."""
        ready = replace(lease, ready=True)
        os.rename(self._path(lease.uid, ready=False), self._path(lease.uid, ready=True))
        self._leases[lease.uid] = ready
        return ready

    def mark_pending(self, lease: Lease) -> None:
        """Mark a lease as not ready while its pod is deleted. Its ports become free; its address stays taken."""
        if lease.ready:
            with contextlib.suppress(
                FileNotFoundError
            ):  # removed by hand: the pod can be deleted all the same
                os.rename(self._path(lease.uid, ready=True), self._path(lease.uid, ready=False))
        self._leases[lease.uid] = replace(lease, ports=(), ready=False)

    def update(self, lease: Lease) -> None:
        """Write changed ports of an attached pod."""
        _write(self._path(lease.uid, ready=True), json.dumps(lease.to_json()))
        self._leases[lease.uid] = lease

    def remove(self, uid: str) -> None:
        for ready in (True, False):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(uid, ready=ready))
        self._leases.pop(uid, None)

    def clear(self) -> None:
        """Delete all leases and the directory."""
        for uid in list(self._leases):
            self.remove(uid)
        for path in (self._last_path, self._name_path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(self._dir)

    def _path(self, uid: str, *, ready: bool) -> str:
        return os.path.join(self._dir, f"{uid}.{'json' if ready else 'part'}")

    def _load(self) -> None:
        """Read every lease. Half-written files of a crash are deleted. A damaged lease is set aside, with a warning."""
        for name in sorted(os.listdir(self._dir)):
            path = os.path.join(self._dir, name)
            ready = name.endswith(".json")
            if name.endswith(".tmp"):
                os.unlink(path)
            elif ready or name.endswith(".part"):
                try:
                    with open(path) as file:
                        lease = Lease.from_json({**json.load(file), "ready": ready})
                except (ValueError, TypeError, KeyError, RecursionError) as error:
                    if ready:
                        os.rename(path, f"{path}.damaged")
                        self.warnings.append(f"lease {path} is damaged and was set aside: {error}")
                    else:
                        os.unlink(path)
                    continue
                self._leases[lease.uid] = lease

    def _is_free(self, ip: str) -> bool:
        """Whether a pod may have this address."""
        try:
            address = ipaddress.IPv4Address(ip)
        except ValueError:
            return False
        subnet = self._subnet
        reserved = (str(subnet.network.network_address), subnet.gateway, subnet.broadcast)
        return (
            address in subnet.network
            and ip not in reserved
            and all(lease.ip != ip for lease in self._leases.values())
        )

    def _free_address(self) -> str:
        used = {lease.ip for lease in self._leases.values()}
        for candidate in self._ring():
            if candidate not in used:
                return candidate
        raise NetworkError(
            f"no free address in the pod network {self._subnet.network}: all {len(used)} are in use; "
            "remove pods, or give the node a larger pod CIDR",
            reason="AddressPoolExhausted",
        )

    def _ring(self) -> Iterator[str]:
        """Yield every address a pod may have, starting after the last one given. Lazy, because a /8 has 16 million."""
        base = int(self._subnet.network.network_address)
        first, count = (
            2,
            self._subnet.network.num_addresses - 3,
        )  # without network, gateway and broadcast address
        start = 0
        if self._last:
            with contextlib.suppress(ValueError):
                start = int(type(self._subnet.network.network_address)(self._last)) - base - first + 1
        address = type(self._subnet.network.network_address)
        for step in range(count):
            yield str(address(base + first + (start + step) % count))


def recorded_identity(state_dir: str, node: str, *, named_alone: Callable[[], bool]) -> str:
    """The node's identity when this state was created. Interfaces and tables are named after it, and a machine renamed
    while pods run must find them again. `named_alone` is asked if there is no record: whether kubelite up to 0.2
    created the interfaces and tables, which it named after the node alone."""
    path = os.path.join(state_dir, "node")
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        if known := file.read():
            return known
    made = node if named_alone() else identity(node, os.path.realpath(state_dir))
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    _write(path, made)
    return made


def _write(path: str, text: str) -> None:
    """Replace the file atomically. No fsync: leases mean nothing after a crash of the machine."""
    temporary = f"{path}.tmp"
    with open(temporary, "w") as file:
        file.write(text)
    os.rename(temporary, path)
