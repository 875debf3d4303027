"""Effects: one exchange over TCP with a pod, as cheap as it can be: no process, no thread, no task, a handful of system
calls. What probes and hooks by httpGet and tcpSocket are made of.

Errors are WireError with Go's words (kubelet's events are made of them): "dial tcp 10.88.0.2:80: connect: connection
refused".
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache

CHUNK = 16 * 1024


class WireError(Exception):
    """The exchange came to nothing; the sentence is Go's."""


class TimedOut(WireError):
    """Its time was up."""


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def connect(host: str, port: int, timeout: float) -> None:
    """A TCP connection can be made; it is closed at once. Raises WireError."""
    await exchange(host, port, b"", lambda _data: True, timeout=timeout)


async def exchange(
    host: str, port: int, request: bytes, complete: Callable[[bytearray], bool], *, timeout: float
) -> bytes:
    """Send `request`, read until `complete` says so or the other end closes. Raises WireError."""
    ip = host if _is_address(host) else await _resolve(host, timeout)
    exchange = _Exchange(ip, port, request, complete)
    timer = asyncio.get_running_loop().call_later(timeout, exchange.expired)
    try:
        return bytes(await exchange.begin())
    finally:
        timer.cancel()
        exchange.close()


async def exchange_tls(
    host: str, port: int, request: bytes, complete: Callable[[bytearray], bool], *, timeout: float
) -> bytes:
    """The same over TLS; nothing of the certificate is checked."""
    where, data = address(host, port), bytearray()
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=_unverified(), server_hostname=host
            )
            try:
                writer.write(request)
                while not complete(data) and (chunk := await reader.read(CHUNK)):
                    data += chunk
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise TimedOut(f"dial tcp {where}: i/o timeout") from None
    except ssl.SSLError as error:
        raise WireError(f"tls: {error.reason or error}") from error
    except OSError as error:
        raise WireError(_words(where, error.errno or 0)) from error
    return bytes(data)


@lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _words(where: str, number: int) -> str:
    if number == errno.ECONNRESET:
        return f"read tcp {where}: read: connection reset by peer"
    return f"dial tcp {where}: connect: {os.strerror(number).lower()}"


@lru_cache(maxsize=1024)
def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
            return True
        except OSError:
            continue
    return False


async def _resolve(host: str, timeout: float) -> str:
    """A name is looked up in asyncio's own threads."""
    try:
        async with asyncio.timeout(timeout):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise TimedOut(f"lookup {host}: i/o timeout") from None
    except OSError as error:
        raise WireError(f"dial tcp: lookup {host}: no such host") from error
    return str(found[0][4][0])


class _Exchange:
    """One connection's life on the event loop's own callbacks: connect, send, receive."""

    def __init__(self, ip: str, port: int, request: bytes, complete: Callable[[bytearray], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._where = address(ip, port)
        self._address = (ip, port)
        self._unsent = memoryview(request)
        self._complete = complete
        self._data = bytearray()
        self._connected = False
        self._done: asyncio.Future[bytearray] = self._loop.create_future()
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._fd = self._socket.fileno()
        self._writing = self._reading = False

    def begin(self) -> asyncio.Future[bytearray]:
        number = self._socket.connect_ex(self._address)
        if number not in (0, errno.EINPROGRESS):
            self._fail(number)
        else:
            self._writing = True
            self._loop.add_writer(self._fd, self._writable)
        return self._done

    def expired(self) -> None:
        if not self._done.done():
            what = f"read tcp {self._where}" if self._connected else f"dial tcp {self._where}"
            self._done.set_exception(TimedOut(f"{what}: i/o timeout"))

    def close(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._fd)
        if self._reading:
            self._loop.remove_reader(self._fd)
        self._socket.close()

    def _writable(self) -> None:
        if not self._connected:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self._fail(number)
                return
            self._connected = True
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error.errno or 0)
            return
        if self._complete(self._data):
            self._finish()
            return
        self._loop.remove_writer(self._fd)
        self._writing, self._reading = False, True
        self._loop.add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        try:
            chunk = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error.errno or 0)
            return
        self._data += chunk
        if not chunk or self._complete(self._data):
            self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(self._data)

    def _fail(self, number: int) -> None:
        if not self._done.done():
            self._done.set_exception(WireError(_words(self._where, number)))
