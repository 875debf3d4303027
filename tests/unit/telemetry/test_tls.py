"""TLS on the TCP port: certificates of the server and of clients, their renewal, and handshakes that do not end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID as Use
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kubelite.api.server import serving
from kubelite.settings import Settings, SettingsError
from kubelite.telemetry.web import guard, tls
from kubelite.telemetry.web.access import ClientCertificates, Tokens
from kubelite.telemetry.web.guard import MOST, Guarded
from kubelite.telemetry.web.tls import Certificates, Files, Handshakes
from runtime.errors import RuntimeFault
from tests.certificates import DAY, Authority

BIG = 32 << 20
TOKEN = "a-token-of-some-length"


class Site:
    """The files of a server, and contexts of its clients."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ours, self.foreign = Authority(directory, "ours"), Authority(directory, "foreign")
        self.files = Files(str(directory / "server.crt"), str(directory / "server.key"), str(self.ours.file))
        self.renew(100)

    def renew(self, serial: int, *, key: bool = True) -> None:
        certificate, private = self.ours.issue(serial=serial)
        (self.directory / "server.crt").write_bytes(certificate)
        if key:
            (self.directory / "server.key").write_bytes(private)

    def client(self, *pair: bytes) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ours.file))
        if pair:
            both = self.directory / "client.pem"
            both.write_bytes(b"".join(pair))
            context.load_cert_chain(both)
        return context

    @contextlib.asynccontextmanager
    async def served(self, *, token: str = "") -> AsyncIterator[int]:
        async def small(_: Request) -> Response:
            return PlainTextResponse("hello\n")

        async def big(_: Request) -> Response:
            return PlainTextResponse(b"x" * BIG)

        app = Starlette(routes=[Route("/", small), Route("/healthz", small), Route("/big", big)])
        inner = Tokens(app, token) if token else app
        listener = socket.create_server(("127.0.0.1", 0))
        begin = Handshakes(Certificates(self.files)).begin
        async with serving(ClientCertificates(inner), [listener], http=Guarded, begin=begin):
            yield int(listener.getsockname()[1])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def ask(port: int, context: ssl.SSLContext, path: str = "/", header: str = "") -> tuple[int, int]:
    """Send one request. Return the status and the serial number of the server's certificate."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n".encode())
        status = int((await reader.readline()).split()[1])
        server = x509.load_der_x509_certificate(
            writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        )
        writer.close()
    return status, server.serial_number


async def test_all_but_health_checks_need_a_client_certificate(site: Site) -> None:
    mine = site.client(*site.ours.issue(serial=2, use=Use.CLIENT_AUTH))
    async with site.served() as port:
        assert await ask(port, site.client()) == (401, 100)
        assert await ask(port, site.client(), "/healthz") == (200, 100)
        assert await ask(port, mine) == (200, 100)


@pytest.mark.parametrize("wrong", ["foreign", "for servers", "expired", "not yet valid"])
async def test_a_wrong_client_certificate_ends_the_handshake(site: Site, wrong: str) -> None:
    authority = site.foreign if wrong == "foreign" else site.ours
    use = Use.SERVER_AUTH if wrong == "for servers" else Use.CLIENT_AUTH
    age = {"expired": 2 * DAY, "not yet valid": -DAY / 2}.get(wrong, dt.timedelta(hours=1))
    async with site.served() as port:
        with pytest.raises((OSError, IndexError)):  # TLS 1.3: after the client's part of the handshake
            await ask(port, site.client(*authority.issue(serial=2, use=use, age=age)), "/healthz")
        assert await ask(port, site.client(), "/healthz") == (200, 100)


async def test_a_token_is_needed_in_addition(site: Site) -> None:
    (site.directory / "token").write_text(TOKEN)
    mine = site.client(*site.ours.issue(serial=2, use=Use.CLIENT_AUTH))
    async with site.served(token=str(site.directory / "token")) as port:
        bearer = f"Authorization: Bearer {TOKEN}\r\n"
        assert [(await ask(port, mine))[0], (await ask(port, mine, "/", bearer))[0]] == [401, 200]
        assert (await ask(port, site.client(), "/", bearer))[0] == 401


async def test_a_renewed_certificate_applies_to_the_next_connection(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, tls.__name__)
    async with site.served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=site.client())
        site.renew(200, key=False)
        for _ in range(3):
            assert await ask(port, site.client(), "/healthz") == (200, 100), "the key does not fit yet"
        assert [record.levelname for record in caplog.records] == ["WARNING"], "said once"
        assert "key values mismatch" in caplog.text and "server.key" in caplog.text
        site.renew(300)
        assert await ask(port, site.client(), "/healthz") == (200, 300)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200" in await asyncio.wait_for(reader.readline(), 30), "open connections stay"
        writer.close()


async def test_a_renewed_authority_applies_to_the_next_connection(site: Site) -> None:
    theirs = site.client(*site.foreign.issue(serial=2, use=Use.CLIENT_AUTH))
    mine = site.client(*site.ours.issue(serial=2, use=Use.CLIENT_AUTH))
    async with site.served() as port:
        assert (await ask(port, mine))[0] == 200
        replaced = site.directory / "new"
        replaced.write_bytes(site.foreign.file.read_bytes())
        os.replace(replaced, site.files.client_ca)
        assert (await ask(port, theirs))[0] == 200
        with pytest.raises((OSError, IndexError)):
            await ask(port, mine)


async def test_clients_that_do_not_finish_a_handshake_are_disconnected(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "PATIENCE", 0.3)
    async with site.served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()


async def test_many_unfinished_handshakes_neither_fill_the_node_nor_lock_others_out(site: Site) -> None:
    async with site.served() as port:
        before = len(os.listdir("/proc/self/fd"))
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * MOST)]
        assert await ask(port, site.client(), "/healthz") == (200, 100)
        assert len(os.listdir("/proc/self/fd")) - before <= len(held) + MOST + 2
        for one in held:
            one.close()


async def test_a_client_that_does_not_speak_tls_is_disconnected(site: Site) -> None:
    async with site.served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in await asyncio.wait_for(reader.read(), 30)
        writer.close()


async def test_unsent_bytes_below_tls_count(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads slowly keeps its connection; one that reads nothing loses it."""
    monkeypatch.setattr(guard, "PATIENCE", 0.7)
    async with site.served() as port:
        mine = site.client(*site.ours.issue(serial=2, use=Use.CLIENT_AUTH))
        slow, writer = await asyncio.open_connection("127.0.0.1", port, ssl=mine, limit=1 << 16)
        idle, stuck = await asyncio.open_connection("127.0.0.1", port, ssl=mine, limit=1 << 10)
        for one in (writer, stuck):
            one.write(b"GET /big HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        got = 0
        async with asyncio.timeout(60):
            while got < BIG:
                chunk = await slow.read(1 << 20)
                assert chunk, "ended early"
                got += len(chunk)
                await asyncio.sleep(0.05 if got < BIG // 2 else 0)
        await asyncio.sleep(2)
        rest = 0
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            async with asyncio.timeout(60):
                while chunk := await idle.read(1 << 20):
                    rest += len(chunk)
        assert rest < BIG, "what was not read in time is not sent"
        writer.close()


def test_files_that_cannot_be_used_are_named(site: Site) -> None:
    certificate, locked = site.ours.issue(serial=5, password=b"secret")
    (site.directory / "locked.pem").write_bytes(certificate + locked)
    (site.directory / "empty.pem").write_text("")
    for files, words in (
        (Files(str(site.directory / "none.pem")), "none.pem: No such file or directory"),
        (Files(str(site.directory / "locked.pem")), "locked.pem: "),
        (site.files._replace(key=site.files.certificate), "server.crt: "),
        (site.files._replace(client_ca=str(site.directory / "empty.pem")), "empty.pem: no certificate"),
    ):
        with pytest.raises(RuntimeFault, match=f"^cannot serve metrics over TLS: .*{words}"):
            Certificates(files)


def test_the_settings_need_each_other() -> None:
    for name in ("tls_private_key_file", "client_ca_file"):
        with pytest.raises(SettingsError, match=f"{name.replace('_', '-')}: needs tls_cert_file"):
            Settings.load({name: "/x"}, {})
    assert Settings.load({"tls_cert_file": "/x", "client_ca_file": "/y"}, {}).client_ca_file == "/y"
