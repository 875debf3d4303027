"""Read one repository by the distribution API: manifests, configs and blobs (OCI distribution-spec, "Pull").

`transport.py` sends the requests, authenticates and retries. A broken download resumes where it stopped (Range).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import httpx

from runtime.errors import ImageError
from runtime.images import manifests
from runtime.images.layers.streams import CHUNK, Spool
from runtime.images.manifests import Descriptor, Manifest, Platform
from runtime.images.registry import signatures
from runtime.images.registry.signatures import Signature
from runtime.images.registry.transport import Transient, Transport, read_body, unreachable
from runtime.images.store.listing import digest_of

MAX_MANIFEST = 4 << 20  # docker's own limit
MAX_CONFIG = 8 << 20


_RANGE = re.compile(r"bytes (\d{1,18})-")


@dataclass(frozen=True, slots=True)
class Resolved:
    """The manifest a reference resolves to on its registry."""

    manifest: Manifest
    raw: bytes  # the manifest as received
    digest: str  # of the manifest
    source_digest: str  # of the document the reference names: the index if there is one


class Registry(Transport):
    """One repository on one registry."""

    async def resolve(self, wanted: str, platform: Platform) -> Resolved:
        """Fetch the manifest of a tag or digest for the platform. Checks every digest on the way. Raises ImageError."""
        raw, kind = await self._manifest(wanted)
        source_digest = digest = digest_of(raw)
        document = manifests.parse_json(raw, "the manifest")
        for _ in range(3):  # an index may name another index
            if kind not in manifests.INDEX_TYPES:
                break
            chosen = manifests.choose(document, platform)
            raw, kind = await self._manifest(chosen.digest)
            digest = chosen.digest
            document = manifests.parse_json(raw, "the manifest")
        if kind in manifests.INDEX_TYPES:
            raise ImageError("its indexes are nested too deeply")
        return Resolved(manifests.read_manifest(document), raw, digest, source_digest)

    async def signatures(self, digest: str) -> list[Signature]:
        """Fetch the signatures that are attached to a manifest; none if the registry has none. Raises ImageError."""
        path = f"manifests/{signatures.tag_of(digest)}"

        async def attempt() -> bytes:
            headers = {"Accept": manifests.ACCEPT}
            async with self.request("GET", path, headers=headers, expect=(200, 404)) as response:
                return await read_body(response, MAX_MANIFEST) if response.status_code == 200 else b""

        if not (raw := await self.retry(attempt)):
            return []
        found = []
        for layer, signature in signatures.listed(
            manifests.parse_json(raw, "the manifest of its signatures")
        ):
            text = await self.fetch_config(manifests.descriptor(layer, "a signature"))
            found.append(Signature(text, signature))
        return found

    async def fetch_config(self, config: Descriptor) -> bytes:
        """Fetch a config blob and check its size and digest. Raises ImageError."""
        if config.size > MAX_CONFIG:
            raise ImageError(f"the image's config has {config.size} bytes; at most {MAX_CONFIG} are accepted")
        path = f"blobs/{config.digest}"

        async def attempt() -> bytes:
            async with self.request("GET", path) as response:
                return await read_body(response, config.size)

        data = await self.retry(attempt)
        if len(data) != config.size or digest_of(data) != config.digest:
            raise ImageError(f"the registry sent other content than config {config.digest}")
        return data

    async def fetch_blob(self, blob: Descriptor, spool: Spool, progress: Callable[[int], None]) -> None:
        """Stream a blob into the spool, and resume after a broken connection. The spool's reader checks the digest.
        Raises ImageError."""
        loop = asyncio.get_running_loop()

        async def attempt() -> None:
            offset = spool.received
            if offset == blob.size:
                return
            headers = {"Accept-Encoding": "identity"}
            if offset:
                headers["Range"] = f"bytes={offset}-"
            async with self.request("GET", f"blobs/{blob.digest}", headers=headers) as response:
                skip = offset - _begin(response, asked=offset)
                async for chunk in _large_chunks(response):
                    data = chunk[skip:] if skip else chunk
                    skip = max(0, skip - len(chunk))
                    if data:
                        await loop.run_in_executor(None, spool.write, data)
                        progress(spool.received)
            if spool.received < blob.size:
                raise Transient(unreachable(self.base, "the connection ended early"))

        await self.retry(attempt, progressed=lambda: spool.received)

    async def ping(self) -> None:
        """Check that the registry answers and accepts the login (distribution-spec "Determining Support"). Raises
        ImageError."""

        async def attempt() -> None:
            async with self.request("GET", "/v2/"):
                pass

        await self.retry(attempt)

    async def _manifest(self, wanted: str) -> tuple[bytes, str]:
        async def attempt() -> tuple[bytes, str]:
            headers = {"Accept": manifests.ACCEPT}
            async with self.request("GET", f"manifests/{wanted}", headers=headers) as response:
                body = await read_body(response, MAX_MANIFEST)
                return body, response.headers.get("content-type", "").partition(";")[0].strip()

        raw, content_type = await self.retry(attempt)
        if ":" in wanted and digest_of(raw) != wanted:
            raise ImageError(f"the registry sent other content than {wanted}: its digest is {digest_of(raw)}")
        document = manifests.parse_json(raw, "the manifest")
        kind = manifests.media_type(document, content_type)
        manifests.refuse_foreign(kind)
        manifests.refuse_both(document)
        return raw, kind


def _begin(response: httpx.Response, *, asked: int) -> int:
    """The offset in the blob at which a response starts. A range may start before the requested offset but not after it
    (RFC 9110 §15.3.7). A response that is not 206 starts at 0."""
    if response.status_code != 206:
        return 0
    given = _RANGE.match(response.headers.get("content-range", ""))
    begin = int(given[1]) if given else asked
    if begin > asked:
        raise ImageError(
            f"requested the blob from byte {asked} on, but the registry sent it from byte {begin} on"
        )
    return begin


async def _large_chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    """The raw body, gathered into larger chunks: fewer hand-overs to the writing thread."""
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
