"""Requests to one registry: TLS, redirects, who we are (Basic and Bearer), patience, and the registry's own words.

Sources: docker's "Token Authentication Specification" and "OAuth2" for the Bearer challenge; RFC 7617 for Basic; RFC
9110 for Retry-After. Only what may pass by itself is tried again: broken connections, 408, 429 and 5xx, with growing
pauses. 401, 403 and 404 are final.
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
from runtime.images.registry.tls import context, goes_direct

ATTEMPTS = 5
CONNECT_ATTEMPTS = 3  # nobody is there at all: say so soon, the caller has a back-off of its own
FIRST_PAUSE = 0.3  # seconds, doubled each time, ± 20 %
LONGEST_PAUSE = 10.0
_TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))
_REFUSED = frozenset((401, 403, 404))
_TIMEOUT = httpx.Timeout(connect=15.0, read=60.0, write=30.0, pool=None)
_USER_AGENT = "kubelite/0.1 (httpx)"
_MAX_REDIRECTS = 5
_OK = frozenset((200, 206))
_TOKEN_MAX = 1 << 20  # bytes of a token server's answer
_READ = "kubelite.body"  # the extension of a response whose body has been read already

T = TypeVar("T")
Report = Callable[[dict[str, Any]], None]
Body = Callable[[], AsyncIterator[bytes]]  # made anew for each attempt
_PARAMETER = re.compile(r'([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"|([a-zA-Z_]+)=([^\s,"]+)')
_CHALLENGE = re.compile(r"(?:^|,\s*)(Bearer|Basic)(?=\s|,|$)", re.IGNORECASE)


class Refused(ImageError):
    """401, 403 or 404: another login, or another mirror, may be answered differently."""


class Transient(Exception):
    """Worth another attempt. `pause` is what the registry asked for, in seconds; `answered`: it said something."""

    def __init__(self, error: ImageError, pause: float = 0.0, *, answered: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause
        self.answered = answered


class Transport:
    """An async context manager; use within one event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        report: Report,
        login: Login | None = None,
        actions: str = "pull",
        also: Collection[str] = (),
    ) -> None:
        """`actions` on the repository and pulling from the repositories in `also` is what tokens are asked for."""
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
        self._schemes = list(schemes)  # the first is in use; another one only until the registry has answered
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
            # a proxy has no business with this machine itself
            trust_env=not loopback and not goes_direct(host),
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
        """An answer with one of the expected statuses, its body not read yet. `path` is below the repository, or whole
        when it begins with a slash, or a URL. Follows redirects of a GET, answers a challenge once."""
        for challenged in (False, True):
            used = self._authorization
            response = await self._reach(method, path, headers or {}, body)
            try:
                if response.status_code == 401 and not challenged:
                    challenge = ", ".join(response.headers.get_list("www-authenticate"))
                    words = await words_of(response)
                    await self._authorize(challenge, stale=used, words=words)
                    continue
                if response.status_code not in expect:
                    raise await self._refusal(response)
                yield response
                return
            finally:
                await response.aclose()

    async def patiently(self, attempt: Callable[[], Awaitable[T]], progressed: Callable[[], int] = int) -> T:
        """Try until it works, it is final, or ATTEMPTS in a row got nowhere."""
        failures = 0
        seen = progressed()
        while True:
            try:
                return await attempt()
            except Transient as error:
                transient = error
            except httpx.TransportError as error:
                transient = Transient(broken(self.base, _describe(error)))
            if progressed() > seen:
                seen, failures = progressed(), 0
            failures += 1
            if failures >= (ATTEMPTS if progressed() or transient.answered else CONNECT_ATTEMPTS):
                raise transient.error
            pause = max(transient.pause, FIRST_PAUSE * 2 ** (failures - 1) * random.uniform(0.8, 1.2))
            pause = min(pause, LONGEST_PAUSE)
            self._report({"event": "retry", "message": str(transient.error), "delay": round(pause, 2)})
            await asyncio.sleep(pause)

    # --- reaching it ---

    def url(self, path: str) -> str:
        if path.startswith(("https://", "http://")):
            return path
        if path.startswith("/"):
            return f"{self.base}{path}"
        return f"{self.base}/v2/{self._endpoint.repository}/{path}"

    async def _reach(
        self, method: str, path: str, headers: Mapping[str, str], body: Body | None
    ) -> httpx.Response:
        """Send; an insecure registry that does not speak the first scheme is asked in the other."""
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
        """Redirects by hand: the token must not follow to another host (distribution-spec "Pulling blobs")."""
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
                    broken(f"{here.scheme}://{here.netloc.decode()}", _describe(error))
                ) from error
            if response.status_code not in {301, 302, 303, 307, 308}:
                return response
            location = response.headers.get("location", "")
            await response.aclose()
            here = url_of(location, here, f"{self.base} redirects to")
            if here.scheme not in {"https", "http"} or (here.scheme == "http" and not self.plain):
                raise ImageError(f"{self.base} redirects to {here}, which is not https")
        raise ImageError(f"{self.base} redirects more than {_MAX_REDIRECTS} times")

    # --- who we are ---

    async def _authorize(self, challenge: str, *, stale: str, words: str) -> None:
        """Answer the challenge: Bearer where it is offered, else Basic."""
        offered = _challenges(challenge)
        async with self._lock:
            if self._authorization != stale:
                return  # another request got a new one meanwhile
            if self._login is not None and self._login.registry_token and not stale:
                self._authorization = f"Bearer {self._login.registry_token}"
            elif "bearer" in offered:
                self._authorization = f"Bearer {await self._token(offered['bearer'])}"
            elif "basic" in offered and self._login is not None and self._login.username:
                if stale:  # it has just been refused
                    raise Refused(f"{self.base} does not accept the login of {self._who()}{_colon(words)}")
                self._authorization = _basic(self._login)
            else:
                asks = "asks for a user name and password" if "basic" in offered else "refuses access"
                raise Refused(f"{self.base} {asks}{_colon(words)}")

    async def _token(self, parameters: Mapping[str, str]) -> str:
        """A token for what the challenge asks: with the login, or anonymously (token specification, "Requesting a
        Token"; OAuth2 with an identity token)."""
        realm = url_of(
            parameters.get("realm", ""), httpx.URL(""), f"{self.base} wants its tokens fetched from"
        )
        if realm.scheme not in {"https", "http"} or (realm.scheme == "http" and not self.plain):
            raise ImageError(
                f"{self.base} wants its tokens fetched from {str(realm) or 'nowhere'}, which is not https"
            )
        asked = parameters.get("scope", "").split() or self._scopes
        if self._asks_more:
            known = {scope.rpartition(":")[0] for scope in self._scopes}
            asked = [*self._scopes, *(scope for scope in asked if scope.rpartition(":")[0] not in known)]
        service = parameters.get("service", "")
        try:
            response = await self._ask_for_token(realm, service, asked)
        except httpx.TransportError as error:
            raise Transient(broken(f"{realm.scheme}://{realm.host}", _describe(error))) from error
        if response.status_code == 401 and self._login is not None:
            raise Refused(
                f"{realm.host} does not accept the login of {self._who()}{_colon(await words_of(response))}"
            )
        if response.status_code != 200:
            raise await self._refusal(response, f"{realm.scheme}://{realm.netloc.decode()}")
        try:
            answer = json.loads(response.extensions[_READ])
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError, RecursionError) as error:
            raise ImageError(f"{realm.host} answered with something that is not a token") from error
        if not isinstance(token, str) or not token:
            raise ImageError(f"{realm.host} gave no token")
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
            return await self._small(self._client.build_request("POST", realm, data=form))
        query: dict[str, Any] = {"service": service} if service else {}
        query["scope"] = scopes
        headers = {}
        if login is not None and login.username:
            query["account"] = login.username
            headers["Authorization"] = _basic(login)
        url = realm.copy_merge_params(query)
        return await self._small(self._client.build_request("GET", url, headers=headers))

    async def _small(self, request: httpx.Request) -> httpx.Response:
        """An answer read whole, and refused when it does not end."""
        response = await self._client.send(request, stream=True)
        try:
            response.extensions[_READ] = await read_body(response, _TOKEN_MAX)
        finally:
            await response.aclose()
        return response

    def _who(self) -> str:
        login = self._login
        if login is None:
            return "nobody"
        name = login.username or "its identity token"
        return f"{name} ({login.source})" if login.source else name

    async def _refusal(self, response: httpx.Response, who: str = "") -> ImageError | Transient:
        status = response.status_code
        words = await words_of(response)
        text = f"{who or self.base} answered {status} {response.reason_phrase}{_colon(words)}"
        if status in _TRANSIENT:
            error = ImageError(text, reason="RegistryUnavailable", retriable=True)
            return Transient(error, _retry_after(response), answered=True)
        if status == 401:
            text += " (not logged in)" if self._login is None else f" (logged in as {self._who()})"
        return Refused(text) if status in _REFUSED else ImageError(text)


def url_of(text: str, base: httpx.URL, what: str) -> httpx.URL:
    """What a registry gives as a URL, which may be anything. `what` says what it is for."""
    try:
        return base.join(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise ImageError(f"{what} {text[:200]!r}, which is no URL: {error}") from error


async def read_body(response: httpx.Response, limit: int) -> bytes:
    """All of it. A coding is not asked for; gzip is taken all the same, and never inflated further than to the limit:
    httpx inflates a whole chunk at once, in as many rounds as the header names."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip", ""):
        raise ImageError(f"the registry's answer is encoded as {coding[:50]}, which it was not asked for")
    inflating = zlib.decompressobj(31) if "gzip" in coding else None
    body = bytearray()
    async for part in response.aiter_raw():
        try:
            body += part if inflating is None else inflating.decompress(part, limit + 1 - len(body))
        except zlib.error as error:
            raise ImageError(f"the registry's answer is not the gzip that it says: {error}") from error
        if len(body) > limit:
            raise ImageError(f"the registry's answer is larger than {limit} bytes")
    return bytes(body)


async def words_of(response: httpx.Response) -> str:
    """The registry's own explanation: `manifest unknown (unknown tag=x)` from its errors list, or the text it sent."""
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
    """What Go's and nginx's TLS servers answer to a request in the clear. Reads the body only of such a 400."""
    if response.status_code != 400 or response.headers.get("docker-distribution-api-version"):
        return False
    with suppress(httpx.HTTPError, ImageError):
        body = response.extensions[_READ] = await read_body(response, 64 * 1024)
        return b"HTTPS" in body
    return False


def _challenges(text: str) -> dict[str, dict[str, str]]:
    """The parameters of each scheme that is offered, by its name in lower case (RFC 9110 §11.6.1)."""
    found: dict[str, dict[str, str]] = {}
    starts = list(_CHALLENGE.finditer(text))
    for at, match in enumerate(starts):
        end = starts[at + 1].start() if at + 1 < len(starts) else len(text)
        found.setdefault(match[1].lower(), _parameters(text[match.end() : end]))
    return found


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for quoted_key, quoted, key, value in _PARAMETER.findall(text):
        found[(quoted_key or key).lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted_key else value
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


def broken(base: str, why: str) -> ImageError:
    host = urllib.parse.urlsplit(base).netloc or base
    return ImageError(f"cannot reach {host}: {why}", reason="RegistryUnavailable", retriable=True)


def _describe(error: httpx.TransportError) -> str:
    """httpx often says little; the cause says what the kernel or the resolver said."""
    if isinstance(error, httpx.TimeoutException):
        return "it did not answer in time"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            known = (
                isinstance(cause, ConnectionError) or type(cause) is OSError
            )  # asyncio words these its own way
            return os.strerror(cause.errno) if known and cause.errno else cause.strerror
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = inner or cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
