"""Tags, and when an image was last used."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime

from runtime.errors import ImageError
from runtime.images import reference as references
from runtime.images.store.content import locked, prepare, write_index
from runtime.images.store.listing import name_image
from runtime.images.store.store import ImageRecord, ImageStore, read_index


def tag(store: ImageStore, source: str, target: str) -> ImageRecord:
    """Give the image `source` (name or id) one more name. An image that loses the name stays in the store."""
    wanted = references.parse(store.expand(target))
    if wanted.digest:
        raise ImageError(
            f"cannot tag as {target}: a new name cannot contain a digest", reason="InvalidImageName"
        )
    prepare(store.root)
    with locked(store.root):
        record = store.find(source)
        index = read_index(store.root)
        index["manifests"] = name_image(index["manifests"], record.manifest_digest, str(wanted))
        write_index(store.root, index)
    found = store.get(str(wanted)) or store.find(record.id)
    return found


def touch(store: ImageStore, ids: Collection[str]) -> None:
    """Record that these images are in use now. The config blob's mtime holds the time, so it survives the daemon."""
    for identity in ids:
        with suppress(OSError):
            os.utime(store.blob_path(identity))


def last_used(store: ImageStore, record: ImageRecord) -> float:
    """Unix seconds of the last use or of the pull, whichever is later."""
    used = 0.0
    with suppress(OSError):
        used = os.stat(store.blob_path(record.id)).st_mtime
    return max(used, pulled_at(record))


def pulled_at(record: ImageRecord) -> float:
    """Unix seconds of the pull; 0 if unknown (a layout that another tool wrote)."""
    with suppress(ValueError):
        return datetime.strptime(record.pulled, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    return 0.0
