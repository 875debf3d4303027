"""Host ports as the host's own sockets see them: a published port is also bound here, as docker's proxy does.

DNAT happens before sockets are looked at, so a port that some process listens on would be taken away from it silently
(publish 22 and nobody logs in any more). Binding tells: it fails when a process listens there, and while it is held no
other process, no other node in this network namespace and no connection's ephemeral port can take it.
Nothing is ever received on these sockets: what comes for the port is redirected before it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

from runtime.errors import NetworkError
from runtime.network.plan import PortMapping


class HostPorts:
    """The sockets that hold published ports, in the network namespace of their opening."""

    def __init__(self) -> None:
        self._held: dict[str, dict[PortMapping, socket.socket]] = {}

    def hold(self, uid: str, ports: Sequence[PortMapping]) -> None:
        """Hold exactly these ports for the pod. Raises NetworkError (HostPortConflict) when a process of the host has
        one of them, or the host has no such address; then what the pod held before is held still."""
        before = self._held.get(uid, {})
        with contextlib.ExitStack() as undo:
            new = {}
            for port in ports:
                if port not in before:
                    new[port] = undo.enter_context(_bound(port))
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


def _bound(port: PortMapping) -> socket.socket:
    """A socket that has the port. Without SO_REUSEADDR nobody else can bind beside it, but then ended connections in
    TIME_WAIT are in its way: with the option they are not, and listening shows whether anything else is."""
    tcp = port.protocol == "TCP"
    result = socket.socket(
        socket.AF_INET, (socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) | socket.SOCK_CLOEXEC
    )
    try:
        try:
            result.bind((port.address, port.host_port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not tcp:
                raise
            result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            result.bind((port.address, port.host_port))
            result.listen(0)
    except OSError as error:
        result.close()
        raise _refusal(port, error) from error
    return result


def _refusal(port: PortMapping, error: OSError) -> NetworkError:
    if error.errno == errno.EADDRINUSE:
        return NetworkError(
            f"host port {port.describe()} is in use by a process of the host (see: ss -lnp "
            f"'sport = :{port.host_port}'); stop it or choose another hostPort",
            reason="HostPortConflict",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return NetworkError(f"host port {port.describe()}: the host has no address {port.address}")
    return NetworkError(f"host port {port.describe()} can not be taken: {error.strerror}")
