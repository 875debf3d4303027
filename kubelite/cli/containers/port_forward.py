"""`kubelite port-forward`: a port of this machine that leads to one of a pod, also to one that listens on the pod's
loopback alone.

Done here, not by the daemon: each connection has a thread that enters the pod's network namespace (setns(2) concerns
the calling thread), connects there, and never comes back. Where the pod is, is asked for each connection anew: one that
was replaced is found again.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, path_of, pod_name
from kubelite.cli.options import client, complete_pods, namespace_option, socket_option
from kubelite.cli.transport.client import Client

CHUNK = 64 * 1024
CONNECT_SECONDS = 10.0


class Pair(NamedTuple):
    """A port here (0: any that is free) and the pod's."""

    local: int
    remote: int


def pair_of(text: str) -> Pair:
    """`8080:80`, `80` (the same on both sides), `:80` (any here). Raises CliError."""
    local, colon, remote = text.rpartition(":")
    words = (local or "0", remote) if colon else (remote, remote)
    if not all(word.isascii() and word.isdigit() and int(word) < 65536 for word in words) or not int(
        words[1]
    ):
        raise CliError(f'error: "{text}" is no pair of ports: say LOCAL:REMOTE, PORT, or :REMOTE', code=2)
    return Pair(int(words[0]), int(words[1]))


@click.command(
    "port-forward",
    cls=Command,
    examples="""
    # Forward local port 8080 to port 80 of a pod
    kubelite port-forward web 8080:80

    # Forward a free local port, which is printed
    kubelite port-forward web :80

    # Listen on all addresses
    kubelite port-forward --address 0.0.0.0 web 8080:80
    """,
)
@click.argument("pod", shell_complete=complete_pods)
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]REMOTE...")
@namespace_option
@click.option(
    "--address",
    default="localhost",
    show_default=True,
    metavar="ADDRESS,...",
    help="Addresses to listen on; 0.0.0.0 for all.",
)
@socket_option
@click.pass_context
def port_forward(
    ctx: click.Context, pod: str, ports: tuple[str, ...], namespace: str | None, address: str
) -> None:
    """Forward local ports to a pod.

    TCP connections are forwarded until the command ends.
    """
    server, where = client(ctx), (namespace or "default", pod_name(pod))
    pairs = [pair_of(text) for text in ports]
    server.get(path_of(PODS, *where))
    os.close(_namespace(server, where))  # no permission, no sandbox: said before anybody is let in
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as listeners:
        for pair in pairs:
            for listener in _listening(address, pair.local):
                listeners.register(stack.enter_context(listener), selectors.EVENT_READ, pair)
                name, port, *_ = listener.getsockname()
                shown = f"[{name}]" if ":" in name else name
                print(f"Forwarding from {shown}:{port} -> {pair.remote}", flush=True)
        while True:
            for key, _ in listeners.select():
                assert isinstance(key.fileobj, socket.socket)
                connection, _ = key.fileobj.accept()
                print(f"Handling connection for {connection.getsockname()[1]}", flush=True)
                arguments = (server, where, key.data.remote, connection)
                threading.Thread(target=_forward, args=arguments, daemon=True).start()


def _listening(addresses: str, port: int) -> Iterator[socket.socket]:
    """Sockets at each of the addresses, all at one port; localhost is both loopbacks, the second where there is one (as
    kubectl's). Raises CliError."""
    for word in addresses.split(","):
        for host in ("127.0.0.1", "::1") if word == "localhost" else (word,):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                listener = socket.create_server((host, port), family=family)
            except OSError as error:
                if word == "localhost" and family == socket.AF_INET6:
                    continue
                raise CliError(f"error: unable to listen on {host}:{port}: {error.strerror}") from error
            port = port or listener.getsockname()[1]
            yield listener


def _namespace(server: Client, where: tuple[str, str]) -> int:
    """A descriptor of the network namespace that the pod has now. Raises CliError."""
    namespace, name = where
    sandbox: dict[str, Any] | None = server.get(f"/kubelite/v1/inspect/{namespace}/{name}").get("sandbox")
    if not sandbox or not sandbox.get("pid"):
        raise CliError(f"error: pod {name} has no sandbox now: `kubelite why {name}` says why")
    try:
        return os.open(f"/proc/{sandbox['pid']}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CliError(f"error: cannot enter the network of pod {name}: {error.strerror}") from error


def _forward(server: Client, where: tuple[str, str], port: int, connection: socket.socket) -> None:
    """One connection, to its end. In a thread of its own, which is the pod's from the setns on."""
    from runtime import syscalls

    with connection:
        try:
            namespace = _namespace(server, where)
            try:
                syscalls.setns(namespace, syscalls.CLONE_NEWNET, about="the pod's network namespace")
            finally:
                os.close(namespace)
            pod = _connected(port)
        except (CliError, OSError) as error:
            words = str(error).removeprefix("error: ")
            print(f"error: an error occurred forwarding to {port}: {words}", file=sys.stderr, flush=True)
            return
        with pod:
            back = threading.Thread(target=_copy, args=(pod, connection), daemon=True)
            back.start()
            _copy(connection, pod)
            back.join()


def _connected(port: int) -> socket.socket:
    """To the pod's loopback, of either family. Raises OSError, that of the first."""
    try:
        found = socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS)
    except OSError as first:
        try:
            found = socket.create_connection(("::1", port), CONNECT_SECONDS)
        except OSError:
            raise first from None
    found.settimeout(None)
    return found


def _copy(source: socket.socket, destination: socket.socket) -> None:
    """All that comes, and then its end; the other direction goes on."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            destination.sendall(data)
    with contextlib.suppress(OSError):
        destination.shutdown(socket.SHUT_WR)
