"""An image from the store to a registry (OCI distribution-spec, "Push"): what is there already is not sent."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from runtime.errors import ImageError
from runtime.images import reference as references
from runtime.images.access import ANONYMOUS, NOBODY, Access
from runtime.images.content import MANIFEST_TYPE, Session
from runtime.images.install import PARALLEL
from runtime.images.reference import Reference
from runtime.images.registry import Registry
from runtime.images.store import ImageRecord, ImageStore
from runtime.images.streams import CHUNK
from runtime.images.transport import Refused, Report, Transient, broken

_REPORT_EVERY = 0.1  # seconds


async def push(
    store: ImageStore,
    text: str,
    target: str,
    *,
    report: Report,
    parallel: int = PARALLEL,
    access: Access = ANONYMOUS,
) -> tuple[ImageRecord, str, str]:
    """Send the image `text` under the name `target` (empty: its own). Returns it, the name and the manifest's digest.
    Raises ImageError."""
    record = store.find(text)
    wanted = references.parse(target or record.reference or text)
    if wanted.digest:
        raise ImageError(
            f"cannot push to {wanted}: a digest is not a name to push to", reason="InvalidImageName"
        )
    try:
        with Session(store) as session:
            session.lease_record(record)
            await _push(store, record, wanted, report=report, parallel=parallel, access=access)
    except ImageError as error:
        raise ImageError(
            f"cannot push {wanted}: {error}",
            reason="ErrImagePush" if error.reason == "ErrImagePull" else error.reason,
            retriable=error.retriable,
        ) from error
    return record, str(wanted), record.manifest_digest


async def _push(
    store: ImageStore,
    record: ImageRecord,
    wanted: Reference,
    *,
    report: Report,
    parallel: int,
    access: Access,
) -> None:
    blobs = [(d["digest"], d["size"]) for d in store.manifest(record)["layers"]]
    layers = [{"digest": digest, "size": size, "present": False} for digest, size in blobs]
    total = sum(size for _, size in blobs)
    report({"event": "resolved", "reference": str(wanted), "digest": record.manifest_digest,
            "layers": layers, "size": total})  # fmt: skip
    mounts = _mountable(record, wanted)
    refused: list[Refused] = []
    endpoint = access.endpoints(wanted)[-1]  # never to a mirror
    for login in await access.logins(endpoint, report) or NOBODY:
        async with Registry(
            endpoint, report=report, login=login, actions="pull,push", also=mounts
        ) as registry:
            pusher = _Pusher(registry, store, report, mounts)
            try:
                await pusher.blobs([*dict(blobs).items()], parallel)
                await pusher.blob(record.id, os.stat(store.blob_path(record.id)).st_size, quiet=True)
                await pusher.manifest(record.manifest_digest, wanted.tag)
                return
            except Refused as error:
                refused.append(error)
    raise refused[-1]


def _mountable(record: ImageRecord, wanted: Reference) -> list[str]:
    """Repositories of the same registry this image came from: its layers may be had there without sending them."""
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
    def __init__(self, registry: Registry, store: ImageStore, report: Report, mounts: Sequence[str]) -> None:
        self._registry = registry
        self._store = store
        self._report = report
        self._mounts = mounts

    async def blobs(self, blobs: Sequence[tuple[str, int]], parallel: int) -> None:
        slots = asyncio.Semaphore(parallel)

        async def one(digest: str, size: int) -> None:
            async with slots:
                await self.blob(digest, size)

        try:
            async with asyncio.TaskGroup() as group:
                for digest, size in blobs:
                    group.create_task(one(digest, size))
        except BaseExceptionGroup as failures:
            raise next((e for e in failures.exceptions if isinstance(e, ImageError)), failures) from None

    async def blob(self, digest: str, size: int, *, quiet: bool = False) -> None:
        tell = (lambda _state, _current: None) if quiet else self._teller(digest, size)

        async def attempt() -> str:
            if await self._has(digest):
                return "present"
            return await self._upload(digest, size, tell)

        state = await self._registry.patiently(attempt)
        tell(state, size)

    async def manifest(self, digest: str, tag: str) -> None:
        raw = await asyncio.to_thread(_read, self._store.blob_path(digest))

        async def body() -> AsyncIterator[bytes]:
            yield raw

        async def attempt() -> None:
            headers = {"Content-Type": MANIFEST_TYPE, "Content-Length": str(len(raw))}
            async with self._registry.request(
                "PUT", f"manifests/{tag}", headers=headers, body=body, expect=(201, 200, 202)
            ) as response:
                said = response.headers.get("docker-content-digest", digest)
            if said != digest:
                raise ImageError(f"the registry keeps the manifest as {said} instead of {digest}")

        await self._registry.patiently(attempt)

    async def _has(self, digest: str) -> bool:
        async with self._registry.request("HEAD", f"blobs/{digest}", expect=(200, 404)) as response:
            return response.status_code == 200

    async def _upload(self, digest: str, size: int, tell: Any) -> str:
        """Ask for it to be mounted from a neighbour, else send it whole in one PUT."""
        for source in self._mounts:
            query = f"?mount={quote(digest)}&from={quote(source, safe='')}"
            location = await self._begin(query)
            if not location:
                return "mounted"
        location = await self._begin("")
        await self._put(location, digest, size, tell)
        return "done"

    async def _begin(self, query: str) -> str:
        """Where to upload to; "" when it has been mounted."""
        async with self._registry.request(
            "POST", f"blobs/uploads/{query}", headers={"Content-Length": "0"}, expect=(201, 202)
        ) as response:
            if response.status_code == 201:
                return ""
            location = response.headers.get("location", "")
        if not location:
            raise ImageError("the registry does not say where to upload to")
        return str(httpx.URL(self._registry.url("blobs/uploads/")).join(location))

    async def _put(self, location: str, digest: str, size: int, tell: Any) -> None:
        path = self._store.blob_path(digest)
        url = str(httpx.URL(location).copy_merge_params({"digest": digest}))

        async def body() -> AsyncIterator[bytes]:
            sent = 0
            with await asyncio.to_thread(open, path, "rb", 0) as file:
                while chunk := await asyncio.to_thread(file.read, CHUNK):
                    yield chunk
                    sent += len(chunk)
                    tell("pushing", sent)

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        async with self._registry.request(
            "PUT", url, headers=headers, body=body, expect=(201, 202, 204)
        ) as response:
            stored = response.headers.get("docker-content-digest", digest)
        if stored != digest:
            raise Transient(broken(self._registry.base, f"it kept {stored} instead of {digest}"))

    def _teller(self, digest: str, size: int) -> Any:
        last = 0.0

        def tell(state: str, current: int) -> None:
            nonlocal last
            now = time.monotonic()
            if state != "pushing" or now - last > _REPORT_EVERY:
                last = now
                event = {
                    "event": "layer",
                    "digest": digest,
                    "state": state,
                    "current": current,
                    "total": size,
                }
                self._report(event)

        return tell
