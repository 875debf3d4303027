"""Compress layers for a push. The store has the layers of builds, packs and archives as plain tars.

Compression is deterministic, so a layer that was pushed before is found in the registry by its digest. Digest and size
of the result are recorded in `<store>/cache-compressed`; while the registry has the blob, the layer is not compressed
again.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from runtime.errors import ImageError
from runtime.images.layers.streams import CHUNK
from runtime.images.store.buildcache import compressed_directory
from runtime.images.store.disk import replace_file
from runtime.images.store.listing import MANIFEST_TYPE
from runtime.images.store.store import ImageStore

PLAIN = "application/vnd.oci.image.layer.v1.tar"
#: name → (media type suffix, levels with the default first). Names and defaults are podman's.
FORMATS: dict[str, tuple[str, tuple[int, ...]]] = {
    "gzip": ("+gzip", (6, *range(1, 10))),
    "zstd": ("+zstd", (3, *range(1, 23))),
    "none": ("", (0,)),
}
_GZIP = 16 + zlib.MAX_WBITS  # zlib writes the header: no name, no time


@dataclass(frozen=True, slots=True)
class Compression:
    """How to compress layers. `level` 0 means the format's default. Raises ImageError (InvalidRequest) for unknown
    values."""

    form: str = "gzip"
    level: int = 0

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise ImageError(
                f'unknown compression "{self.form}"; use one of {", ".join(FORMATS)}',
                reason="InvalidRequest",
            )
        levels = FORMATS[self.form][1]
        if self.level and self.level not in levels:
            raise ImageError(
                f"{self.form} has the levels {min(levels)} to {max(levels)}, not {self.level}",
                reason="InvalidRequest",
            )

    @property
    def effective(self) -> int:
        return self.level or FORMATS[self.form][1][0]

    def media_type(self) -> str:
        return PLAIN + FORMATS[self.form][0]

    def wants(self, entry: dict[str, Any]) -> bool:
        """Whether to compress a layer of a manifest. A compressed layer is sent as it is."""
        return self.form != "none" and entry["mediaType"] == PLAIN


@dataclass(frozen=True, slots=True)
class Compressed:
    digest: str
    size: int


def known(store: ImageStore, digest: str, how: Compression) -> Compressed | None:
    """The recorded result of an earlier compression, or None."""
    try:
        with open(_record_path(store, digest, how), "rb") as file:
            document = json.loads(file.read())
        return Compressed(str(document["digest"]), int(document["size"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compress(
    store: ImageStore, digest: str, how: Compression, path: str, check: Callable[[], None]
) -> Compressed:
    """Compress the layer `digest` into the new file `path`. `check` is called for every chunk and may raise to cancel.
    Raises ImageError, OSError."""
    hashing, size, before = hashlib.sha256(), 0, hashlib.sha256()
    with open(store.blob_path(digest), "rb", buffering=0) as source, open(path, "xb") as file:

        def chunks() -> Iterator[bytes]:
            while chunk := source.read(CHUNK):
                check()
                before.update(chunk)
                yield chunk

        for out in _streams[how.form](chunks(), how.effective):
            hashing.update(out)
            size += len(out)
            file.write(out)
    if f"sha256:{before.hexdigest()}" != digest:
        raise ImageError(f"layer {digest} is damaged; run `kubelite doctor`", reason="ImageStoreCorrupt")
    found = Compressed(f"sha256:{hashing.hexdigest()}", size)
    with suppress(OSError):  # the record only saves time
        note = _record_path(store, digest, how)
        os.makedirs(os.path.dirname(note), 0o700, exist_ok=True)
        replace_file(note, json.dumps({"digest": found.digest, "size": size}).encode(), sync=False)
    return found


def manifest_with(manifest: dict[str, Any], layers: list[dict[str, Any]]) -> bytes:
    """The manifest with other layers, as bytes."""
    document = {**manifest, "mediaType": manifest.get("mediaType", MANIFEST_TYPE), "layers": layers}
    return json.dumps(document, separators=(",", ":")).encode()


def _record_path(store: ImageStore, digest: str, how: Compression) -> str:
    name = f"{digest.partition(':')[2]}-{how.form}-{how.effective}.json"
    return os.path.join(compressed_directory(store), name)


def _gzip(chunks: Iterator[bytes], level: int) -> Iterator[bytes]:
    stream = zlib.compressobj(level, zlib.DEFLATED, _GZIP)
    for chunk in chunks:
        yield stream.compress(chunk)
    yield stream.flush()


def _zstd(chunks: Iterator[bytes], level: int) -> Iterator[bytes]:
    import zstandard

    stream = zstandard.ZstdCompressor(level=level).compressobj()
    for chunk in chunks:
        yield stream.compress(chunk)
    yield stream.flush()


_streams = {"gzip": _gzip, "zstd": _zstd}
