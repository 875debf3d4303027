"""Questions about other names: asks the upstream servers, and keeps their answers for a while.

An answer counts if it comes from the server that was asked, to the port that asked, with the id and the question that
were sent (RFC 5452): each query has a random id and a socket of its own, connected to the server. Of an answer, only
records of the question's own chain of names are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

TRY = 2.0  # seconds for one server
TOTAL = 5.0  # seconds for all of them; resolvers ask again after five (resolv.conf(5), timeout)
PENALTY = 10.0  # seconds for which a server that did not answer is asked last
PAYLOAD = 1232  # bytes of an answer over UDP (https://www.dnsflagday.net/2020/)
MOST = 1000  # queries at once, as CoreDNS' max_concurrent in kubeadm's configuration
MOST_OF_ONE = 250  # of them, for one client
KEEP, KEEP_NEGATIVE = 30, 5  # seconds at most for an answer and for the lack of one
CACHE = 10_000  # answers
LARGEST = 4096  # bytes of an answer that is kept: longer ones would let a client fill the memory


class ForwardError(Exception):
    """No server answered; the message says why."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """What a server said. `expires`: on the monotonic clock; at most KEEP seconds away."""

    rcode: int
    answer: tuple[dns.rrset.RRset, ...]
    authority: tuple[dns.rrset.RRset, ...]
    received: float
    expires: float


@dataclass(frozen=True, slots=True)
class Question:
    """`name` is in lower case. `dnssec`: the client asks for signatures."""

    name: dns.name.Name
    kind: int
    dnssec: bool = False
    checking_disabled: bool = False


class Forwarder:
    """Asks upstream servers. `counts`: name → number, for the metrics."""

    def __init__(self) -> None:
        self._cache: OrderedDict[Question, Upstream] = OrderedDict()
        self._running: dict[Question, asyncio.Task[Upstream]] = {}
        self._clients: dict[str, int] = {}
        self._last_failed: dict[str, float] = {}
        self.counts = dict.fromkeys(
            ("hits", "misses", "forwarded", "failed", "rejected", "mismatched", "evicted"), 0
        )

    def clear(self) -> None:
        """Forget every answer: the servers have changed."""
        self._cache.clear()

    @property
    def kept(self) -> int:
        return len(self._cache)

    def cached(self, question: Question) -> Upstream | None:
        found = self._cache.get(question)
        if found is None or found.expires <= time.monotonic():
            return None
        return found

    async def ask(self, question: Question, servers: Sequence[str], client: str) -> Upstream:
        """The answer of the first server that gives one. The same question of several clients is asked once. Raises
        ForwardError."""
        if found := self.cached(question):
            self.counts["hits"] += 1
            return found
        self.counts["misses"] += 1
        if not servers:
            raise ForwardError("no upstream server is known")
        mine = self._clients.get(client, 0)
        if mine >= MOST_OF_ONE or sum(self._clients.values()) >= MOST:
            self.counts["rejected"] += 1
            raise ForwardError("too many queries wait for the upstream servers")
        self._clients[client] = mine + 1
        try:
            task = self._running.get(question)
            if task is None:
                task = self._running[question] = asyncio.create_task(self._resolve(question, tuple(servers)))
                task.add_done_callback(lambda done: self._finished(question, done))
            return await asyncio.shield(task)
        finally:
            left = self._clients[client] - 1
            if left:
                self._clients[client] = left
            else:
                del self._clients[client]

    def _finished(self, question: Question, task: asyncio.Task[Upstream]) -> None:
        self._running.pop(question, None)
        if not task.cancelled():
            task.exception()  # its askers have it; without any, asyncio would print it

    async def _resolve(self, question: Question, servers: tuple[str, ...]) -> Upstream:
        deadline = time.monotonic() + TOTAL
        problem = ""
        for server in ordered(servers, self._last_failed, time.monotonic()):
            left = min(TRY, deadline - time.monotonic())
            if left <= 0:
                break
            self.counts["forwarded"] += 1
            try:
                async with asyncio.timeout(left):
                    response = await self._exchange(question, server)
            except (OSError, TimeoutError, dns.exception.DNSException) as error:
                self._last_failed[server] = time.monotonic()
                problem = f"{server}: {error or 'no answer'}"
                continue
            self._last_failed.pop(server, None)
            if response.rcode() in (dns.rcode.SERVFAIL, dns.rcode.REFUSED) and server != servers[-1]:
                problem = f"{server}: {dns.rcode.to_text(response.rcode())}"
                continue
            return self._keep(question, response)
        self.counts["failed"] += 1
        raise ForwardError(problem or "no upstream server answered")

    async def _exchange(self, question: Question, server: str) -> dns.message.Message:
        query = dns.message.make_query(
            question.name,
            dns.rdatatype.RdataType(question.kind),
            use_edns=0,
            payload=PAYLOAD,
            want_dnssec=question.dnssec,
        )
        query.id = secrets.randbelow(1 << 16)
        if question.checking_disabled:
            query.flags |= dns.flags.CD
        address, _, port = server.partition("#")
        where = (address, int(port or 53))
        response = await self._over_udp(query, where)
        if response.flags & dns.flags.TC:
            response = await self._over_tcp(query, where)
        return response

    async def _over_udp(self, query: dns.message.Message, where: tuple[str, int]) -> dns.message.Message:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            sock.connect(where)
            await loop.sock_sendall(sock, query.to_wire())
            while True:
                wire = await loop.sock_recv(sock, 65535)
                response = _parsed(wire, query)
                if response is not None:
                    return response
                self.counts["mismatched"] += 1  # spoofed, or late: the true answer may still come

    async def _over_tcp(self, query: dns.message.Message, where: tuple[str, int]) -> dns.message.Message:
        reader, writer = await asyncio.open_connection(*where)
        try:
            wire = query.to_wire()
            writer.write(len(wire).to_bytes(2) + wire)
            size = int.from_bytes(await reader.readexactly(2))
            response = _parsed(await reader.readexactly(size), query)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the connection ended within an answer") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if response is None:
            self.counts["mismatched"] += 1
            raise ConnectionError("the answer is not to the question")
        return response

    def _keep(self, question: Question, response: dns.message.Message) -> Upstream:
        answer = _chain(question, response)
        authority = tuple(rrset for rrset in response.authority if rrset.rdtype == dns.rdatatype.SOA)
        negative = response.rcode() != dns.rcode.NOERROR or not answer
        ttls = [rrset.ttl for rrset in answer] or [_negative_ttl(soa) for soa in authority]
        lifetime = min([*ttls, KEEP_NEGATIVE if negative else KEEP]) if ttls else 0
        now = time.monotonic()
        kept = Upstream(response.rcode(), answer, authority, now, now + lifetime)
        if (
            lifetime
            and _size(answer) <= LARGEST
            and response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
        ):
            self._cache[question] = kept
            self._cache.move_to_end(question)
            if len(self._cache) > CACHE:
                self._cache.popitem(last=False)
                self.counts["evicted"] += 1
        return kept


def ordered(servers: Sequence[str], failed: Mapping[str, float], now: float) -> list[str]:
    """As given, with those last that did not answer a moment ago. `failed`: when each server failed last, in seconds of
    the clock that says `now`; that clock may have begun a moment ago."""
    return sorted(servers, key=lambda server: server in failed and failed[server] > now - PENALTY)


def _parsed(wire: bytes, query: dns.message.Message) -> dns.message.Message | None:
    """The message, if it answers the query."""
    if len(wire) < 12 or int.from_bytes(wire[:2]) != query.id:
        return None
    try:
        response = dns.message.from_wire(wire, raise_on_truncation=False, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None
    same = response.question == query.question and response.flags & dns.flags.QR
    return response if same else None


def _chain(question: Question, response: dns.message.Message) -> tuple[dns.rrset.RRset, ...]:
    """The records of the asked name, and of those that its CNAMEs lead to. Others were not asked for."""
    names = {question.name}
    kept: list[dns.rrset.RRset] = []
    rest = list(response.answer)
    while True:
        found = [rrset for rrset in rest if rrset.name in names]
        if not found:
            return tuple(kept)
        for rrset in found:
            rest.remove(rrset)
            kept.append(rrset)
            if rrset.rdtype == dns.rdatatype.CNAME:
                names |= {rdata.target for rdata in rrset}


def _size(answer: tuple[dns.rrset.RRset, ...]) -> int:
    """About the bytes of the records."""
    return sum(12 + len(rdata.to_wire() or b"") for rrset in answer for rdata in rrset)


def _negative_ttl(soa: dns.rrset.RRset) -> int:
    """RFC 2308, 5: the smaller one of the SOA's TTL and its last number."""
    return min([soa.ttl, *(int(rdata.minimum) for rdata in soa)])
