"""Reserve host ports: a published port is also bound on the host, as docker's proxy does.

DNAT happens before the socket look-up, so publishing a port would silently cut off a process that listens on it
(publish 22, and ssh no longer works). bind(2) fails if a process listens on the port. While the socket is bound, no
other process, no other node in this network namespace and no ephemeral port can use it. These sockets never receive
anything: packets for the port are redirected earlier.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

from runtime.errors import NetworkError
from runtime.network.plan import ANY_ADDRESS, ANY_ADDRESS6, PortMapping


class PortSockets:
    """The sockets that reserve published ports, in the network namespace in which they are opened."""

    def __init__(self, *, ipv6: bool = False) -> None:
        """`ipv6`: ports without an address are reserved at every IPv6 address, too."""
        self._ipv6 = ipv6
        self._held: dict[str, dict[PortMapping, socket.socket]] = {}

    def hold(self, uid: str, ports: Sequence[PortMapping]) -> None:
        """Reserve exactly these ports for the pod. Raises NetworkError (HostPortConflict) if a process of the host uses
        one of them, or if the host does not have the address. Then the pod keeps its earlier ports."""
        before = self._held.get(uid, {})
        with contextlib.ExitStack() as undo:
            new = {}
            for port in ports:
                if port not in before:
                    new[port] = undo.enter_context(_bound(port, ipv6=self._ipv6))
            undo.pop_all()
        for port, held in before.items():
            if port in ports:
                new[port] = held
            else:
                held.close()
        if new:
            self._held[uid] = new
        else:
            self._held.pop(uid, None)

    def release(self, uid: str) -> None:
        for held in self._held.pop(uid, {}).values():
            held.close()

    def release_all(self) -> None:
        for uid in list(self._held):
            self.release(uid)


def _bound(port: PortMapping, *, ipv6: bool) -> socket.socket:
    """Bind a socket to the port. Without SO_REUSEADDR no other socket can bind to it, but ended connections in
    TIME_WAIT make bind fail. In that case SO_REUSEADDR is set, and listen(2) then shows whether another socket uses the
    port."""
    tcp = port.protocol == "TCP"
    address = port.host_ip or (ANY_ADDRESS6 if ipv6 else ANY_ADDRESS)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    result = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            result.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bool(port.host_ip))
        try:
            result.bind((address, port.host_port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not tcp:
                raise
            result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            result.bind((address, port.host_port))
            result.listen(0)
    except OSError as error:
        result.close()
        raise _refusal(port, error) from error
    return result


def _refusal(port: PortMapping, error: OSError) -> NetworkError:
    if error.errno == errno.EADDRINUSE:
        return NetworkError(
            f"host port {port.describe()} is in use by a process of the host (find it with: ss -lnp "
            f"'sport = :{port.host_port}'); stop it or choose another hostPort",
            reason="HostPortConflict",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return NetworkError(f"host port {port.describe()}: the host has no address {port.address}")
    return NetworkError(f"host port {port.describe()} cannot be bound: {error.strerror}")
