"""One HTTP request, sent on to a pod, and its answer. Bodies are passed on in pieces, in both directions.

Headers of a single connection (RFC 9110, 7.6.1) are left out, and so is the client's login. A page that a pod answers
with must not act as the person who looks at it: it would have the origin of the API. So browsers treat each as a page
of an origin of its own (Content-Security-Policy: sandbox).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Iterable, Iterator

import h11
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kubelite.api.kube.proxy.location import Location
from kubelite.api.upgrade import hang_up
from kubelite.kube.errors import ApiError

DIAL = 10.0  # seconds for a pod to take the connection
PIECE = 64 << 10
SANDBOX = (b"content-security-policy", b"sandbox allow-forms allow-popups allow-scripts")
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_END_TO_END = frozenset({b"content-length", b"host"})  # whatever the header Connection says
_MOST_STATUS = 599  # RFC 9110, section 15
_NOT_FOR_PODS = frozenset(
    {b"authorization", b"expect", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-uri"}
)

Headers = list[tuple[bytes, bytes]]


class Exchange(Response):
    """The answer of a pod. `base`: the path before the part that the pod sees; `target`: that part, with the query.
    Raises ServiceUnavailable, before anything is answered, if the pod cannot be reached."""

    def __init__(self, location: Location, base: str, target: str) -> None:
        super().__init__()
        self._location = location
        self._base = base
        self._target = target
        self._wire = h11.Connection(h11.CLIENT)
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reader, writer = await self._connected()
        with contextlib.ExitStack() as undo:
            undo.callback(writer.transport.abort)
            headers = _onward(scope, f"{self._base}{self._target.partition('?')[0]}")
            request = h11.Request(method=scope["method"], target=self._target, headers=headers)
            writer.write(self._wire.send(request) or b"")
            sending = asyncio.ensure_future(self._send_body(receive, writer))
            answering = asyncio.ensure_future(self._answer(reader, send))
            try:
                await asyncio.wait((sending, answering), return_when=asyncio.FIRST_COMPLETED)
                if not answering.done() and not sending.result():
                    await asyncio.wait((answering,))  # the pod takes no more of the body, and may answer
            except ApiError:  # the body is too large, or late
                if not self._begun:
                    raise
                hang_up(scope)
            finally:
                for task in (sending, answering):
                    task.cancel()
                await asyncio.gather(sending, answering, return_exceptions=True)
        if not answering.cancelled() and (error := answering.exception()) is not None:
            if not isinstance(error, (OSError, h11.RemoteProtocolError)):
                raise error
            if not self._begun:
                raise _unreachable(str(error)) from error
            hang_up(scope)  # the pod has left in the middle

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        scheme, address, port = self._location
        context = _trusting() if scheme == "https" else None
        try:
            async with asyncio.timeout(DIAL):
                return await asyncio.open_connection(address, port, ssl=context)
        except TimeoutError as error:
            raise _unreachable(f"dial tcp {address}:{port}: i/o timeout") from error
        except OSError as error:
            reason = (
                os.strerror(error.errno)
                if error.errno and not isinstance(error, ssl.SSLError)
                else str(error)
            )
            raise _unreachable(f"dial tcp {address}:{port}: {reason}") from error

    async def _send_body(self, receive: Receive, writer: asyncio.StreamWriter) -> bool:
        """Send the body, then wait until the client leaves. Return True if it has left, False if the pod has."""
        complete = False
        while (message := await receive())["type"] != "http.disconnect":
            if complete:
                continue
            try:
                if body := message.get("body", b""):
                    writer.write(self._wire.send(h11.Data(data=body)) or b"")
                if complete := not message.get("more_body", False):
                    writer.write(self._wire.send(h11.EndOfMessage()) or b"")
                await writer.drain()
            except (OSError, h11.LocalProtocolError):
                return False
        return True

    async def _answer(self, reader: asyncio.StreamReader, send: Send) -> None:
        """Raises OSError or RemoteProtocolError if the pod does not answer in HTTP."""
        while True:
            event = self._wire.next_event()
            if event is h11.NEED_DATA:
                self._wire.receive_data(await reader.read(PIECE))
            elif isinstance(event, h11.Response):
                if event.status_code > _MOST_STATUS:
                    raise h11.RemoteProtocolError(f"malformed HTTP status code {event.status_code}")
                self._begun = True
                headers = self._back(event.headers.raw_items())
                await send({"type": "http.response.start", "status": event.status_code, "headers": headers})
            elif isinstance(event, h11.Data):
                await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            elif isinstance(event, h11.EndOfMessage):
                return await send({"type": "http.response.body", "body": b"", "more_body": False})
            elif not isinstance(event, h11.InformationalResponse):  # ConnectionClosed, PAUSED
                raise ConnectionResetError("the pod has closed the connection without an answer")

    def _back(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return the headers of the answer for the client. A redirect to a path of the pod leads there through the API
        (apimachinery pkg/util/proxy/transport.go, rewriteResponse)."""
        host = f"{self._location.scheme}://{self._location.address}:{self._location.port}/".encode()
        found = [SANDBOX]
        for name, value in _of_message(headers):
            if name.lower() == b"location":
                path = value.removeprefix(host[:-1]) if value.startswith(host) else value
                if path.startswith(b"/") and not path.startswith(b"//"):
                    found.append((name, self._base.encode() + path))
                    continue
            if name.lower() not in (b"date", b"content-security-policy"):
                found.append((name, value))
        return found


def _onward(scope: Scope, uri: str) -> Headers:
    """Return the headers of the request for the pod."""
    given: Headers = scope["headers"]
    found = [(name, value) for name, value in _of_message(given) if name.lower() not in _NOT_FOR_PODS]
    if any(name == b"transfer-encoding" for name, _ in given):
        found.append((b"transfer-encoding", b"chunked"))
    host = next((value for name, value in given if name == b"host"), None)
    if host is None:  # of HTTP/1.0
        host = b""
        found.append((b"host", host))
    scheme = scope.get("scheme", "http").encode()
    found += [(b"x-forwarded-uri", uri.encode()), (b"x-forwarded-host", host), (b"x-forwarded-proto", scheme)]
    return [*found, (b"connection", b"close")]


def _of_message(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers that are not of the connection. A length counts for nothing with a body in chunks (RFC 9112,
    6.3): a receiver that goes by it would see a second message."""
    every = list(headers)
    listed = {
        word.strip().lower()
        for name, value in every
        if name.lower() == b"connection"
        for word in value.split(b",")
    }
    left_out = _HOP_BY_HOP | (listed - _END_TO_END)
    if any(name.lower() == b"transfer-encoding" for name, _ in every):
        left_out |= {b"content-length"}
    return ((name, value) for name, value in every if name.lower() not in left_out)


def _trusting() -> ssl.SSLContext:
    """A pod's certificate proves nothing here: as on a cluster, it is not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _unreachable(why: str) -> ApiError:
    return ApiError("ServiceUnavailable", f"error trying to reach service: {why}")
