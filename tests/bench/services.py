"""What Services cost: a change among 1,000 Services of 10 endpoints, memory, connections, packets.

python -m tests.bench.services [--services 1000] [--endpoints 10] [--times 4000]

A node's network with two pods, in network namespaces of its own; nothing leaves them. A connection is connect, one
request, one answer; a round trip is a request and an answer on an open connection. The client alternates between the
pod's own address and the cluster IP, so that a drifting speed of the machine affects both equally, and the medians are
compared. The first line is the node without Services, where the bridge switches the frames between the pods; the next
ones are with one Service and with all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.network.client import NetworkClient
from runtime.network.services.plan import Endpoint, ServiceNetwork, ServicePort
from tests.bench.account import pss_kib
from tests.kernel.netlab import Lab, Netns, lab

NETWORK = ServiceNetwork("10.96.0.0/16", (30000, 32767))
SERVED, PORT = "10.96.0.10", 80
CHANGES = 300

_SERVER = """
import socket, sys
listener = socket.create_server(("0.0.0.0", 8080), backlog=1000)
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while connection.recv(100):
            connection.send(b"answer")
    except ConnectionResetError:
        pass
    connection.close()
"""
# Connections end with RST, so that no ports are left in TIME_WAIT.
_CLIENT = """
import json, socket, statistics, struct, sys, time
times, *places = json.loads(sys.argv[1])
def connected(place):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.connect(tuple(place))
    return one
def ask(one):
    one.send(b"request")
    one.recv(100)
found = {"connect": [[] for _ in places], "trip": [[] for _ in places]}
for _ in range(times):
    for place, took in zip(places, found["connect"]):
        began = time.perf_counter()
        one = connected(place)
        ask(one)
        one.close()
        took.append(time.perf_counter() - began)
for _ in range(times // 50):
    for place, took in zip(places, found["trip"]):
        with connected(place) as one:
            for _ in range(50):
                began = time.perf_counter()
                ask(one)
                took.append(time.perf_counter() - began)
print(json.dumps({key: [statistics.median(took) * 1e6 for took in lists] for key, lists in found.items()}))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians in µs: connections and round trips, to the pod's address and to the cluster IP (0: not measured)."""

    connect: float
    trip: float
    service_connect: float = 0.0
    service_trip: float = 0.0


@dataclass(frozen=True, slots=True)
class Changes:
    """Times in ms of the first set-up and of a change; memory in MB that the helper and the kernel need for it."""

    setup: float
    median: float
    slowest: float  # of a hundred
    helper: float
    kernel: float


def ports(services: int, endpoints: int, server: Endpoint) -> list[ServicePort]:
    """Services whose endpoints exist nowhere, after one that is served by `server`."""
    found = [ServicePort("bench/served:80/TCP", "TCP", PORT, (SERVED,), endpoints=(server,))]
    for number in range(1, services):
        first = number * endpoints
        targets = tuple(Endpoint(f"10.{200 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}", 8080)
                        for n in range(first, first + endpoints))  # fmt: skip
        address = f"10.96.{1 + number // 250}.{number % 250 + 1}"
        found.append(ServicePort(f"bench/{number}:80/TCP", "TCP", PORT, (address,), endpoints=targets))
    return found


@contextlib.contextmanager
def running(ns: Netns) -> Iterator[None]:
    command = [sys.executable, "-c", _SERVER]
    server = ns.run(lambda: subprocess.Popen(command, stdout=subprocess.PIPE))
    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield
    finally:
        server.kill()
        server.wait()


def cost(ns: Netns, times: int, pod: str, *, served: bool) -> Cost:
    places = [[pod, 8080], *([[SERVED, PORT]] if served else [])]
    command = [sys.executable, "-c", _CLIENT, json.dumps([times, *places])]
    text = ns.run(lambda: subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    said = json.loads(text)
    return Cost(
        said["connect"][0], said["trip"][0], *((said["connect"][1], said["trip"][1]) if served else ())
    )


def slab() -> int:
    """Memory of the kernel's objects, in kB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1])
    return 0


async def changes(node: NetworkClient, listed: list[ServicePort]) -> Changes:
    """Set all ports up, then exchange one endpoint of one of them again and again."""
    memory, kernel = pss_kib(node.helper_pid), slab()
    began = time.perf_counter()
    await node.replace_services(NETWORK, listed)
    setup = time.perf_counter() - began
    more, more_kernel = pss_kib(node.helper_pid) - memory, slab() - kernel
    took, port = [], listed[-1]
    for turn in range(CHANGES):
        port = replace(port, endpoints=(*port.endpoints[1:], Endpoint("10.250.0.1", 1024 + turn)))
        began = time.perf_counter()
        await node.change_services([port], [])
        took.append((time.perf_counter() - began) * 1e3)
    took.sort()
    slowest = took[len(took) * 99 // 100]
    return Changes(setup * 1e3, statistics.median(took), slowest, more / 1024, more_kernel / 1024)


async def measure(world: Lab, node: NetworkClient, services: int, endpoints: int, times: int) -> str:
    server, client = world.namespace(), world.namespace()
    pod = (await node.add("server", server.path)).ip
    await node.add("client", client.path)
    with running(server):
        cost(client, times // 4, pod, served=False)
        without = cost(client, times, pod, served=False)
        listed = ports(services, endpoints, Endpoint(pod, 8080))
        await node.replace_services(NETWORK, listed[:1])
        one = cost(client, times, pod, served=True)
        change = await changes(node, listed)
        many = cost(client, times, pod, served=True)
    return table({"no Service": without, "1 Service": one, f"{services:,} Services": many}, change)


def table(costs: Mapping[str, Cost], change: Changes) -> str:
    head = f"{'pod IP':>9} {'cluster IP':>11} {'ratio':>6}"
    lines = [f"{'µs, median':16} {'connect + request':>28}  {'round trip':>28}", f"{'':16} {head}  {head}"]
    for title, row in costs.items():
        connect, trip = f"{row.connect:9.1f}", f"{row.trip:9.1f}"
        if row.service_connect:
            connect += f" {row.service_connect:11.1f} {row.service_connect / row.connect:6.3f}"
            trip += f" {row.service_trip:11.1f} {row.service_trip / row.trip:6.3f}"
        lines.append(f"{title:16} {connect:28}  {trip}")
    lines += [
        "",
        f"one change {change.median:.2f} ms, 99 of 100 below {change.slowest:.2f} ms; set-up {change.setup:.0f} ms",
        f"memory: helper {change.helper:+.1f} MB, kernel {change.kernel:+.1f} MB",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.services", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument(
        "--times", type=int, default=4000, help="connections, and round trips, to each address"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, lab(directory) as world:
        print(
            world.with_node(lambda node: measure(world, node, given.services, given.endpoints, given.times))
        )


if __name__ == "__main__":
    main()
