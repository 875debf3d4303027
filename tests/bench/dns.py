"""`make bench-dns`: the node's DNS server beside dnsmasq, if that is installed, in one run.

Both answer the same names of Services on loopback. The client costs more than either server, so processor time of the
server is what counts: a core gives 1 / CPU answers a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import dns.message

from runtime.dns.client import DnsClient
from runtime.dns.zone import Entry, Zone

SERVICES = 1000
DOMAIN = "cluster.local"
TICK = os.sysconf("SC_CLK_TCK")
BATCH = 32  # queries on their way at once, where CPU is measured


@dataclass(frozen=True, slots=True)
class Result:
    """`round_trip` and `cpu`: microseconds an answer; `memory`: MB (PSS)."""

    server: str
    round_trip: float
    cpu: float
    a_core: int
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the numbers to a file, too")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as text:
        os.chmod(text, 0o755)
        results.append(asyncio.run(_ours(Path(text), options.queries)))
        if shutil.which("dnsmasq"):
            with _dnsmasq(Path(text)) as (pid, port):
                results.append(_measure("dnsmasq", [pid], port, options.queries))
    print(f"{'server':<10}{'round trip':>12}{'CPU':>10}{'a core':>12}{'memory':>10}")
    for result in results:
        print(
            f"{result.server:<10}{result.round_trip:>9.1f} us{result.cpu:>7.1f} us"
            f"{result.a_core:>10,}/s{result.memory:>7.1f} MB"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))


def _name(number: int) -> str:
    return f"web-{number}.default.svc.{DOMAIN}"


async def _ours(base: Path, queries: int) -> Result:
    port = _free_port()
    client = DnsClient(str(base / "dns"), [f"127.0.0.1#{port}"])
    await client.ensure()
    try:
        names = {_name(number): Entry(a=(_address(number),)) for number in range(SERVICES)}
        server = (await client.publish(Zone(DOMAIN, names)))["pid"]
        parent = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
        return _measure("kubelite", [server, parent], port, queries)
    finally:
        await client.stop()


def _address(number: int) -> str:
    return f"10.89.{number // 250}.{number % 250 + 1}"


@contextlib.contextmanager
def _dnsmasq(base: Path) -> Iterator[tuple[int, int]]:
    port = _free_port()
    hosts = base / "hosts"
    hosts.write_text("".join(f"{_address(number)} {_name(number)}\n" for number in range(SERVICES)))
    command = [
        *(
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ),
        *(
            "--listen-address=127.0.0.1",
            f"--port={port}",
            f"--addn-hosts={hosts}",
            "--user=root",
            "--pid-file",
        ),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _measure(server: str, pids: list[int], port: int, queries: int) -> Result:
    wires = [dns.message.make_query(_name(number), "A").to_wire() for number in range(SERVICES)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.settimeout(5)
        _wait_for(sock, wires[0])
        for wire in wires:
            sock.send(wire)
            sock.recv(4096)
        trips = []
        for turn in range(max(queries // 10, 1)):
            began = time.perf_counter()
            sock.send(wires[turn % SERVICES])
            sock.recv(4096)
            trips.append(time.perf_counter() - began)
        before = _cpu(pids[0])
        for turn in range(queries // BATCH):
            for number in range(BATCH):
                sock.send(wires[(turn * BATCH + number) % SERVICES])
            for _ in range(BATCH):
                sock.recv(4096)
        cpu = (_cpu(pids[0]) - before) / (queries // BATCH * BATCH) * 1e6
    memory = sum(_memory(pid) for pid in pids)
    return Result(server, statistics.median(trips) * 1e6, cpu, round(1e6 / cpu), memory)


def _wait_for(sock: socket.socket, wire: bytes) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            sock.send(wire)
            sock.recv(4096)
            return
        except ConnectionRefusedError:  # it does not listen yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    main()
