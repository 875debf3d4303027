"""TLS on the node's TCP port: the server's certificate, the clients' certificate authority, and handshakes.

The files are looked at when a client connects, so a renewed certificate applies to the next connection without a
restart. Until all files fit together, as between the renewal of a certificate and of its key, the last ones that did
are used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from kubelite.telemetry.web.guard import MOST, PATIENCE, Guarded
from runtime.errors import RuntimeFault

logger = logging.getLogger(__name__)


class Files(NamedTuple):
    """PEM files. `key` is "" if the key is in the certificate's file, `client_ca` if no client is verified."""

    certificate: str
    key: str = ""
    client_ca: str = ""


class UnusableFileError(Exception):
    """A file has no usable certificate or key. The message names it."""


class Certificates:
    """The TLS context of new connections. Raises RuntimeFault if the files cannot be used at first. `what`: what is
    served with them, for the message."""

    def __init__(self, files: Files, what: str = "metrics") -> None:
        self._files = files
        self._seen = _identities(files)
        try:
            self._context = load(files)
        except UnusableFileError as error:
            raise RuntimeFault(f"cannot serve {what} over TLS: {error}", reason="TLSFiles") from error

    def current(self) -> ssl.SSLContext:
        """Return the context, made anew if a file has changed. What cannot be used is logged once for each change."""
        found = _identities(self._files)
        if found != self._seen:
            self._seen = found  # from before the files are read: a change meanwhile is seen next time
            try:
                self._context = load(self._files)
            except UnusableFileError as error:
                logger.warning("the changed TLS files are not used, but those before them: %s", error)
            else:
                logger.info("new connections use the changed TLS files")
        return self._context


def load(files: Files) -> ssl.SSLContext:
    """Make a server's context. Raises UnusableFileError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # With a password, an encrypted key is an error; without, OpenSSL would ask for one on the daemon's terminal.
        context.load_cert_chain(files.certificate, files.key or None, password="")
    except OSError as error:
        names = f"{files.certificate} and {files.key}" if files.key else files.certificate
        raise UnusableFileError(f"{names}: {_words(error)}") from error
    if files.client_ca:
        try:
            context.load_verify_locations(files.client_ca)
        except OSError as error:
            raise UnusableFileError(f"{files.client_ca}: {_words(error)}") from error
        # A client may send no certificate, because health checks need none. One that is sent must be valid: OpenSSL
        # checks its signature, its dates, and, if it has an extendedKeyUsage, that it is for clients.
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _words(error: OSError) -> str:
    """Describe an OSError, of which ssl.SSLError is one."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no usable PEM").replace("_", " ").lower()
    return error.strerror or str(error)


def _identities(files: Files) -> tuple[tuple[int, int, int, int] | None, ...]:
    """What changes with each new content: of links, as in a Secret's volume, the file that they lead to."""
    return tuple(_identity(path) for path in files if path)


def _identity(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class Handshakes:
    """Begins connections with a handshake, which must end within `PATIENCE`. At most `MOST` are under way: a new one
    ends the oldest."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._running: dict[asyncio.Task[object], None] = {}  # in the order of their start

    async def begin(self, make: Callable[[], asyncio.Protocol], connection: socket.socket) -> None:
        """Shake hands on an accepted connection, then give it to a new protocol. Raises OSError if that fails."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._running) >= MOST:
            oldest = next(iter(self._running))
            del self._running[oldest]
            oldest.cancel()
        self._running[task] = None
        try:
            await self._shake(make, connection)
        finally:
            self._running.pop(task, None)

    async def _shake(self, make: Callable[[], asyncio.Protocol], connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        early = _Early()
        below, _ = await loop.connect_accepted_socket(lambda: early, connection)
        transport = await loop.start_tls(
            below,
            early,
            self._certificates.current(),
            server_side=True,
            ssl_handshake_timeout=PATIENCE,
            ssl_shutdown_timeout=PATIENCE,
        )
        if transport is None or early.lost:
            raise ConnectionAbortedError
        protocol = make()
        assert isinstance(protocol, Guarded)
        protocol.below = below
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for data in early.data:
            protocol.data_received(data)


class _Early(asyncio.Protocol):
    """Keeps what a client sends before the server's protocol exists. Nothing is read before TLS starts."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()  # start_tls() resumes it

    def data_received(self, data: bytes) -> None:
        self.data.append(data)

    def eof_received(self) -> None:
        self.lost = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
