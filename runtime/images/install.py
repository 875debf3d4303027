"""Install an image from any source: verify its blobs, unpack its layers, and name it in index.json.

Layers are processed in parallel. For each layer, three things run at the same time: the source (network or archive)
writes into a spool, one thread follows the spool, hashing and decompressing, and another thread hashes the plain tar
and unpacks it. When all layers are unpacked, each gets what it takes over from lower layers, from the bottom up, and
everything is synced once. Renames then make it visible: layers, config and manifest, and last the index. A verified
blob becomes visible at once, so a later pull does not fetch it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from runtime.errors import ImageError
from runtime.images.layers.streams import Aborted, BombGuard, Pipe, Reader, Spool, SpoolReader, decompress
from runtime.images.layers.tarstream import ChunkSource, TarStream
from runtime.images.layers.unpack import LayerUnpacker
from runtime.images.store.content import Session
from runtime.images.store.deletion import discard_blobs
from runtime.images.store.disk import DiskFullError, disk_error, syncfs
from runtime.images.store.listing import Image, Layer

Report = Callable[[dict[str, Any]], None]
Fetch = Callable[[Layer, Spool, Callable[[int], None]], Awaitable[None]]
More = Callable[[Layer], bool]  # whether another call of Fetch would use another source
T = TypeVar("T")

PARALLEL = 3  # docker's max-concurrent-downloads
_REPORT_EVERY = 0.1  # seconds


@dataclass(slots=True)
class _Unpacked:
    """A layer whose files are unpacked, but whose directories do not have their final metadata yet."""

    directory: str
    unpacker: LayerUnpacker


class Installer:
    """Installs images within one session. A context manager: leaving it stops the threads and waits for them."""

    def __init__(self, session: Session, report: Report, *, parallel: int = PARALLEL) -> None:
        self._session = session
        self._report = report
        self._slots = asyncio.Semaphore(parallel)
        self._threads = ThreadPoolExecutor(max_workers=parallel + 1, thread_name_prefix="layer")
        self._stop = threading.Event()
        self._spools: list[Spool] = []
        self._undo = ExitStack()
        self._unpacked: dict[str, _Unpacked] = {}  # by chain id
        self._more: More = lambda _layer: False

    def __enter__(self) -> Installer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._abort()
        self._threads.shutdown(wait=True)
        self._undo.close()

    async def install(self, image: Image, fetch: Fetch, more: More = lambda _layer: False) -> None:
        """Put the image in place. `fetch` writes one blob into the given spool. It is called again for a damaged blob
        as long as `more` says that another source is left. Raises ImageError."""
        self._more = more
        await self._install(image, fetch, named=True)

    async def restore(self, image: Image, fetch: Fetch) -> None:
        """Restore the missing parts of a stored image. Its names do not change. Raises ImageError."""
        await self._install(image, fetch, named=False)

    async def _install(self, image: Image, fetch: Fetch, *, named: bool) -> None:
        self._session.lease(image)
        try:
            await self._blobs(image, fetch)
            await self._in_thread(self._complete, image, named)
        except DiskFullError:
            discard_blobs(self._session)
            raise

    async def _blobs(self, image: Image, fetch: Fetch) -> None:
        by_blob: dict[str, list[Layer]] = {}
        for layer in image.layers:
            by_blob.setdefault(layer.digest, []).append(layer)
        try:
            async with asyncio.TaskGroup() as group:
                for layers in by_blob.values():
                    group.create_task(self._blob(layers, fetch))
        except BaseExceptionGroup as failures:
            raise _first_real_error(failures) from None

    # --- one blob ---

    async def _blob(self, layers: Sequence[Layer], fetch: Fetch) -> None:
        """Fetch a blob unless it is present, and unpack it for each layer that is missing."""
        blob = layers[0]
        missing = [layer for layer in layers if not self._session.has_layer(layer.chain_id)]
        async with self._slots:
            try:
                if not self._session.has_blob(blob.digest, blob.size):
                    await self._get(blob, missing[0] if missing else None, fetch)
                    missing = missing[1:]
                elif not missing:
                    self._tell(blob, "present", blob.size)
                    return
                for layer in missing:
                    self._tell(blob, "unpacking", blob.size)
                    await self._in_thread(self._unpack_stored, layer)
            except ImageError as error:
                raise _about_layer(blob, error) from error
            except OSError as error:
                raise _about_layer(blob, disk_error(error)) from error
        self._tell(blob, "done", blob.size)

    async def _get(self, blob: Layer, layer: Layer | None, fetch: Fetch) -> None:
        """Fetch a blob. If it is damaged, try each remaining source once."""
        while True:
            try:
                return await self._stream(blob, layer, fetch)
            except ImageError as error:
                if not self._more(blob):
                    raise
                self._report(
                    {"event": "warning", "message": f"layer {blob.digest}: {error}; trying the next source"}
                )

    async def _stream(self, blob: Layer, layer: Layer | None, fetch: Fetch) -> None:
        spool = Spool(self._session.temporary("blob"), blob.size)
        self._spools.append(spool)
        reading = asyncio.create_task(self._in_thread(self._consume, spool, blob, layer))
        try:
            await self._fill(spool, blob, fetch, reading)
            await self._in_thread(spool.sync)
            digest = await reading
            if digest != blob.digest:
                raise ImageError(f"its content has the digest {digest} instead")
            self._session.commit_blob(spool.path, blob.digest)
        except BaseException as error:
            spool.fail(error)
            await _wait_until_ended(reading)
            raise
        finally:
            spool.close()

    async def _fill(self, spool: Spool, blob: Layer, fetch: Fetch, reading: asyncio.Task[str]) -> None:
        """Run the source. Stop early if the reading side has rejected the data so far."""
        throttle = _Throttle()

        def progress(current: int) -> None:
            if throttle.due():
                self._tell(blob, "downloading", current)

        self._tell(blob, "downloading", 0)
        fetching = asyncio.ensure_future(fetch(blob, spool, progress))
        try:
            await asyncio.wait([fetching, reading], return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done():
                await reading  # it failed early: raises the cause
            await fetching
            spool.complete()
            self._tell(blob, "unpacking", blob.size)
        finally:
            fetching.cancel()
            await asyncio.wait([fetching])

    def _consume(self, spool: Spool, blob: Layer, layer: Layer | None) -> str:
        """Thread: hash and unpack the blob while it arrives. Returns its digest."""
        reader = SpoolReader(spool)
        if layer is not None:
            self._unpack(layer, reader, blob.size)
        return reader.finish()

    # --- unpacking ---

    def _unpack_stored(self, layer: Layer) -> None:
        with open(self._session.store.blob_path(layer.digest), "rb", buffering=0) as file:
            self._unpack(layer, _Stoppable(file, self._stop), layer.size)

    def _unpack(self, layer: Layer, reader: Reader, compressed_size: int) -> None:
        """Thread: decompress in a second thread, unpack in this one, then compare with the config's diff id."""
        directory = self._session.temporary("layer")
        os.mkdir(directory, 0o755)
        unpacker = LayerUnpacker(directory)
        self._undo.callback(unpacker.__exit__, None, None, None)
        pipe = Pipe()
        failure: list[BaseException] = []

        def feed() -> None:
            try:
                with closing(decompress(reader)) as chunks:
                    pipe.put_all(BombGuard(compressed_size).watch(chunks))
            except BaseException as error:  # noqa: BLE001 - handed to the unpacking thread
                failure.append(error)

        feeder = threading.Thread(target=feed, name=f"inflate-{layer.digest[7:19]}")
        feeder.start()
        plain = hashlib.sha256()
        try:
            unpacker.unpack(TarStream(ChunkSource(_hashed(pipe, plain))))
        except Aborted:
            feeder.join()
            raise (failure[0] if failure else Aborted()) from None
        finally:
            pipe.stop()
            feeder.join()
        diff_id = f"sha256:{plain.hexdigest()}"
        if diff_id != layer.diff_id:
            raise ImageError(
                f"its unpacked content has the diff id {diff_id}, but the image's config lists {layer.diff_id}"
            )
        for warning in unpacker.warnings:
            self._report({"event": "warning", "message": warning})
        self._unpacked[layer.chain_id] = _Unpacked(directory, unpacker)

    def _complete(self, image: Image, named: bool) -> None:
        """Thread: complete the layers from the bottom up, sync, and make everything visible."""
        try:
            self._add_missing_entries(image)
            if self._unpacked:
                syncfs(self._session.directory)
            for layer in image.layers:
                made = self._unpacked.pop(layer.chain_id, None)
                if made is not None:
                    self._session.commit_layer(made.directory, layer.chain_id)
            if named:
                self._session.commit_image(image)
        except OSError as error:
            raise disk_error(error) from error

    def _add_missing_entries(self, image: Image) -> None:
        lower: list[str] = []
        for layer in image.layers:
            made = self._unpacked.get(layer.chain_id)
            if made is not None:
                try:
                    made.unpacker.finish(lower)
                except ImageError as error:
                    raise _about_layer(layer, error) from error
                except OSError as error:
                    raise _about_layer(layer, disk_error(error)) from error
            lower.insert(0, made.directory if made else self._session.store.layer_path(layer.chain_id))

    # --- threads ---

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Run in a thread. On cancellation, stop the thread and wait for it, because it writes in our directory."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._abort()
            await asyncio.wait([future])
            future.exception()
            raise

    def _abort(self) -> None:
        self._stop.set()
        for spool in self._spools:
            spool.fail(Aborted())

    def _tell(self, blob: Layer, state: str, current: int) -> None:
        self._report(
            {"event": "layer", "digest": blob.digest, "state": state, "current": current, "total": blob.size}
        )


async def _wait_until_ended(task: asyncio.Task[Any]) -> None:
    """Wait for a task that is ending, even if this task is cancelled meanwhile. If it stopped waiting when another
    layer fails, its own error would be lost, and the other layer's Aborted would be reported."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # expected: it was told to stop


class _Stoppable:
    def __init__(self, reader: Reader, stop: threading.Event) -> None:
        self._reader = reader
        self._stop = stop

    def read(self, count: int, /) -> bytes:
        if self._stop.is_set():
            raise Aborted
        return self._reader.read(count)


class _Throttle:
    def __init__(self) -> None:
        self._next = 0.0

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _REPORT_EVERY
        return True


def _hashed(chunks: Pipe, into: Any) -> Iterator[bytes]:
    for chunk in chunks:
        into.update(chunk)
        yield chunk


def _about_layer(layer: Layer, error: ImageError) -> ImageError:
    kind = DiskFullError if isinstance(error, DiskFullError) else ImageError
    return kind(f"layer {layer.digest}: {error}", reason=error.reason, retriable=error.retriable)


def _first_real_error(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first real error among the failures of several layers. Layers cancelled because of it are ignored."""
    flat: list[BaseException] = []

    def collect(group: BaseExceptionGroup[BaseException]) -> None:
        for error in group.exceptions:
            if isinstance(error, BaseExceptionGroup):
                collect(error)
            else:
                flat.append(error)

    collect(failures)
    return min(flat, key=_rank)


def _rank(error: BaseException) -> int:
    return 0 if isinstance(error, ImageError) else 2 if isinstance(error, Aborted) else 1
