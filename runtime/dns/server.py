"""The DNS server: answers on sockets that it inherits, from a zone file and the upstream servers.

A query whose bytes, apart from its id, were answered before is answered with the same bytes: no message is parsed or
made. Answers from the zone are kept until the zone changes, upstream answers for a second, so that their TTLs go down.
An answer with several addresses is kept in each rotation, and these take turns.

It has no privileges, and reads one file by the descriptor of its directory. Its parent is supervisor.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from runtime.dns.answers import Answer, Record, Resolver
from runtime.dns.forward import PAYLOAD, Forwarder, ForwardError, Question, Upstream
from runtime.dns.loops import LoopCheck
from runtime.dns.stream import serve_stream
from runtime.dns.wire import rotations
from runtime.dns.zone import ZONE_FILE, Zone

BATCH = 64  # queries read before other work has its turn
KEPT = 20_000  # answers kept as bytes
KEPT_BYTES = (
    16 << 20
)  # of all of them: any spelling of a query is one of its own, and its answer 10 KB in all rotations
KEPT_QUERY = 512  # bytes of a query that is worth keeping
UPSTREAM_KEPT = 1.0  # seconds
BUCKETS = tuple(0.00025 * 2**power for power in range(16))  # seconds; those of CoreDNS
_NEVER = float("inf")
_OPCODE = 0x78  # in the third byte of a message
_COUNTED = {"A", "AAAA", "CNAME", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "TXT"}


@dataclass(slots=True)
class Kept:
    """An answer as bytes without its id, once for each rotation."""

    expires: float
    wires: list[bytes]
    what: tuple[str, str]  # type of the question and response code, for the counters
    turn: int = 0


@dataclass(slots=True)
class Counts:
    """What the metrics show (https://coredns.io/plugins/metrics/)."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # protocol, type
    responses: Counter[tuple[str, str]] = field(default_factory=Counter)  # protocol, response code
    durations: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def add(self, protocol: str, kind: str, rcode: str, seconds: float) -> None:
        self.requests[protocol, kind] += 1
        self.responses[protocol, rcode] += 1
        self.durations[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def to_json(self) -> dict[str, Any]:
        return {
            "requests": [[*key, value] for key, value in self.requests.items()],
            "responses": [[*key, value] for key, value in self.responses.items()],
            "bounds": BUCKETS,
            "durations": self.durations,
            "seconds": self.seconds,
        }


class Server:
    """Answers queries. `handle` is the whole of it: a query's bytes in, an answer's bytes out."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._resolver = Resolver(Zone(domain="cluster.local"))
        self._forwarder = Forwarder()
        self._loops = LoopCheck(self._forwarder)
        self._kept: dict[bytes, Kept] = {}
        self._kept_bytes = 0  # at most: an answer that replaces another one counts again
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts = Counts()
        self.loaded = 0.0  # Unix seconds of the last zone
        self.problem = ""  # why the zone file could not be read

    def load(self) -> None:
        """Read the zone. A file that cannot be read leaves the zone as it is, and `problem` says why."""
        try:
            fd = os.open(ZONE_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._directory)
            with open(fd, encoding="utf-8") as file:
                zone = Zone.from_json(json.load(file))
            resolver = Resolver(zone)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.problem = f"cannot read the zone: {error}"
            return
        before = self._resolver.zone
        if (before.upstreams, before.stubs) != (zone.upstreams, zone.stubs):
            self._forwarder.clear()
            self._loops.start(zone.upstreams)
        self._resolver, self.problem, self.loaded = resolver, "", time.time()
        self._kept.clear()
        self._kept_bytes = 0

    def status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "serial": self._resolver.zone.serial,
            "problem": self.problem,
            "looped": self._loops.looped,
            "loaded": self.loaded,
            "counts": self.counts.to_json(),
            "forward": {**self._forwarder.counts, "kept": self._forwarder.kept},
        }

    def read_datagrams(self, sock: socket.socket) -> None:
        """Answer the queries that wait in a UDP socket."""
        for _ in range(BATCH):
            try:
                query, client = sock.recvfrom(4096)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error of an earlier answer
            began = time.monotonic()
            answer = self._known(query, "udp", began)
            if answer is not None:
                _send(sock, answer, client)
                continue
            task = asyncio.ensure_future(self._answer_later(sock, query, client, began))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer_later(self, sock: socket.socket, query: bytes, client: Any, began: float) -> None:
        answer = await self.handle(query, client[0], "udp", began)
        if answer is not None:
            _send(sock, answer, client)

    def _known(self, query: bytes, protocol: str, began: float) -> bytes | None:
        kept = self._kept.get(query[2:])
        if kept is None or kept.expires <= began:
            return None
        wires = kept.wires
        kept.turn = turn = (kept.turn + 1) % len(wires)
        self.counts.add(protocol, *kept.what, time.monotonic() - began)
        return query[:2] + wires[turn]

    async def handle(self, query: bytes, client: str, protocol: str, began: float) -> bytes | None:
        """Return the answer to a query, or None if the datagram is not a query."""
        if len(query) < 12 or query[2] & 0x80:
            return None  # no header, or an answer: two servers must not answer each other
        if query[2] & _OPCODE:  # other messages have other forms: an update is no question that could be read
            self.counts.add(protocol, "other", "NOTIMP", time.monotonic() - began)
            return _header(query, dns.rcode.NOTIMP)
        try:
            message = dns.message.from_wire(query, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            self.counts.add(protocol, "other", "FORMERR", time.monotonic() - began)
            return _header(query, dns.rcode.FORMERR)
        response = dns.message.make_response(message, recursion_available=True, our_payload=PAYLOAD)
        lifetime = await self._fill(message, response, client)
        limit = 65535 if protocol == "tcp" else max(512, min(message.payload or 512, PAYLOAD))
        wires = rotations(response, limit)
        kind = dns.rdatatype.to_text(message.question[0].rdtype) if message.question else "other"
        what = (kind if kind in _COUNTED else "other", dns.rcode.to_text(response.rcode()))
        self.counts.add(protocol, *what, time.monotonic() - began)
        if lifetime and protocol == "udp" and len(query) <= KEPT_QUERY:
            self._keep(query[2:], Kept(time.monotonic() + lifetime, [wire[2:] for wire in wires], what))
        return wires[0]

    def _keep(self, query: bytes, answer: Kept) -> None:
        size = len(query) + sum(map(len, answer.wires))
        if len(self._kept) >= KEPT or self._kept_bytes + size > KEPT_BYTES:
            self._kept.clear()
            self._kept_bytes = 0
        self._kept[query] = answer
        self._kept_bytes += size

    async def _fill(self, message: dns.message.Message, response: dns.message.Message, client: str) -> float:
        """Put the answer into the response. Returns the seconds for which its bytes stay true; 0 for none."""
        if len(message.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
            return 0
        if message.edns > 0:
            response.set_rcode(dns.rcode.BADVERS)
            return 0
        asked = message.question[0]
        if asked.rdclass != dns.rdataclass.IN or asked.rdtype in (dns.rdatatype.AXFR, dns.rdatatype.IXFR):
            response.set_rcode(dns.rcode.REFUSED)
            return 0
        name = asked.name.to_text(omit_final_dot=True).lower()
        if self._loops.is_probe(name):
            response.set_rcode(dns.rcode.REFUSED)
            return 0
        found = self._resolver.lookup(name, asked.rdtype)
        if found is None:
            return await self._forward(message, response, asked.name, client)
        self._own(response, asked.name, found)
        if not found.further:
            return _NEVER
        return await self._forward(message, response, dns.name.from_text(found.further), client)

    def _own(self, response: dns.message.Message, asked: dns.name.Name, found: Answer) -> None:
        response.flags |= dns.flags.AA
        response.set_rcode(dns.rcode.Rcode(found.code))
        ttl = self._resolver.zone.ttl
        response.answer = _rrsets(found.records, ttl, asked)
        response.additional = _rrsets(found.additional, ttl, asked)
        if not found.records:
            response.authority = _rrsets((self._resolver.soa(),), ttl, asked)

    async def _forward(
        self, message: dns.message.Message, response: dns.message.Message, name: dns.name.Name, client: str
    ) -> float:
        kind = message.question[0].rdtype
        if not message.flags & dns.flags.RD or self._loops.looped:
            response.set_rcode(dns.rcode.REFUSED)
            return 0
        lower = name.canonicalize()
        question = Question(
            lower, kind, bool(message.ednsflags & dns.flags.DO), bool(message.flags & dns.flags.CD)
        )
        servers = self._resolver.servers(lower.to_text(omit_final_dot=True))
        try:
            found = await self._forwarder.ask(question, servers, client)
        except ForwardError:
            response.set_rcode(dns.rcode.SERVFAIL)
            return 0
        response.set_rcode(dns.rcode.Rcode(found.rcode))
        response.answer += _aged(found, found.answer, name)
        response.authority += _aged(found, found.authority, name)
        return max(0.0, min(UPSTREAM_KEPT, found.expires - time.monotonic()))


def _aged(found: Upstream, rrsets: Sequence[dns.rrset.RRset], asked: dns.name.Name) -> list[dns.rrset.RRset]:
    """The records with the TTL that is left of theirs, and with the asked name as it was written."""
    age = int(time.monotonic() - found.received)
    aged = []
    for rrset in rrsets:
        name = asked if rrset.name == asked else rrset.name
        aged.append(dns.rrset.from_rdata_list(name, max(0, rrset.ttl - age), list(rrset)))
    return aged


def _rrsets(records: Sequence[Record], ttl: int, asked: dns.name.Name) -> list[dns.rrset.RRset]:
    grouped: dict[tuple[str, int], list[str]] = {}
    for record in records:
        grouped.setdefault((record.name, record.type), []).append(record.data)
    found = []
    for (text, kind), values in grouped.items():
        name = dns.name.from_text(text)
        name = asked if name == asked else name  # the client's own spelling, upper or lower case
        found.append(dns.rrset.from_rdata_list(name, ttl, [_rdata(kind, value) for value in values]))
    return found


@lru_cache(maxsize=8192)
def _rdata(kind: int, text: str) -> dns.rdata.Rdata:
    """A record's data: parsing it takes ten times as long as finding it here."""
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.RdataType(kind), text)


def _header(query: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """An answer without a question: the query's id, operation and flag RD, and the response code."""
    return query[:2] + bytes([query[2] & 0x79 | 0x80, rcode]) + bytes(8)


def _send(sock: socket.socket, answer: bytes, client: Any) -> None:
    with contextlib.suppress(OSError):  # the client is gone, or its buffer is full: it asks again
        sock.sendto(answer, client)


async def _serve(
    udp: Sequence[socket.socket], tcp: Sequence[socket.socket], control: socket.socket, directory: int
) -> None:
    server = Server(directory)
    server.load()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    for sock in udp:
        loop.add_reader(sock, server.read_datagrams, sock)

    async def command(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A line from the daemon: `reload` or `status`. The answer is the status as JSON."""
        try:
            async with asyncio.timeout(5):
                if await reader.readline() == b"reload\n":
                    server.load()
                writer.write(json.dumps(server.status()).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass
        finally:
            writer.close()

    streams = [await serve_stream(sock, server.handle) for sock in tcp]
    if sys.version_info >= (
        3,
        13,
    ):  # from there on, asyncio removes the socket's file, which is the supervisor's
        streams.append(await asyncio.start_unix_server(command, sock=control, cleanup_socket=False))
    else:
        streams.append(await asyncio.start_unix_server(command, sock=control))
    gc.freeze()
    await ended.wait()
    for sock in udp:
        loop.remove_reader(sock)
    for stream in streams:
        stream.close()


def serve(
    udp: Sequence[socket.socket], tcp: Sequence[socket.socket], control: socket.socket, directory: int
) -> None:
    """Answer until SIGTERM. The sockets are bound, do not block, and listen where they are TCP."""
    asyncio.run(_serve(udp, tcp, control, directory))
