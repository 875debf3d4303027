"""Names and ages of images that are here: tag, last use, what nobody needs."""

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
    """Give the image `source` (a name or an id) one more name. Another image that had it stays, nameless."""
    wanted = references.parse(target)
    if wanted.digest:
        raise ImageError(f"{target} has a digest, which a new name cannot have", reason="InvalidImageName")
    prepare(store.root)
    with locked(store.root):
        record = store.find(source)
        index = read_index(store.root)
        index["manifests"] = name_image(index["manifests"], record.manifest_digest, str(wanted))
        write_index(store.root, index)
    found = store.get(str(wanted)) or store.find(record.id)
    return found


def touch(store: ImageStore, ids: Collection[str]) -> None:
    """Note that these images are in use now: the config blob's mtime is when an image was used last, which outlives
    the daemon."""
    for identity in ids:
        with suppress(OSError):
            os.utime(store.blob_path(identity))


def last_used(store: ImageStore, record: ImageRecord) -> float:
    """Unix seconds: when it was last seen in use, or came here."""
    used = 0.0
    with suppress(OSError):
        used = os.stat(store.blob_path(record.id)).st_mtime
    return max(used, pulled_at(record))


def pulled_at(record: ImageRecord) -> float:
    """Unix seconds; 0 when nobody knows (a foreign layout)."""
    with suppress(ValueError):
        return datetime.strptime(record.pulled, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    return 0.0
