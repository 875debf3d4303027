"""`kubelite port-forward`: forward local ports to a pod, including ports that listen only on the pod's loopback.

This process forwards, not the daemon. Each connection has a thread that enters the pod's network namespace (setns(2)
affects only the calling thread), connects there and never leaves it. Each connection looks the pod up again, so
forwarding survives the pod's replacement.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import click

from kubelite.cli.containers.chosen_pod import pod_of, running_timeout_option
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import SERVICES, path_of, resource_type
from kubelite.cli.options import (
    client,
    complete_pods_and_workloads,
    complete_ports,
    namespace_option,
    socket_option,
)
from kubelite.cli.transport.client import Client

CHUNK = 64 * 1024
CONNECT_SECONDS = 10.0


class Pair(NamedTuple):
    """A local port (0: any free one) and the pod's port."""

    local: int
    remote: int


def pair_of(text: str, named: Mapping[str, int] = MappingProxyType({})) -> Pair:
    """Parse `8080:80`, `80` (the same on both sides), `:80` (any local port), or a name in place of 80. `named` has the
    names of the pod's ports. Raises CliError."""
    local, colon, remote = text.rpartition(":")
    if remote and not remote.isdigit():
        if remote not in named:
            known = (
                f"has no port of this name, only {', '.join(sorted(named))}" if named else "names no ports"
            )
            raise CliError(
                f'error: invalid ports "{text}": the pod {known}; use LOCAL:REMOTE, PORT, or :REMOTE', code=2
            )
        remote = str(named[remote])
    words = (local or "0", remote) if colon else (remote, remote)
    if not all(word.isascii() and word.isdigit() and int(word) < 65536 for word in words) or not int(
        words[1]
    ):
        raise CliError(f'error: invalid ports "{text}": use LOCAL:REMOTE, PORT, or :REMOTE', code=2)
    return Pair(int(words[0]), int(words[1]))


@click.command(
    "port-forward",
    cls=Command,
    examples="""
    # Forward local port 8080 to port 80 of a pod
    kubelite port-forward web 8080:80

    # Forward local port 8080 to port 80 of a pod of a deployment
    kubelite port-forward deployment/web 8080:80

    # Forward local port 8080 to the pod's port behind port 80 of a service
    kubelite port-forward service/web 8080:80

    # Forward a free local port, which is printed
    kubelite port-forward web :80

    # Forward a local port to the port that the pod names http
    kubelite port-forward web 8080:http

    # Listen on all addresses
    kubelite port-forward --address 0.0.0.0 web 8080:80
    """,
)
@click.argument("pod", metavar="POD | TYPE/NAME", shell_complete=complete_pods_and_workloads)
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]REMOTE...", shell_complete=complete_ports)
@namespace_option
@click.option(
    "--address",
    default="localhost",
    show_default=True,
    metavar="ADDRESS,...",
    help="Addresses to listen on; 0.0.0.0 for all.",
)
@running_timeout_option("1m")
@socket_option
@click.pass_context
def port_forward(
    ctx: click.Context, /, pod: str, ports: tuple[str, ...], namespace: str | None, **options: Any
) -> None:
    """Forward local ports to a pod.

    TCP connections are forwarded until the command ends. REMOTE is a number, or the name of a port in the manifest. Of
    a workload, TYPE/NAME, one pod is chosen as kubectl chooses it: forwarding ends with that pod.
    """
    server = client(ctx)
    pod_now = pod_of(server, namespace or "default", pod, options["pod_running_timeout"])
    where = (namespace or "default", str(pod_now["metadata"]["name"]))
    if (word := pod.partition("/")[0]) != pod and resource_type(word) is SERVICES:
        from kubelite.cli.containers.service_ports import pod_ports

        doc = server.get(path_of(SERVICES, namespace or "default", pod.partition("/")[2]))
        ports = pod_ports(ports, doc, pod_now)
    pairs = [pair_of(text, ports_of(pod_now["spec"])) for text in ports]
    # Report missing permission or a missing sandbox before listening.
    os.close(_namespace(server, where, pairs[0].remote))
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as listeners:
        for pair in pairs:
            for listener in _listening(options["address"], pair.local):
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


def ports_of(spec: dict[str, Any]) -> dict[str, int]:
    """Return the named TCP ports of the pod's containers and sidecars. The first container that has a name wins."""
    found: dict[str, int] = {}
    for key in ("containers", "initContainers"):
        for container in spec.get(key) or ():
            if key == "initContainers" and container.get("restartPolicy") != "Always":
                continue
            for port in container.get("ports") or ():
                if port.get("name") and port.get("protocol", "TCP") == "TCP":
                    found.setdefault(port["name"], port["containerPort"])
    return found


def _listening(addresses: str, port: int) -> Iterator[socket.socket]:
    """Listen on one port of every address. localhost means both loopback addresses, ::1 only if it exists (as in
    kubectl). Raises CliError."""
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


def _namespace(server: Client, where: tuple[str, str], port: int) -> int:
    """Open the pod's current network namespace. The port is for the audit log. Raises CliError."""
    namespace, name = where
    path, query = f"/kubelite/v1/inspect/{namespace}/{name}", {"portForward": port}
    sandbox: dict[str, Any] | None = server.get(path, query=query).get("sandbox")
    if not sandbox or not sandbox.get("pid"):
        raise CliError(f"error: pod {name} has no sandbox: `kubelite why {name}` explains why")
    try:
        return os.open(f"/proc/{sandbox['pid']}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CliError(f"error: cannot enter the network of pod {name}: {error.strerror}") from error


def _forward(server: Client, where: tuple[str, str], port: int, connection: socket.socket) -> None:
    """Forward one connection until it ends. Runs in its own thread, which stays in the pod's namespace after setns."""
    from runtime import syscalls

    with connection:
        try:
            namespace = _namespace(server, where, port)
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
    """Connect to the pod's loopback, IPv4 or IPv6. Raises the OSError of the first attempt."""
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
    """Copy all data, then shut down this direction. The other direction continues."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            destination.sendall(data)
    with contextlib.suppress(OSError):
        destination.shutdown(socket.SHUT_WR)
