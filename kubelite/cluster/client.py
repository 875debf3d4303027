"""The node's client of the cluster's API server: one HTTP request each, and watches.

Every request has a deadline. A failure is an `Unreachable`, after which the same request may be sent again, or a
`Refusal`, the API server's own Status.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx

from kubelite.cluster.membership.discovery import Access
from kubelite.kube.json import Json
from kubelite.version import version

REQUEST = 30.0  # seconds for a request
WATCH = 300  # seconds after which the API server ends a watch, and the client asks for the next
MERGE = "application/strategic-merge-patch+json"
#: What a reader of an answer raises if the answer lacks a field, or has another type there.
MALFORMED = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
#: A connection on which nothing is acknowledged ends within half a minute: a partition looks like silence.
_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)


class ClusterError(Exception):
    """A request to the API server failed. The message says which."""


class Unreachable(ClusterError):
    """The API server did not answer, or is not able to serve now."""


class Refusal(ClusterError):
    """The API server's answer is a failure. `reason`: as in metav1.Status; `code`: of HTTP."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


def context(access: Access, login: str = "") -> ssl.SSLContext:
    """Return the TLS context that trusts the cluster's CA alone. `login`: a PEM file with a client certificate and its
    key. Raises OSError (of which ssl.SSLError is one)."""
    made = ssl.create_default_context(cadata=access.authority)
    if login:
        made.load_cert_chain(login)
    return made


class _Connections:
    """The connections with one TLS context, and whether requests other than watches are under way on them."""

    def __init__(self, inner: httpx.AsyncClient) -> None:
        self.inner = inner
        self.idle = asyncio.Event()
        self.idle.set()
        self._requests = 0

    @contextlib.contextmanager
    def busy(self) -> Iterator[httpx.AsyncClient]:
        self._requests += 1
        self.idle.clear()
        try:
            yield self.inner
        finally:
            self._requests -= 1
            if not self._requests:
                self.idle.set()


class ClusterClient:
    """A client of one API server. `verify`: the TLS context; `token`: a bearer token, "" with a client certificate."""

    def __init__(self, server: str, verify: ssl.SSLContext, token: str = "") -> None:
        self.server = server
        self._token = token
        self._using = _Connections(self._made(verify))

    def _made(self, verify: ssl.SSLContext) -> httpx.AsyncClient:
        headers = {"User-Agent": f"kubelite/{version()}", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
        return httpx.AsyncClient(
            base_url=self.server,
            headers=headers,
            timeout=REQUEST,
            transport=httpx.AsyncHTTPTransport(verify=verify, limits=limits, socket_options=_SOCKET_OPTIONS),
        )

    async def renew(self, verify: ssl.SSLContext) -> None:
        """Use another TLS context from now on. Return when the requests under way are answered; then, watches that are
        open end as if the API server had ended them."""
        old, self._using = self._using, _Connections(self._made(verify))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REQUEST):
                await old.idle.wait()
        await old.inner.aclose()

    async def close(self) -> None:
        await self._using.inner.aclose()

    async def get(self, path: str, **params: str) -> Json:
        return await self.request("GET", path, params=params)

    async def post(self, path: str, body: Json) -> Json:
        return await self.request("POST", path, body)

    async def put(self, path: str, body: Json) -> Json:
        return await self.request("PUT", path, body)

    async def patch(self, path: str, body: Json) -> Json:
        """Send a strategic merge patch."""
        return await self.request("PATCH", path, body, content_type=MERGE)

    async def delete(self, path: str, options: Json | None = None) -> Json:
        return await self.request("DELETE", path, options)

    async def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        """Send a request and return the answer's document. Raises Refusal, Unreachable."""
        content = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": content_type} if body is not None else {}
        try:
            with self._using.busy() as inner:
                answer = await inner.request(method, path, content=content, params=params, headers=headers)
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed, because the node leaves
            raise Unreachable(f"{method} {path}: {_words(error)}") from error
        return _document(answer.status_code, answer.content, f"{method} {path}")

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[tuple[str, Json]]:
        """Yield the events of a watch, as type and object, until the API server ends it. Raises Refusal (Expired among
        them), Unreachable."""
        asked = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH), **params}
        timeout = httpx.Timeout(REQUEST, read=WATCH + REQUEST)
        using = self._using
        try:
            async with using.inner.stream("GET", path, params=asked, timeout=timeout) as answer:
                if answer.status_code != httpx.codes.OK:
                    _document(answer.status_code, await answer.aread(), f"watch {path}")
                async for line in answer.aiter_lines():
                    if line:
                        event = _parsed(line.encode(), f"watch {path}")
                        if event.get("type") == "ERROR":
                            raise _refusal(int(event["object"].get("code") or 500), event["object"])
                        yield str(event.get("type")), event["object"]
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as error:
            if using is not self._using:  # closed by `renew`
                return
            raise Unreachable(f"watch {path}: {_words(error)}") from error


def _document(code: int, content: bytes, what: str) -> Json:
    if code in (429, 502, 503, 504):
        raise Unreachable(f"{what}: the API server answers {code}")
    if code >= 400:
        found: Any = {}
        with contextlib.suppress(ValueError):
            found = json.loads(content)
        raise _refusal(code, found if isinstance(found, dict) else {}, what)
    return _parsed(content, what)


def _parsed(content: bytes, what: str) -> Json:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreachable(f"{what}: the answer is not JSON") from error
    if not isinstance(found, dict):
        raise Unreachable(f"{what}: the answer is not an object")
    return found


def _refusal(code: int, status: Json, what: str = "watch") -> Refusal:
    message = str(status.get("message") or f"{what}: the API server answers {code}")
    return Refusal(code, str(status.get("reason") or "Unknown"), message)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
