"""The registry side of a pull: an async client of the OCI distribution API (and docker's registry v2, the same thing).

Sources: OCI distribution-spec; docker's "Token Authentication Specification" for the Bearer challenge; RFC 9110 for
Range and Retry-After. Only what may pass by itself is tried again: broken connections, 408, 429 and 5xx, with growing
pauses, and a blob goes on from where it broke. 401, 403 and 404 are final; the error carries the registry's own words.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx

from runtime.errors import ImageError
from runtime.images import manifests
from runtime.images.content import digest_of
from runtime.images.manifests import Descriptor, Manifest, Platform
from runtime.images.reference import DEFAULT_REGISTRY, Reference, is_loopback
from runtime.images.streams import CHUNK, Spool

MAX_MANIFEST = 4 << 20  # docker's own limit
MAX_CONFIG = 8 << 20
ATTEMPTS = 5
CONNECT_ATTEMPTS = 3  # nobody is there at all: say so soon, the caller has a back-off of its own
FIRST_PAUSE = 0.3  # seconds, doubled each time, ± 20 %
LONGEST_PAUSE = 10.0
_TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))
_TIMEOUT = httpx.Timeout(connect=15.0, read=60.0, write=30.0, pool=None)
_USER_AGENT = "kubelite/0.1 (httpx)"
_MAX_REDIRECTS = 5

T = TypeVar("T")
Report = Callable[[dict[str, Any]], None]
_PARAMETER = re.compile(r'([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"|([a-zA-Z_]+)=([^\s,"]+)')


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference leads to on its registry."""

    manifest: Manifest
    raw: bytes  # the manifest as it came
    digest: str  # of it
    source_digest: str  # of what the reference itself names: the index if there is one


class _Transient(Exception):
    """Worth another attempt. `pause` is what the registry asked for, in seconds; `answered`: it said something."""

    def __init__(self, error: ImageError, pause: float = 0.0, *, answered: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause
        self.answered = answered


class Registry:
    """One repository's registry. An async context manager; use within one event loop."""

    def __init__(self, reference: Reference, *, report: Report, plain_http: Collection[str] = ()) -> None:
        self.reference = reference
        host = reference.registry
        loopback = is_loopback(host)
        self.plain = loopback or host in plain_http
        api_host = "registry-1.docker.io" if host == DEFAULT_REGISTRY else host
        self._base = f"{'http' if self.plain else 'https'}://{api_host}"
        self._report = report
        self._token = ""
        self._token_lock = asyncio.Lock()
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT,
            headers={"User-Agent": _USER_AGENT},
            trust_env=not loopback,  # a proxy has no business with this machine itself
            limits=httpx.Limits(max_connections=16),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._client.aclose()

    async def resolve(self, platform: Platform) -> Resolved:
        """The manifest for the platform, every digest on the way checked."""
        raw, kind = await self._manifest(self.reference.wanted)
        source_digest = digest = digest_of(raw)
        document = manifests.parse_json(raw, "the manifest")
        for _ in range(3):  # an index may lead to an index
            if kind not in manifests.INDEX_TYPES:
                break
            chosen = manifests.choose(document, platform)
            raw, kind = await self._manifest(chosen.digest)
            digest = chosen.digest
            document = manifests.parse_json(raw, "the manifest")
        if kind in manifests.INDEX_TYPES:
            raise ImageError("its indexes are nested too deeply")
        return Resolved(manifests.read_manifest(document), raw, digest, source_digest)

    async def fetch_config(self, config: Descriptor) -> bytes:
        """A config blob, whole, checked."""
        if config.size > MAX_CONFIG:
            raise ImageError(f"the image's config has {config.size} bytes; at most {MAX_CONFIG} are accepted")
        path = f"blobs/{config.digest}"

        async def attempt() -> bytes:
            async with self._get(path) as response:
                return await _read_body(response, config.size)

        data = await self._patiently(attempt)
        if len(data) != config.size or digest_of(data) != config.digest:
            raise ImageError(f"the registry sent something else than config {config.digest}")
        return data

    async def fetch_blob(self, blob: Descriptor, spool: Spool, progress: Callable[[int], None]) -> None:
        """Stream a blob into the spool, going on where a broken connection left off. The reader checks the digest."""
        loop = asyncio.get_running_loop()

        async def attempt() -> None:
            offset = spool.received
            if offset == blob.size:
                return
            headers = {"Accept-Encoding": "identity"}
            if offset:
                headers["Range"] = f"bytes={offset}-"
            async with self._get(f"blobs/{blob.digest}", headers=headers) as response:
                skip = 0 if response.status_code == 206 else offset
                async for chunk in _large_chunks(response):
                    data = chunk[skip:] if skip else chunk
                    skip = max(0, skip - len(chunk))
                    if data:
                        await loop.run_in_executor(None, spool.write, data)
                        progress(spool.received)
            if spool.received < blob.size:
                raise _Transient(_broken(self._base, "the connection ended early"))

        await self._patiently(attempt, progressed=lambda: spool.received)

    # --- requests ---

    async def _manifest(self, wanted: str) -> tuple[bytes, str]:
        async def attempt() -> tuple[bytes, str]:
            async with self._get(f"manifests/{wanted}", headers={"Accept": manifests.ACCEPT}) as response:
                body = await _read_body(response, MAX_MANIFEST)
                return body, response.headers.get("content-type", "").partition(";")[0].strip()

        raw, content_type = await self._patiently(attempt)
        if ":" in wanted and digest_of(raw) != wanted:
            raise ImageError(
                f"the registry sent something else than {wanted}: its digest is {digest_of(raw)}"
            )
        kind = manifests.media_type(manifests.parse_json(raw, "the manifest"), content_type)
        manifests.refuse_foreign(kind)
        return raw, kind

    @asynccontextmanager
    async def _get(
        self, path: str, *, headers: dict[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """An answer with status 200 or 206, its body not read yet. Follows redirects, answers a Bearer challenge."""
        url = f"{self._base}/v2/{self.reference.repository}/{path}"
        for challenged in (False, True):
            token = self._token
            response = await self._send(url, headers or {}, token)
            try:
                if response.status_code == 401 and not challenged:
                    challenge = response.headers.get("www-authenticate", "")
                    words = await _words(response)
                    await self._authorize(challenge, stale=token, words=words)
                    continue
                if response.status_code not in {200, 206}:
                    raise await self._refusal(response)
                yield response
                return
            finally:
                await response.aclose()

    async def _send(self, url: str, headers: dict[str, str], token: str) -> httpx.Response:
        """Redirects by hand: the token must not follow to another host (distribution-spec "Pulling blobs")."""
        origin = httpx.URL(url)
        here = origin
        for _ in range(_MAX_REDIRECTS + 1):
            sent = dict(headers)
            if token and (here.scheme, here.host, here.port) == (origin.scheme, origin.host, origin.port):
                sent["Authorization"] = f"Bearer {token}"
            try:
                response = await self._client.send(
                    self._client.build_request("GET", here, headers=sent), stream=True
                )
            except httpx.TransportError as error:
                raise _Transient(
                    _broken(f"{here.scheme}://{here.netloc.decode()}", _describe(error))
                ) from error
            if response.status_code not in {301, 302, 303, 307, 308}:
                return response
            location = response.headers.get("location", "")
            await response.aclose()
            here = here.join(location)
            if here.scheme not in {"https", "http"} or (here.scheme == "http" and not self.plain):
                raise ImageError(f"{self._base} redirects to {here}, which is not https")
        raise ImageError(f"{self._base} redirects more than {_MAX_REDIRECTS} times")

    async def _authorize(self, challenge: str, *, stale: str, words: str) -> None:
        """Get an anonymous token for what the challenge asks (token specification, "Requesting a Token")."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() != "bearer":
            asks = "asks for a user name and password" if scheme.lower() == "basic" else "refuses access"
            raise ImageError(f"{self._base} {asks}{f': {words}' if words else ''}")
        parameters = _challenge_parameters(rest)
        realm = httpx.URL(parameters.get("realm", ""))
        if realm.scheme not in {"https", "http"} or (realm.scheme == "http" and not self.plain):
            raise ImageError(
                f"{self._base} wants its tokens fetched from {str(realm) or 'nowhere'}, which is not https"
            )
        async with self._token_lock:
            if self._token != stale:
                return  # another request got a new one meanwhile
            query = {key: parameters[key] for key in ("service", "scope") if parameters.get(key)}
            query.setdefault("scope", f"repository:{self.reference.repository}:pull")
            self._token = await self._fetch_token(realm.copy_merge_params(query))

    async def _fetch_token(self, url: httpx.URL) -> str:
        try:
            response = await self._client.get(url)
        except httpx.TransportError as error:
            raise _Transient(_broken(f"{url.scheme}://{url.host}", _describe(error))) from error
        if response.status_code != 200:
            raise await self._refusal(response)
        try:
            body = response.json()
            token = body.get("token") or body.get("access_token")
        except (ValueError, AttributeError) as error:
            raise ImageError(f"{url.host} answered with something that is not a token") from error
        if not isinstance(token, str) or not token:
            raise ImageError(f"{url.host} gave no token")
        return token

    async def _refusal(self, response: httpx.Response) -> ImageError | _Transient:
        status = response.status_code
        words = await _words(response)
        error = ImageError(
            f"{self._base} answered {status} {response.reason_phrase}{f': {words}' if words else ''}",
            reason="RegistryUnavailable" if status in _TRANSIENT else None,
            retriable=status in _TRANSIENT,
        )
        if status in _TRANSIENT:
            return _Transient(error, _retry_after(response), answered=True)
        return error

    async def _patiently(self, attempt: Callable[[], Awaitable[T]], progressed: Callable[[], int] = int) -> T:
        """Try until it works, it is final, or ATTEMPTS in a row got nowhere."""
        failures = 0
        seen = progressed()
        while True:
            try:
                return await attempt()
            except _Transient as error:
                transient = error
            except httpx.TransportError as error:
                transient = _Transient(_broken(self._base, _describe(error)))
            if progressed() > seen:
                seen, failures = progressed(), 0
            failures += 1
            if failures >= (ATTEMPTS if progressed() or transient.answered else CONNECT_ATTEMPTS):
                raise transient.error
            pause = max(transient.pause, FIRST_PAUSE * 2 ** (failures - 1) * random.uniform(0.8, 1.2))
            pause = min(pause, LONGEST_PAUSE)
            self._report({"event": "retry", "message": str(transient.error), "delay": round(pause, 2)})
            await asyncio.sleep(pause)


async def _large_chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it is on the wire, gathered: fewer, larger hand-overs to the writing thread."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_raw():
        parts.append(part)
        size += len(part)
        if size >= CHUNK:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


async def _read_body(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > limit:
            raise ImageError(f"the registry's answer is larger than {limit} bytes")
    return bytes(body)


async def _words(response: httpx.Response) -> str:
    """The registry's own explanation: `manifest unknown (unknown tag=x)` from its errors list, or the text it sent."""
    body = b""
    with suppress(httpx.HTTPError, ImageError):
        body = await _read_body(response, 64 * 1024) if not response.is_closed else response.content
    try:
        errors = json.loads(body)["errors"]
        return "; ".join(filter(None, (_one_error(error) for error in errors)))
    except (ValueError, KeyError, TypeError, AttributeError):
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


def _challenge_parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for quoted_key, quoted, key, value in _PARAMETER.findall(text):
        found[(quoted_key or key).lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted_key else value
    return found


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdigit() else 0.0


def _broken(base: str, why: str) -> ImageError:
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
