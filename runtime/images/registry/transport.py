"""HTTP requests to one registry: TLS, redirects, authentication (Basic and Bearer), retries, and error messages.

Sources: docker's "Token Authentication Specification" and "OAuth2" for the Bearer challenge; RFC 7617 for Basic; RFC
9110 for Retry-After. Only transient failures are retried, with growing pauses: broken connections and the statuses 408,
429, 500, 502, 503 and 504. 401, 403 and 404 are final.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import re
import urllib.parse
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, TypeVar

import httpx

from runtime.errors import ImageError
from runtime.images.reference import DEFAULT_REGISTRY, Endpoint, is_loopback
from runtime.images.registry.auth import Login
from runtime.images.registry.tls import bypasses_proxy, context

ATTEMPTS = 5
CONNECT_ATTEMPTS = 3  # if there is no answer at all: fail soon, since the caller has a back-off of its own
FIRST_PAUSE = 0.3  # seconds; doubles each time, ± 20 %
LONGEST_PAUSE = 10.0
_TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))
_REFUSED = frozenset((401, 403, 404))
_TIMEOUT = httpx.Timeout(connect=15.0, read=60.0, write=30.0, pool=None)
_USER_AGENT = "kubelite (httpx)"
_MAX_REDIRECTS = 5
_OK = frozenset((200, 206))
_TOKEN_MAX = 1 << 20  # bytes of a token server's answer
_READ = "kubelite.body"  # the response extension that holds a body read earlier

T = TypeVar("T")
Report = Callable[[dict[str, Any]], None]
Body = Callable[[], AsyncIterator[bytes]]  # called for each attempt
# Each expression is matched where the previous match ended. The quantifiers are possessive, so they never
# backtrack and the time is linear in the length.
_GAP = re.compile(r"[\s,]*+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]++")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"""[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^\s,"]++))""", re.DOTALL)
_LONGEST_CHALLENGE = 64 * 1024  # characters; the rest is ignored


class Refused(ImageError):
    """401, 403 or 404. Another login or another mirror may get another answer."""


class Transient(Exception):
    """A failure to retry. `pause` is the wait the registry asked for, in seconds. `answered`: the registry sent a
    response."""

    def __init__(self, error: ImageError, pause: float = 0.0, *, answered: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause
        self.answered = answered


class Transport:
    """The connection to one endpoint. An async context manager; use it within one event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        report: Report,
        login: Login | None = None,
        actions: str = "pull",
        also: Collection[str] = (),
    ) -> None:
        """Tokens are requested for `actions` on the endpoint's repository, and for pulling from the repositories in
        `also`."""
        self._endpoint = endpoint
        host = endpoint.registry
        loopback = is_loopback(host)
        schemes: tuple[str, ...] = ("https",)
        if endpoint.plain:
            schemes = ("http",)
        elif loopback:
            schemes = ("http", "https")
        elif endpoint.insecure:
            schemes = ("https", "http")
        self.plain = "http" in schemes
        self._schemes = list(schemes)  # the first is in use; a second one remains until the registry answers
        self._api_host = "registry-1.docker.io" if host == DEFAULT_REGISTRY else host
        self._report = report
        self._login = login
        self._scopes = [f"repository:{name}:pull" for name in also]
        if endpoint.repository:
            self._scopes.insert(0, f"repository:{endpoint.repository}:{actions}")
        self._asks_more = actions != "pull" or bool(also)
        self._authorization = ""
        self._lock = asyncio.Lock()
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT,
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
            # no proxy for registries on this machine
            trust_env=not loopback and not bypasses_proxy(host),
            limits=httpx.Limits(max_connections=16),
            verify=context(host, verify=not (loopback or endpoint.insecure)),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._client.aclose()

    @property
    def base(self) -> str:
        return f"{self._schemes[0]}://{self._api_host}"

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        expect: Collection[int] = _OK,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request. Yields a response with one of the expected statuses; its body is not read yet. `path` is
        relative to the repository, or absolute with a leading slash, or a URL. Follows redirects, and answers one
        authentication challenge. Raises ImageError (Refused for 401, 403 and 404), or Transient if a retry may help."""
        for challenged in (False, True):
            used = self._authorization
            response = await self._reach(method, path, headers or {}, body)
            try:
                if response.status_code == 401 and not challenged:
                    challenge = ", ".join(response.headers.get_list("www-authenticate"))
                    words = await error_text(response)
                    await self._authorize(challenge, stale=used, words=words)
                    continue
                if response.status_code not in expect:
                    raise await self._refusal(response)
                yield response
                return
            finally:
                await response.aclose()

    async def retry(self, attempt: Callable[[], Awaitable[T]], progressed: Callable[[], int] = int) -> T:
        """Call `attempt` until it succeeds, fails for good, or fails ATTEMPTS times in a row without progress.
        `progressed` returns a measure of progress, such as bytes received. Raises ImageError."""
        failures = 0
        seen = progressed()
        while True:
            try:
                return await attempt()
            except Transient as error:
                transient = error
            except httpx.TransportError as error:
                transient = Transient(unreachable(self.base, _describe(error)))
            if progressed() > seen:
                seen, failures = progressed(), 0
            failures += 1
            if failures >= (ATTEMPTS if progressed() or transient.answered else CONNECT_ATTEMPTS):
                raise transient.error
            pause = max(transient.pause, FIRST_PAUSE * 2 ** (failures - 1) * random.uniform(0.8, 1.2))
            pause = min(pause, LONGEST_PAUSE)
            self._report({"event": "retry", "message": str(transient.error), "delay": round(pause, 2)})
            await asyncio.sleep(pause)

    # --- sending ---

    def url(self, path: str) -> str:
        if path.startswith(("https://", "http://")):
            return path
        if path.startswith("/"):
            return f"{self.base}{path}"
        return f"{self.base}/v2/{self._endpoint.repository}/{path}"

    async def _reach(
        self, method: str, path: str, headers: Mapping[str, str], body: Body | None
    ) -> httpx.Response:
        """Send a request. An insecure registry that does not support the first scheme is tried with the other one."""
        while True:
            try:
                response = await self._send(method, self.url(path), headers, body)
            except Transient:
                if len(self._schemes) < 2 or self._schemes[0] == "http":
                    raise
            else:
                if len(self._schemes) < 2 or not await _wants_tls(response):
                    del self._schemes[1:]
                    return response
                await response.aclose()
            del self._schemes[0]

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None
    ) -> httpx.Response:
        """Send a request and follow redirects. httpx must not do that: the token must not reach another host
        (distribution-spec "Pulling blobs")."""
        origin = httpx.URL(self.base)
        here = httpx.URL(url)
        for _ in range(_MAX_REDIRECTS + 1):
            sent = dict(headers)
            if self._authorization and _origin(here) == _origin(origin):
                sent["Authorization"] = self._authorization
            request = self._client.build_request(
                method, here, headers=sent, content=body() if body is not None else None
            )
            try:
                response = await self._client.send(request, stream=True)
            except httpx.TransportError as error:
                raise Transient(
                    unreachable(f"{here.scheme}://{here.netloc.decode()}", _describe(error))
                ) from error
            if response.status_code not in {301, 302, 303, 307, 308}:
                return response
            location = response.headers.get("location", "")
            await response.aclose()
            here = url_of(location, here, f"{self.base} redirects to")
            if here.scheme not in {"https", "http"} or (here.scheme == "http" and not self.plain):
                raise ImageError(f"{self.base} redirects to {here}, which is not an https URL")
        raise ImageError(f"{self.base} redirects more than {_MAX_REDIRECTS} times")

    # --- authentication ---

    async def _authorize(self, challenge: str, *, stale: str, words: str) -> None:
        """Authenticate for the challenge: Bearer if it is offered, else Basic. `stale` is the authorization that was
        refused. Raises Refused."""
        offered = _challenges(challenge)
        async with self._lock:
            if self._authorization != stale:
                return  # another request has renewed it
            if self._login is not None and self._login.registry_token and not stale:
                self._authorization = f"Bearer {self._login.registry_token}"
            elif "bearer" in offered:
                self._authorization = f"Bearer {await self._token(offered['bearer'])}"
            elif "basic" in offered and self._login is not None and self._login.username:
                if stale:  # Basic has just been refused
                    raise Refused(
                        f"{self.base} does not accept the login of {self._login_name()}{_colon(words)}"
                    )
                self._authorization = _basic(self._login)
            else:
                asks = "asks for a user name and password" if "basic" in offered else "refuses access"
                raise Refused(f"{self.base} {asks}{_colon(words)}")

    async def _token(self, parameters: Mapping[str, str]) -> str:
        """Fetch a token for the scopes of the challenge, with the login or anonymously (docker's token specification,
        "Requesting a Token"; OAuth2 with an identity token)."""
        realm = url_of(parameters.get("realm", ""), httpx.URL(""), f"{self.base} names the token server")
        if realm.scheme not in {"https", "http"} or (realm.scheme == "http" and not self.plain):
            raise ImageError(f"{self.base} names the token server {str(realm)!r}, which is not an https URL")
        asked = parameters.get("scope", "").split() or self._scopes
        if self._asks_more:
            known = {scope.rpartition(":")[0] for scope in self._scopes}
            asked = [*self._scopes, *(scope for scope in asked if scope.rpartition(":")[0] not in known)]
        service = parameters.get("service", "")
        try:
            response = await self._ask_for_token(realm, service, asked)
        except httpx.TransportError as error:
            raise Transient(unreachable(f"{realm.scheme}://{realm.host}", _describe(error))) from error
        if response.status_code == 401 and self._login is not None:
            raise Refused(
                f"{realm.host} does not accept the login of {self._login_name()}{_colon(await error_text(response))}"
            )
        if response.status_code != 200:
            raise await self._refusal(response, f"{realm.scheme}://{realm.netloc.decode()}")
        try:
            answer = json.loads(response.extensions[_READ])
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError, RecursionError) as error:
            raise ImageError(f"{realm.host} sent an answer without a token") from error
        if not isinstance(token, str) or not token:
            raise ImageError(f"{realm.host} sent no token")
        return token

    async def _ask_for_token(self, realm: httpx.URL, service: str, scopes: list[str]) -> httpx.Response:
        login = self._login
        if login is not None and login.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": "kubelite",
                "scope": " ".join(scopes),
                "refresh_token": login.identity_token,
            }
            return await self._send_small(self._client.build_request("POST", realm, data=form))
        query: dict[str, Any] = {"service": service} if service else {}
        query["scope"] = scopes
        headers = {}
        if login is not None and login.username:
            query["account"] = login.username
            headers["Authorization"] = _basic(login)
        url = realm.copy_merge_params(query)
        return await self._send_small(self._client.build_request("GET", url, headers=headers))

    async def _send_small(self, request: httpx.Request) -> httpx.Response:
        """Send a request and read the response up to a size limit."""
        response = await self._client.send(request, stream=True)
        try:
            response.extensions[_READ] = await read_body(response, _TOKEN_MAX)
        finally:
            await response.aclose()
        return response

    def _login_name(self) -> str:
        login = self._login
        if login is None:
            return "nobody"
        name = login.username or "its identity token"
        return f"{name} ({login.source})" if login.source else name

    async def _refusal(self, response: httpx.Response, who: str = "") -> ImageError | Transient:
        status = response.status_code
        words = await error_text(response)
        text = f"{who or self.base} answered {status} {response.reason_phrase}{_colon(words)}"
        if status in _TRANSIENT:
            error = ImageError(text, reason="RegistryUnavailable", retriable=True)
            return Transient(error, _retry_after(response), answered=True)
        if status == 401:
            text += " (not logged in)" if self._login is None else f" (logged in as {self._login_name()})"
        return Refused(text) if status in _REFUSED else ImageError(text)


def url_of(text: str, base: httpx.URL, what: str) -> httpx.URL:
    """Resolve a URL that a registry sent. `what` starts the error message. Raises ImageError for an invalid URL."""
    try:
        return base.join(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise ImageError(f"{what} {text[:200]!r}, which is not a valid URL: {error}") from error


async def read_body(response: httpx.Response, limit: int) -> bytes:
    """Read the whole body, at most `limit` bytes. No content coding is requested, but gzip is accepted and decompressed
    only up to the limit. httpx would decompress a whole chunk at once, and once for each coding in the header. Raises
    ImageError."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip", ""):
        raise ImageError(f"the registry's answer is encoded as {coding[:50]}, which was not requested")
    inflating = zlib.decompressobj(31) if "gzip" in coding else None
    body = bytearray()
    async for part in response.aiter_raw():
        try:
            body += part if inflating is None else inflating.decompress(part, limit + 1 - len(body))
        except zlib.error as error:
            raise ImageError(f"the registry's answer is not valid gzip: {error}") from error
        if len(body) > limit:
            raise ImageError(f"the registry's answer is larger than {limit} bytes")
    return bytes(body)


async def error_text(response: httpx.Response) -> str:
    """The registry's own explanation: `manifest unknown (unknown tag=x)` from its list of errors, or a plain text it
    sent."""
    body: bytes = response.extensions.get(_READ, b"")
    with suppress(httpx.HTTPError, httpx.StreamError, ImageError):
        body = await read_body(response, 64 * 1024) if not response.is_closed else response.content
    try:
        errors = json.loads(body)["errors"]
        return "; ".join(filter(None, (_one_error(error) for error in errors)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    kind = response.headers.get("content-type", "")
    text = body.decode("utf-8", "replace").strip()
    return text[:200] if kind.startswith("text/plain") else ""


def _one_error(error: dict[str, Any]) -> str:
    message = str(error.get("message") or str(error.get("code", "")).replace("_", " ").lower())
    detail = error.get("detail")
    if isinstance(detail, dict):
        detail = ", ".join(f"{key}={value}" for key, value in detail.items() if isinstance(value, str | int))
    if isinstance(detail, str) and detail and detail not in message:
        message += f" ({detail[:200]})"
    return message


async def _wants_tls(response: httpx.Response) -> bool:
    """Whether a TLS server answered a plain-text request: Go and nginx send a 400 that mentions HTTPS. Reads the body
    only of such a 400."""
    if response.status_code != 400 or response.headers.get("docker-distribution-api-version"):
        return False
    with suppress(httpx.HTTPError, ImageError):
        body = response.extensions[_READ] = await read_body(response, 64 * 1024)
        return b"HTTPS" in body
    return False


def _challenges(text: str) -> dict[str, dict[str, str]]:
    """The parameters of each offered scheme, by its lower-case name (RFC 9110, 11.6.1). The first challenge of a scheme
    counts. Text that is no challenge is skipped."""
    found: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}  # those before the first scheme are ignored
    text, at = text[:_LONGEST_CHALLENGE], 0
    while at < len(text):
        gap = _GAP.match(text, at)
        first = at == 0 or (gap is not None and "," in gap[0])
        at = gap.end() if gap is not None else at
        if (word := _TOKEN.match(text, at)) is None:
            at += 1
            continue
        at = word.end()
        if (value := _VALUE.match(text, at)) is not None:
            parameters[word[0].lower()] = value[2] or re.sub(r"\\(.)", r"\1", value[1] or "", flags=re.DOTALL)
            at = value.end()
        elif text[at : at + 2] == '="':  # an unterminated quoted string
            break
        elif first and text[at : at + 1] in ("", ",", " ", "\t"):
            parameters = {}
            found.setdefault(word[0].lower(), parameters)
    return found


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdigit() else 0.0


def _colon(words: str) -> str:
    return f": {words}" if words else ""


def unreachable(base: str, why: str) -> ImageError:
    host = urllib.parse.urlsplit(base).netloc or base
    return ImageError(f"cannot reach {host}: {why}", reason="RegistryUnavailable", retriable=True)


def _describe(error: httpx.TransportError) -> str:
    """The cause of an error. httpx's own text often says little; the chained OSError has the kernel's or the resolver's
    message."""
    if isinstance(error, httpx.TimeoutException):
        return "it did not answer in time"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            known = (
                isinstance(cause, ConnectionError) or type(cause) is OSError
            )  # asyncio gives these its own wording
            return os.strerror(cause.errno) if known and cause.errno else cause.strerror
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = inner or cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
