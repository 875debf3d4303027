"""The DNS server and its supervisor as processes: what clients get on real sockets, what an upstream server can do, and
what stays when a process is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import pytest_asyncio

from runtime.dns.client import DnsClient, recorded
from runtime.dns.zone import Entry, Zone
from runtime.errors import NetworkError
from tests.waiting import SECONDS, until, until_async

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.asyncio(loop_scope="module"),
]
WEB = "web.shop.svc.cluster.local"
MANY = tuple(f"10.88.{number // 250}.{number % 250 + 1}" for number in range(600))


def _sockets() -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket with the same port."""
    for _ in range(100):
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind(("127.0.0.1", 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:  # another program has the TCP port
            udp.close()
            tcp.close()
        else:
            return udp, tcp
    raise AssertionError("no port is free for both UDP and TCP")


def _free_port() -> int:
    udp, tcp = _sockets()
    with udp, tcp:
        return int(udp.getsockname()[1])


class Upstream:
    """A DNS server of the test, in a thread. `answer` gives the datagrams that a query leads to."""

    def __init__(self) -> None:
        self.udp, self.tcp = _sockets()
        self.tcp.listen()
        self.answer: Callable[[dns.message.Message], list[bytes]] = lambda query: [address(query).to_wire()]
        self.whole: Callable[[dns.message.Message], bytes] = lambda query: address(query).to_wire()
        self.more = 0  # bytes that an answer over TCP promises and does not have
        self.asked: list[str] = []
        self.client: Any = None  # of the last query
        threading.Thread(target=self._serve, daemon=True).start()
        threading.Thread(target=self._serve_stream, daemon=True).start()

    @property
    def name(self) -> str:
        return f"127.0.0.1#{self.udp.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                wire, client = self.udp.recvfrom(4096)
            except OSError:
                return
            query = dns.message.from_wire(wire)
            self.asked.append(query.question[0].name.to_text())
            self.client = client
            for datagram in self.answer(query):
                self.udp.sendto(datagram, client)

    def _serve_stream(self) -> None:
        while True:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(SECONDS)
                size = int.from_bytes(connection.recv(2))
                wire = self.whole(dns.message.from_wire(connection.recv(size)))
                connection.sendall((len(wire) + self.more).to_bytes(2) + wire)

    def close(self) -> None:
        self.udp.close()
        self.tcp.shutdown(socket.SHUT_RDWR)
        self.tcp.close()


def address(query: dns.message.Message, *addresses: str, ttl: int = 60) -> dns.message.Message:
    response = dns.message.make_response(query)
    if query.question[0].rdtype == dns.rdatatype.A:
        name = query.question[0].name
        response.answer.append(dns.rrset.from_text(name, ttl, "IN", "A", *(addresses or ("192.0.2.80",))))
    return response


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DnsClient]:
    directory = tmp_path_factory.mktemp("run") / "dns"
    client = DnsClient(str(directory), [f"127.0.0.1#{_free_port()}"])
    before = os.umask(0o077)  # that of the systemd unit
    try:
        await client.ensure()
    finally:
        os.umask(before)
    yield client
    await client.stop()
    assert recorded(str(directory)) == (0, ())


def _port(client: DnsClient) -> int:
    return int(client.addresses[0].partition("#")[2])


def _zone(*upstreams: str) -> Zone:
    names = {WEB: Entry(a=("10.89.0.5",)), "many.shop.svc.cluster.local": Entry(a=MANY)}
    names["two.shop.svc.cluster.local"] = Entry(a=("10.88.0.1", "10.88.0.2"))
    names["ext.shop.svc.cluster.local"] = Entry(cname="www.example.com")
    return Zone("cluster.local", names, upstreams=upstreams, networks=("10.88.0.0/16",))


async def _ask(client: DnsClient, name: str, kind: str = "A", **options: Any) -> dns.message.Message:
    query = dns.message.make_query(name, kind, **options)
    return await asyncio.to_thread(dns.query.udp, query, "127.0.0.1", SECONDS, _port(client))


def _addresses(response: dns.message.Message) -> list[str]:
    return [str(rdata) for rrset in response.answer if rrset.rdtype == dns.rdatatype.A for rdata in rrset]


async def test_the_server_has_no_privileges(client: DnsClient) -> None:
    pid = (await client.status())["pid"]
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65534"] * 4
    assert (status["Groups"].strip(), status["CapEff"], status["CapPrm"]) == ("", "0" * 16, "0" * 16)
    assert status["NoNewPrivs"] == "1"


async def test_a_zone_is_answered_as_soon_as_it_is_published(client: DnsClient) -> None:
    for number in range(20):
        await client.publish(Zone("cluster.local", {WEB: Entry(a=(f"10.89.1.{number}",))}, serial=number))
        response = await _ask(client, WEB.upper())
        assert _addresses(response) == [f"10.89.1.{number}"]
        assert response.question[0].name.to_text() == WEB.upper() + "."
        assert response.flags & dns.flags.AA


async def test_addresses_take_turns(client: DnsClient) -> None:
    await client.publish(_zone())
    firsts = {_addresses(await _ask(client, "two.shop.svc.cluster.local"))[0] for _ in range(4)}
    assert firsts == {"10.88.0.1", "10.88.0.2"}


async def test_an_answer_too_long_for_udp_comes_over_tcp(client: DnsClient) -> None:
    await client.publish(_zone())
    name = "many.shop.svc.cluster.local"
    for options, most in ((dict[str, Any](), 512), ({"use_edns": 0, "payload": 65535}, 1232)):
        response = await _ask(client, name, **options)
        assert response.flags & dns.flags.TC
        assert most - 16 < len(response.to_wire()) <= most  # it has what fits
    query = dns.message.make_query(name, "A")
    whole = await asyncio.to_thread(dns.query.tcp, query, "127.0.0.1", SECONDS, _port(client))
    assert sorted(_addresses(whole)) == sorted(MANY)


async def test_a_killed_server_loses_no_query(client: DnsClient) -> None:
    await client.publish(_zone())
    for _ in range(5):
        before = (await client.status())["pid"]
        os.kill(before, signal.SIGKILL)
        assert _addresses(await _ask(client, WEB)) == ["10.89.0.5"]
        assert (await client.status())["pid"] != before


async def test_an_external_name_is_followed_upstream(client: DnsClient, upstream: Upstream) -> None:
    await client.publish(_zone(upstream.name))
    response = await _ask(client, "ext.shop.svc.cluster.local")
    assert [rrset.to_text().split(" ", 2)[2] for rrset in response.answer] == [
        "IN CNAME www.example.com.",
        "IN A 192.0.2.80",
    ]


async def test_an_upstream_answer_is_kept(client: DnsClient, upstream: Upstream) -> None:
    await client.publish(_zone(upstream.name))
    for _ in range(3):
        assert _addresses(await _ask(client, "kept.example.com")) == ["192.0.2.80"]
    assert upstream.asked.count("kept.example.com.") == 1


async def test_what_does_not_exist_upstream_does_not_exist(client: DnsClient, upstream: Upstream) -> None:
    def nothing(query: dns.message.Message) -> list[bytes]:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NXDOMAIN)
        soa = "ns.example. root.example. 1 2 3 4 60"
        response.authority.append(dns.rrset.from_text("example.", 60, "IN", "SOA", soa))
        return [response.to_wire()]

    upstream.answer = nothing
    await client.publish(_zone(upstream.name))
    for _ in range(2):
        assert (await _ask(client, "no.example")).rcode() == dns.rcode.NXDOMAIN
    assert upstream.asked.count("no.example.") == 1


async def test_the_next_upstream_is_asked_when_one_is_silent(client: DnsClient, upstream: Upstream) -> None:
    silent = Upstream()
    silent.answer = lambda query: []
    try:
        await client.publish(_zone(silent.name, upstream.name))
        assert _addresses(await _ask(client, "a.example.com")) == ["192.0.2.80"]
        before = len(silent.asked)
        assert _addresses(await _ask(client, "b.example.com")) == ["192.0.2.80"]
        assert len(silent.asked) == before  # it is asked last for a while
    finally:
        silent.close()


async def test_no_upstream_is_servfail_and_own_names_go_on(client: DnsClient) -> None:
    await client.publish(_zone(f"127.0.0.1#{_free_port()}"))
    assert (await _ask(client, "example.com")).rcode() == dns.rcode.SERVFAIL
    assert _addresses(await _ask(client, WEB)) == ["10.89.0.5"]


async def test_answers_that_are_not_to_the_question_are_dropped(
    client: DnsClient, upstream: Upstream
) -> None:
    def lies(query: dns.message.Message) -> list[bytes]:
        other_id = address(query, "198.51.100.1")
        other_id.id = query.id ^ 1
        other_question = address(dns.message.make_query("evil.example", "A", id=query.id), "198.51.100.2")
        more = address(query, "192.0.2.81")
        more.answer.append(dns.rrset.from_text("bank.example.", 60, "IN", "A", "198.51.100.3"))
        query_back = query.to_wire()
        return [b"", b"x" * 40, query_back, other_id.to_wire(), other_question.to_wire(), more.to_wire()]

    upstream.answer = lies
    await client.publish(_zone(upstream.name))
    assert _addresses(await _ask(client, "true.example.com")) == ["192.0.2.81"]
    upstream.answer = lambda query: [address(query).to_wire()]
    assert _addresses(await _ask(client, "bank.example")) == ["192.0.2.80"]


async def test_an_answer_from_another_address_is_dropped(client: DnsClient, upstream: Upstream) -> None:
    """Who guesses the id and the question still has another source: the kernel drops it, or the server would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofer:
        spoofer.bind(("127.0.0.1", 0))

        def spoofed(query: dns.message.Message) -> list[bytes]:
            spoofer.sendto(address(query, "198.51.100.9").to_wire(), upstream.client)
            return [address(query, "192.0.2.82").to_wire()]

        upstream.answer = spoofed
        await client.publish(_zone(upstream.name))
        for number in range(20):
            assert _addresses(await _ask(client, f"spoofed-{number}.example.com")) == ["192.0.2.82"]


async def test_names_that_lead_in_a_circle_end(client: DnsClient, upstream: Upstream) -> None:
    def circle(query: dns.message.Message) -> list[bytes]:
        response = dns.message.make_response(query)
        for name, target in (("a.circle.", "b.circle."), ("b.circle.", "a.circle.")):
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", target))
        return [response.to_wire()]

    upstream.answer = circle
    await client.publish(_zone(upstream.name))
    response = await _ask(client, "a.circle")
    assert len(response.answer) == 2 and not _addresses(response)


async def test_a_connection_that_promises_more_than_it_sends_is_no_answer(
    client: DnsClient, upstream: Upstream
) -> None:
    def cut(query: dns.message.Message) -> list[bytes]:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return [response.to_wire()]

    upstream.answer, upstream.more = cut, 100
    await client.publish(_zone(upstream.name))
    assert (await _ask(client, "short.example.com")).rcode() == dns.rcode.SERVFAIL
    assert _addresses(await _ask(client, WEB)) == ["10.89.0.5"]


async def test_other_names_are_not_asked_for_without_the_wish_for_recursion(
    client: DnsClient, upstream: Upstream
) -> None:
    await client.publish(_zone(upstream.name))
    assert (await _ask(client, "example.com", flags=0)).rcode() == dns.rcode.REFUSED
    assert _addresses(await _ask(client, WEB, flags=0)) == ["10.89.0.5"]
    assert "example.com." not in upstream.asked


async def test_own_names_are_answered_while_a_thousand_queries_wait(
    client: DnsClient, upstream: Upstream
) -> None:
    """One client may have 250 of them: the others are refused at once, and no descriptor is left behind."""
    upstream.answer = lambda query: []
    await client.publish(_zone(upstream.name))
    descriptors = Path(f"/proc/{(await client.status())['pid']}/fd")
    before = len(list(descriptors.iterdir()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as crowd:
        crowd.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        crowd.connect(("127.0.0.1", _port(client)))
        for number in range(1000):
            crowd.send(dns.message.make_query(f"silent-{number}.example.com", "A").to_wire())
            if number % 50 == 0:
                assert _addresses(await _ask(client, WEB)) == ["10.89.0.5"]
        await _until_status(client, lambda status: status["forward"]["rejected"] >= 750)
        assert len(list(descriptors.iterdir())) <= before + 260
    upstream.answer = lambda query: [address(query).to_wire()]
    await client.publish(_zone())
    until(lambda: len(list(descriptors.iterdir())) <= before, "the sockets are closed")


async def _until_status(client: DnsClient, holds: Callable[[dict[str, Any]], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds(await client.status()):
            await asyncio.sleep(0.02)


async def test_a_truncated_upstream_answer_is_asked_over_tcp(client: DnsClient, upstream: Upstream) -> None:
    def cut(query: dns.message.Message) -> list[bytes]:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return [response.to_wire()]

    upstream.answer = cut
    upstream.whole = lambda query: address(query, *(f"192.0.2.{number}" for number in range(1, 60))).to_wire()
    await client.publish(_zone(upstream.name))
    response = await _ask(client, "big.example.com", use_edns=0, payload=1232)
    assert len(_addresses(response)) == 59


async def test_a_loop_is_noticed(client: DnsClient, upstream: Upstream) -> None:
    await client.publish(_zone(client.addresses[0]))

    async def looped() -> bool:
        return bool((await client.status())["looped"])

    deadline = asyncio.get_running_loop().time() + SECONDS
    while not await looped():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    assert (await _ask(client, "example.com")).rcode() == dns.rcode.REFUSED
    assert _addresses(await _ask(client, WEB)) == ["10.89.0.5"]
    await client.publish(_zone(upstream.name))
    assert _addresses(await _ask(client, "example.com")) == ["192.0.2.80"]


async def test_damaged_queries_do_no_harm(client: DnsClient) -> None:
    await client.publish(_zone())
    chance = random.Random(1)
    whole = dns.message.make_query(WEB, "A", use_edns=0, want_dnssec=True).to_wire()
    before = (await client.status())["pid"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(5000):
            wire = bytearray(whole if number % 2 else chance.randbytes(chance.randrange(0, 300)))
            for _ in range(chance.randrange(1, 6)):
                if wire:
                    wire[chance.randrange(len(wire))] = chance.randrange(256)
            sock.sendto(wire, ("127.0.0.1", _port(client)))
            if (
                number % 50 == 0
            ):  # an answer shows that these have been read: none is dropped for want of room
                assert _addresses(await _ask(client, WEB)) == ["10.89.0.5"]
    assert _addresses(await _ask(client, WEB)) == ["10.89.0.5"]
    assert (await client.status())["pid"] == before


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        pytest.param({"rdclass": "CH"}, dns.rcode.REFUSED, id="another class"),
        pytest.param({"rdtype": "AXFR"}, dns.rcode.REFUSED, id="a transfer of the zone"),
        pytest.param({"flags": 5 << 11}, dns.rcode.NOTIMP, id="an update"),
        pytest.param({"use_edns": 1}, dns.rcode.BADVERS, id="a version of EDNS that does not exist"),
    ],
)
async def test_what_is_not_served_is_refused(client: DnsClient, change: dict[str, Any], rcode: int) -> None:
    query = dns.message.make_query(WEB, **{"rdtype": "A", **change})

    def ask() -> dns.message.Message:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SECONDS)
            sock.sendto(query.to_wire(), ("127.0.0.1", _port(client)))
            return dns.message.from_wire(sock.recv(4096))

    assert (await asyncio.to_thread(ask)).rcode() == rcode


async def test_a_damaged_zone_leaves_the_one_before(client: DnsClient) -> None:
    await client.publish(_zone())
    Path(client.directory, "zone.json").write_text("{")
    status = await client._command("reload")
    assert "cannot read the zone" in status["problem"]
    assert _addresses(await _ask(client, WEB)) == ["10.89.0.5"]


async def test_another_daemon_goes_on_with_the_server(client: DnsClient) -> None:
    await client.publish(_zone())
    before = recorded(client.directory)[0]
    later = DnsClient(client.directory, client.addresses)
    await later.ensure()
    assert (later.alive(), recorded(client.directory)[0]) == (True, before)
    later.close()


async def test_a_killed_supervisor_takes_its_server_along_and_is_replaced(client: DnsClient) -> None:
    supervisor, server = recorded(client.directory)[0], (await client.status())["pid"]
    os.kill(supervisor, signal.SIGKILL)
    async with asyncio.timeout(SECONDS):
        await client.ended()
    until(lambda: not Path(f"/proc/{server}").exists(), "the server ends")
    await client.ensure()
    await until_async(lambda: recorded(client.directory)[0] not in (0, supervisor))
    assert (await client.publish(_zone()))["serial"] == 0


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1#{taken.getsockname()[1]}"
        client = DnsClient(str(tmp_path), [where])
        with pytest.raises(NetworkError, match=f"UDP {where}: Address already in use"):
            await client.ensure()
    assert recorded(str(tmp_path)) == (0, ())
