"""The server of `kubelite proxy`: the API on a loopback port, for clients that know a secret.

Each connection carries one request (`Connection: close`), so that no request avoids the check. The proxy reads and
rebuilds the request's head, and copies what follows. The secret is the first part of the path, because kubectl sends
credentials over TLS only (IsConfigTransportTLS in client-go's clientcmd). A bearer token is accepted, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from http import HTTPStatus
from typing import NamedTuple

import h11

from kubelite.api.errors import status
from kubelite.api.guard import refusal
from kubelite.kube.errors import ApiError

LONGEST = 64 * 1024  # bytes of a head
PATIENCE = 10.0  # seconds for a head to arrive
MOST = 64  # connections whose head has not arrived; every user of the machine can open one
_HOP = frozenset({b"authorization", b"connection", b"keep-alive", b"proxy-connection"})


class Head(NamedTuple):
    """A request to forward: its head as the daemon gets it, and the bytes that have arrived after it."""

    head: bytes
    rest: bytes


class Refused(Exception):
    """The request is refused. `code` is the HTTP status of the response."""

    def __init__(self, code: int, error: ApiError) -> None:
        super().__init__(str(error))
        self.code = code
        self.status = {**status(error), "code": code}


def admitted(data: bytes, secret: str) -> Head | None:
    """Return the request to forward; None while its head is incomplete. Raises Refused. Pure."""
    parser = h11.Connection(h11.SERVER, LONGEST)
    parser.receive_data(data)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise Refused(400, ApiError("BadRequest", f"this is not an HTTP request: {error}")) from error
    if event is h11.NEED_DATA:
        return None
    if not isinstance(event, h11.Request):
        raise Refused(400, ApiError("BadRequest", "this is not an HTTP request"))
    target = _target(event, secret)
    scope = {
        "type": "http",
        "method": event.method.decode(),
        "path": target.partition(b"?")[0].decode("latin-1"),
        "headers": list(event.headers),
    }
    if (refused := refusal(scope, frozenset())) is not None:
        raise Refused(refused.code, refused)
    kept = [(name, value) for name, value in event.headers.raw_items() if name.lower() not in _HOP]
    ends = b"Upgrade" if any(name.lower() == b"upgrade" for name, _ in kept) else b"close"
    lines = [b"%b %b HTTP/1.1" % (event.method, target), b"Connection: " + ends]
    lines += [b"%b: %b" % header for header in kept]
    return Head(b"\r\n".join([*lines, b"", b""]), parser.trailing_data[0])


def _target(event: h11.Request, secret: str) -> bytes:
    """Return the request's target without the secret. Raises Refused if it has none."""
    prefix, bearer = b"/" + secret.encode(), b"Bearer " + secret.encode()
    first, slash, rest = event.target[1:].partition(b"/")
    if hmac.compare_digest(b"/" + first, prefix):
        return slash + rest if rest else b"/"
    given = [value for name, value in event.headers if name == b"authorization"]
    if len(given) == 1 and hmac.compare_digest(given[0], bearer):
        return bytes(event.target)
    words = "only the kubeconfig that `kubelite proxy` wrote has access"
    raise Refused(401, ApiError("Unauthorized", words))


class Proxy:
    """Serves connections. `path` is the daemon's unix socket."""

    def __init__(self, path: str, secret: str) -> None:
        self._path = path
        self._secret = secret
        self._waiting = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._waiting >= MOST:
                return
            self._waiting += 1
            try:
                request = await asyncio.wait_for(self._request(reader), PATIENCE)
            finally:
                self._waiting -= 1
            if request is not None:
                await self._pass_on(request, reader, writer)
        except Refused as error:
            await _answer(writer, error.code, error.status)
        except (OSError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> Head | None:
        """Read a head; None: the client left. Raises Refused."""
        data = b""
        while piece := await reader.read(LONGEST):
            data += piece
            if (found := admitted(data, self._secret)) is not None:
                return found
        return None

    async def _pass_on(
        self, request: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            words = f"kubelite is not running (no daemon at {self._path}): {error.strerror}"
            failure = ApiError("ServiceUnavailable", words)
            await _answer(writer, failure.code, status(failure))
            return
        try:
            far_writer.write(request.head + request.rest)
            both = [
                asyncio.ensure_future(_copy(reader, far_writer)),
                asyncio.ensure_future(_copy(far_reader, writer)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in both:
                    one.cancel()
                await asyncio.wait(both)
        finally:
            far_writer.close()


async def _copy(source: asyncio.StreamReader, destination: asyncio.StreamWriter) -> None:
    """Copy until either side ends. The whole connection then ends."""
    with contextlib.suppress(OSError):
        while data := await source.read(LONGEST):
            destination.write(data)
            await destination.drain()


async def _answer(writer: asyncio.StreamWriter, code: int, document: object) -> None:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    with contextlib.suppress(OSError):
        await writer.drain()
