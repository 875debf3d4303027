"""One TCP exchange with a pod at minimal cost: no process, thread or task, and few system calls. Probes and hooks
with httpGet and tcpSocket use it.

Errors are WireError with the messages of Go's net package, which kubelet's events contain: "dial tcp 10.88.0.2:80:
connect: connection refused".
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
    """The exchange failed. The message is Go's."""


class TimedOut(WireError):
    """The exchange did not complete within its timeout."""


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def connect(host: str, port: int, timeout: float) -> None:
    """Check that a TCP connection can be established, and close it at once. Raises WireError."""
    await exchange(host, port, b"", lambda _data: True, timeout=timeout)


async def exchange(
    host: str, port: int, request: bytes, complete: Callable[[bytearray], bool], *, timeout: float
) -> bytes:
    """Send `request` and read until `complete` returns true or the peer closes the connection. Raises WireError."""
    ip = host if is_address(host) else await _resolve(host, timeout)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytearray] = loop.create_future()

    def done(data: bytearray, error: WireError | None) -> None:
        if not answer.done():
            if error is None:
                answer.set_result(data)
            else:
                answer.set_exception(error)

    exchange = Exchange(ip, port, request, complete=complete, done=done)
    timer = loop.call_later(timeout, exchange.expire)
    exchange.begin()
    try:
        return bytes(await answer)
    finally:
        timer.cancel()
        exchange.close()


async def exchange_tls(
    host: str, port: int, request: bytes, complete: Callable[[bytearray], bool], *, timeout: float
) -> bytes:
    """The same over TLS, without verification of the certificate."""
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
def is_address(host: str) -> bool:
    """Whether `host` is an IP address and not a name to look up."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
            return True
        except OSError:
            continue
    return False


async def _resolve(host: str, timeout: float) -> str:
    """Look up a name in asyncio's default thread pool."""
    try:
        async with asyncio.timeout(timeout):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise TimedOut(f"lookup {host}: i/o timeout") from None
    except OSError as error:
        raise WireError(f"dial tcp: lookup {host}: no such host") from error
    return str(found[0][4][0])


class Exchange:
    """One connection, driven by callbacks of the event loop: connect, send, receive, close. `ip` is an address.

    `done(data, error)` is called once, with the data read or with the error. It may be called before `begin` returns,
    and is not called after `close`. The caller keeps the time limit and calls `expire`."""

    __slots__ = (
        *("_complete", "_connected", "_data", "_done", "_fd", "_loop"),
        *("_socket", "_unsent", "_where", "_writing"),
    )

    def __init__(
        self,
        ip: str,
        port: int,
        request: bytes,
        *,
        complete: Callable[[bytearray], bool],
        done: Callable[[bytearray, WireError | None], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._where = (ip, port)
        self._unsent = request
        self._complete = complete
        self._done = done
        self._data = bytearray()
        self._connected = self._writing = False
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        # socket.SocketType is the C type: the Python class around it doubles the cost of a connection
        self._socket = socket.SocketType(
            family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._fd = -1  # set while the loop watches it

    @property
    def ended(self) -> bool:
        return self._socket.fileno() < 0

    def begin(self) -> None:
        """Connect and send at once. On this machine, a connection is established or refused by the time connect(2)
        returns EINPROGRESS. Therefore the event loop waits only if the send would block."""
        number = self._socket.connect_ex(self._where)
        if number in (0, errno.EINPROGRESS):
            self._send()
        else:
            self._fail(number)

    def expire(self) -> None:
        """Fail with TimedOut, unless the exchange has ended."""
        if not self.ended:
            where = address(*self._where)
            what = f"read tcp {where}" if self._connected else f"dial tcp {where}"
            self._end(TimedOut(f"{what}: i/o timeout"))

    def close(self) -> None:
        if self._fd >= 0:
            (self._loop.remove_writer if self._writing else self._loop.remove_reader)(self._fd)
            self._fd = -1
        self._socket.close()

    def _watch(self, *, writing: bool) -> None:
        if self._fd >= 0:
            if writing:
                return
            self._loop.remove_writer(self._fd)
        self._fd, self._writing = self._socket.fileno(), writing
        if writing:
            self._loop.add_writer(self._fd, self._send)
        else:
            self._loop.add_reader(self._fd, self._readable)

    def _send(self) -> None:
        try:
            if not self._unsent and not self._connected:  # nothing to send: only check the connection
                self._connected = self._is_connected()
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent, socket.MSG_NOSIGNAL) :]
                self._connected = True
        except BlockingIOError:
            self._watch(writing=True)
            return
        except OSError as error:
            self._fail(error.errno or 0)
            return
        if self._complete(self._data):
            self._end(None)
        else:
            self._watch(writing=False)

    def _is_connected(self) -> bool:
        """True if the connection is established. Raises BlockingIOError until then, another OSError if it failed."""
        if number := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
        try:
            self._socket.getpeername()
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                raise BlockingIOError(errno.EAGAIN, "not connected yet") from None
            raise
        return True

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
            self._end(None)

    def _fail(self, number: int) -> None:
        self._end(WireError(_words(address(*self._where), number)))

    def _end(self, error: WireError | None) -> None:
        self.close()
        data, self._data = self._data, bytearray()  # an expiry timer may hold this object, but not its data
        self._done(data, error)
