"""An image's blobs → verified in blobs/, unpacked in layers/, named in index.json; whatever they come from.

For each layer, at the same time: the source writes into a spool (network or archive), one thread follows it, hashing
and inflating, another hashes the plain tar and unpacks it. Layers do this beside each other. When all are whole, what
depends on lower layers is settled bottom-up, everything is synced once, and renames make it visible: layers, config
and manifest, and the index last. A blob becomes visible as soon as it is verified: a later pull fetches it no more.
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
from runtime.images.layers.streams import Aborted, Bomb, Pipe, Reader, Spool, SpoolReader, decompress
from runtime.images.layers.tarstream import ChunkSource, TarStream
from runtime.images.layers.unpack import LayerUnpacker
from runtime.images.store.content import Session
from runtime.images.store.deletion import discard_blobs
from runtime.images.store.disk import DiskFullError, disk_error, syncfs
from runtime.images.store.listing import Image, Layer

Report = Callable[[dict[str, Any]], None]
Fetch = Callable[[Layer, Spool, Callable[[int], None]], Awaitable[None]]
More = Callable[[Layer], bool]  # whether another call of Fetch would ask somebody else
T = TypeVar("T")

PARALLEL = 3  # docker's max-concurrent-downloads
_REPORT_EVERY = 0.1  # seconds


@dataclass(slots=True)
class _Unpacked:
    """A layer whose files are there, its directories not final yet."""

    directory: str
    unpacker: LayerUnpacker


class Installer:
    """Installs images within one session. `close` (or leaving the context) waits for its threads."""

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
        """Put the image in place. `fetch` writes one blob into the spool it is given, and is called again for a blob
        that was not what it should be as long as there is `more` of it. Raises ImageError."""
        self._more = more
        await self._install(image, fetch, named=True)

    async def restore(self, image: Image, fetch: Fetch) -> None:
        """Put back what is missing of an image that is here; its names stay as they are."""
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
            raise _most_telling(failures) from None

    # --- one blob ---

    async def _blob(self, layers: Sequence[Layer], fetch: Fetch) -> None:
        """Get one blob if it is not here, and unpack it for each of the layers that is not."""
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
        """A blob that is damaged is fetched once more from each that may have it whole."""
        while True:
            try:
                return await self._stream(blob, layer, fetch)
            except ImageError as error:
                if not self._more(blob):
                    raise
                self._report(
                    {"event": "warning", "message": f"layer {blob.digest}: {error}; asking the next"}
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
                raise ImageError(f"its content does not match its digest: it is {digest}")
            self._session.commit_blob(spool.path, blob.digest)
        except BaseException as error:
            spool.fail(error)
            await _ended(reading)
            raise
        finally:
            spool.close()

    async def _fill(self, spool: Spool, blob: Layer, fetch: Fetch, reading: asyncio.Task[str]) -> None:
        """Run the source; stop early when the reading side has refused what came so far."""
        throttle = _Throttle()

        def progress(current: int) -> None:
            if throttle.due():
                self._tell(blob, "downloading", current)

        self._tell(blob, "downloading", 0)
        fetching = asyncio.ensure_future(fetch(blob, spool, progress))
        try:
            await asyncio.wait([fetching, reading], return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done():
                await reading  # failed before the end: its error is the reason
            await fetching
            spool.complete()
            self._tell(blob, "unpacking", blob.size)
        finally:
            fetching.cancel()
            await asyncio.wait([fetching])

    def _consume(self, spool: Spool, blob: Layer, layer: Layer | None) -> str:
        """Thread: hash the blob as it comes, and unpack it. Returns its digest."""
        reader = SpoolReader(spool)
        if layer is not None:
            self._unpack(layer, reader, blob.size)
        return reader.finish()

    # --- unpacking ---

    def _unpack_stored(self, layer: Layer) -> None:
        with open(self._session.store.blob_path(layer.digest), "rb", buffering=0) as file:
            self._unpack(layer, _Stoppable(file, self._stop), layer.size)

    def _unpack(self, layer: Layer, reader: Reader, compressed_size: int) -> None:
        """Thread: decompress in a second thread, unpack here, then compare with the diff id the config promises."""
        directory = self._session.temporary("layer")
        os.mkdir(directory, 0o755)
        unpacker = LayerUnpacker(directory)
        self._undo.callback(unpacker.__exit__, None, None, None)
        pipe = Pipe()
        failure: list[BaseException] = []

        def feed() -> None:
            try:
                with closing(decompress(reader)) as chunks:
                    pipe.put_all(Bomb(compressed_size).watch(chunks))
            except BaseException as error:  # noqa: BLE001 - carried over to the unpacking thread
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
                f"its unpacked content is {diff_id}, but the image's config says {layer.diff_id}"
            )
        for warning in unpacker.warnings:
            self._report({"event": "warning", "message": warning})
        self._unpacked[layer.chain_id] = _Unpacked(directory, unpacker)

    def _complete(self, image: Image, named: bool) -> None:
        """Thread: settle the layers bottom-up, sync, and make everything visible."""
        try:
            self._settle(image)
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

    def _settle(self, image: Image) -> None:
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
        """Run in a thread of ours. When cancelled, stop the thread and wait for it: it works in our directory."""
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


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait for one that is ending, and for nothing else: were this given up when another layer fails, that layer's
    reason to stop would stand for the error."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # it says that it was told to stop


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


def _most_telling(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of what several layers failed with: the first real error. What was only cancelled with it says nothing."""
    flat: list[BaseException] = []

    def collect(group: BaseExceptionGroup[BaseException]) -> None:
        for error in group.exceptions:
            if isinstance(error, BaseExceptionGroup):
                collect(error)
            else:
                flat.append(error)

    collect(failures)
    return min(flat, key=_says_little)


def _says_little(error: BaseException) -> int:
    return 0 if isinstance(error, ImageError) else 2 if isinstance(error, Aborted) else 1
