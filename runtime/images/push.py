"""Push an image to a registry (OCI distribution-spec, "Push"). Blobs that the registry has are not sent. Plain layers
are compressed first.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from runtime.errors import ImageError
from runtime.images import reference as references
from runtime.images.install import PARALLEL
from runtime.images.layers.compress import Compressed, Compression, compress, known, manifest_with
from runtime.images.layers.streams import CHUNK, Aborted
from runtime.images.reference import Reference
from runtime.images.registry.access import ANONYMOUS, NO_LOGIN, Access
from runtime.images.registry.repository import Registry
from runtime.images.registry.transport import Refused, Report, Transient, unreachable, url_of
from runtime.images.store.content import Session
from runtime.images.store.disk import disk_error
from runtime.images.store.listing import MANIFEST_TYPE, digest_of
from runtime.images.store.store import ImageRecord, ImageStore

DEFAULT = Compression()
Tell = Callable[[str, int, int], None]  # state, bytes sent, total bytes
_REPORT_EVERY = 0.1  # seconds


async def push(
    store: ImageStore,
    text: str,
    target: str,
    *,
    report: Report,
    parallel: int = PARALLEL,
    access: Access = ANONYMOUS,
    compression: Compression = DEFAULT,
) -> tuple[ImageRecord, str, Compressed]:
    """Push the image `text` under the name `target` (empty: its own). Returns the image, the name, and the digest and
    size of the manifest sent. Raises ImageError."""
    record = store.find(text)
    wanted = references.parse(store.expand(target) or record.reference or store.expand(text))
    if wanted.digest:
        raise ImageError(
            f"cannot push to {wanted}: push to a tag, not to a digest", reason="InvalidImageName"
        )
    try:
        with Session(store) as session:
            session.lease_record(record)
            sending = _Sending(session, record, compression)
            sent = await _push(sending, wanted, report=report, parallel=parallel, access=access)
    except ImageError as error:
        raise ImageError(
            f"cannot push {wanted}: {error}",
            reason="ErrImagePush" if error.reason == "ErrImagePull" else error.reason,
            retriable=error.retriable,
        ) from error
    return record, str(wanted), sent


class _Sending:
    """The content to send: each layer as stored or compressed, determined once for all attempts."""

    def __init__(self, session: Session, record: ImageRecord, how: Compression) -> None:
        self.session, self.store, self.record, self.how = session, session.store, record, how
        self.stored = self.store.manifest(record)
        self._ready: dict[str, tuple[Compressed, str]] = {}  # stored digest → (compressed layer, its file)
        self._stop = threading.Event()

    def guess(self, entry: dict[str, Any]) -> Compressed | None:
        """The digest and size to send for a layer, or None if they are unknown until it is compressed."""
        digest = str(entry["digest"])
        if not self.how.wants(entry):
            return Compressed(digest, int(entry["size"]))
        return self._ready[digest][0] if digest in self._ready else known(self.store, digest, self.how)

    async def prepared(self, entry: dict[str, Any]) -> tuple[Compressed, str]:
        """The digest and size to send for a layer, and the file to send. Compresses the layer on the first call."""
        digest = str(entry["digest"])
        if not self.how.wants(entry):
            return Compressed(digest, int(entry["size"])), self.store.blob_path(digest)
        if digest not in self._ready:
            path = self.session.temporary("compressed")
            try:
                made = await asyncio.to_thread(compress, self.store, digest, self.how, path, self._check)
            except asyncio.CancelledError:
                self._stop.set()
                raise
            self._ready[digest] = made, path
        return self._ready[digest]

    def _check(self) -> None:
        if self._stop.is_set():
            raise Aborted

    def manifest(self, sent: dict[str, Compressed]) -> bytes:
        """The manifest to send. `sent` maps stored layer digests to sent layers. Returns the stored bytes if no layer
        changed."""
        if all(layer.digest == digest for digest, layer in sent.items()):
            return _read(self.store.blob_path(self.record.manifest_digest))
        layers = [
            {**entry, "digest": sent[entry["digest"]].digest, "size": sent[entry["digest"]].size,
             "mediaType": self.how.media_type() if self.how.wants(entry) else entry["mediaType"]}
            for entry in self.stored["layers"]
        ]  # fmt: skip
        return manifest_with(self.stored, layers)


async def _push(
    sending: _Sending, wanted: Reference, *, report: Report, parallel: int, access: Access
) -> Compressed:
    record, entries = sending.record, sending.stored["layers"]
    layers = [{"digest": d["digest"], "size": d["size"], "present": False} for d in entries]
    total = sum(d["size"] for d in entries)
    report({"event": "resolved", "reference": str(wanted), "digest": record.manifest_digest,
            "layers": layers, "size": total})  # fmt: skip
    mounts = _mountable(record, wanted)
    refused: list[Refused] = []
    endpoint = access.endpoints(wanted)[-1]  # the registry itself, never a mirror
    for login in await access.logins(endpoint, report) or NO_LOGIN:
        async with Registry(
            endpoint, report=report, login=login, actions="pull,push", also=mounts
        ) as registry:
            pusher = _Pusher(registry, sending, report, mounts)
            try:
                sent = await pusher.layers(entries, parallel)
                await pusher.config(record.id)
                return await pusher.manifest(sending.manifest(sent), wanted.tag)
            except Refused as error:
                refused.append(error)
    raise refused[-1]


def _mountable(record: ImageRecord, wanted: Reference) -> list[str]:
    """Repositories of the same registry that the image came from. The registry can mount layers from them without a
    transfer."""
    found = []
    for name in record.repo_digests:
        source = references.parse(name)
        if source.registry == wanted.registry and source.repository != wanted.repository:
            found.append(source.repository)
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class _Pusher:
    def __init__(self, registry: Registry, sending: _Sending, report: Report, mounts: Sequence[str]) -> None:
        self._registry = registry
        self._sending = sending
        self._report = report
        self._mounts = mounts

    async def layers(self, entries: Sequence[dict[str, Any]], parallel: int) -> dict[str, Compressed]:
        """Send each layer once. Returns the sent layers by their digests in the store."""
        slots = asyncio.Semaphore(parallel)
        sent: dict[str, Compressed] = {}

        async def one(digest: str, entry: dict[str, Any]) -> None:
            async with slots:
                sent[digest] = await self._layer(entry)

        try:
            async with asyncio.TaskGroup() as group:
                for digest, entry in {entry["digest"]: entry for entry in entries}.items():
                    group.create_task(one(digest, entry))
        except BaseExceptionGroup as failures:
            found = [disk_error(e) if isinstance(e, OSError) else e for e in failures.exceptions]
            raise next((e for e in found if isinstance(e, ImageError)), failures) from None
        return sent

    async def _layer(self, entry: dict[str, Any]) -> Compressed:
        tell = self._teller(entry["digest"])

        async def attempt() -> tuple[str, Compressed]:
            guess = self._sending.guess(entry)
            if guess is not None and await self._has(guess.digest):
                return "present", guess
            if guess is None:
                tell("compressing", 0, entry["size"])
            what, path = await self._sending.prepared(entry)
            if what != guess and await self._has(what.digest):
                return "present", what
            return await self._upload(what, path, tell), what

        state, what = await self._registry.retry(attempt)
        tell(state, what.size, what.size)
        return what

    async def config(self, digest: str) -> None:
        path = self._sending.store.blob_path(digest)
        what = Compressed(digest, os.stat(path).st_size)

        async def attempt() -> None:
            if not await self._has(digest):
                await self._upload(what, path, lambda *_: None)

        await self._registry.retry(attempt)

    async def manifest(self, raw: bytes, tag: str) -> Compressed:
        digest = digest_of(raw)

        async def body() -> AsyncIterator[bytes]:
            yield raw

        async def attempt() -> None:
            headers = {"Content-Type": MANIFEST_TYPE, "Content-Length": str(len(raw))}
            async with self._registry.request(
                "PUT", f"manifests/{tag}", headers=headers, body=body, expect=(201, 200, 202)
            ) as response:
                said = response.headers.get("docker-content-digest", digest)
            if said != digest:
                raise ImageError(f"the registry stored the manifest as {said} instead of {digest}")

        await self._registry.retry(attempt)
        return Compressed(digest, len(raw))

    async def _has(self, digest: str) -> bool:
        async with self._registry.request("HEAD", f"blobs/{digest}", expect=(200, 404)) as response:
            return response.status_code == 200

    async def _upload(self, what: Compressed, path: str, tell: Tell) -> str:
        """Ask the registry to mount the blob from another repository, else send it in one PUT. Returns the resulting
        state."""
        for source in self._mounts:
            query = f"?mount={quote(what.digest)}&from={quote(source, safe='')}"
            location = await self._begin(query)
            if not location:
                return "mounted"
        location = await self._begin("")
        await self._put(location, what, path, tell)
        return "done"

    async def _begin(self, query: str) -> str:
        """Start an upload. Returns its URL, or "" if the blob has been mounted."""
        async with self._registry.request(
            "POST", f"blobs/uploads/{query}", headers={"Content-Length": "0"}, expect=(201, 202)
        ) as response:
            if response.status_code == 201:
                return ""
            location = response.headers.get("location", "")
        if not location:
            raise ImageError("the registry gave no upload URL")
        here = httpx.URL(self._registry.url("blobs/uploads/"))
        return str(url_of(location, here, "the registry's upload URL is"))

    async def _put(self, location: str, what: Compressed, path: str, tell: Tell) -> None:
        url = str(httpx.URL(location).copy_merge_params({"digest": what.digest}))

        async def body() -> AsyncIterator[bytes]:
            sent = 0
            with await asyncio.to_thread(open, path, "rb", 0) as file:
                while chunk := await asyncio.to_thread(file.read, CHUNK):
                    yield chunk
                    sent += len(chunk)
                    tell("pushing", sent, what.size)

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(what.size)}
        async with self._registry.request(
            "PUT", url, headers=headers, body=body, expect=(201, 202, 204)
        ) as response:
            stored = response.headers.get("docker-content-digest", what.digest)
        if stored != what.digest:
            raise Transient(unreachable(self._registry.base, f"it stored {stored} instead of {what.digest}"))

    def _teller(self, digest: str) -> Tell:
        last = 0.0

        def tell(state: str, current: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if state != "pushing" or now - last > _REPORT_EVERY:
                last = now
                event = {
                    "event": "layer",
                    "digest": digest,
                    "state": state,
                    "current": current,
                    "total": total,
                }
                self._report(event)

        return tell
