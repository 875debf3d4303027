"""Names and ages of images that are here: tag, last use, what nobody needs."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from runtime.errors import ImageError
from runtime.images import reference as references
from runtime.images.store import buildcache
from runtime.images.store.content import Session, locked, prepare, remove_records, write_index
from runtime.images.store.listing import name_image
from runtime.images.store.store import ImageRecord, ImageStore, Removed, read_index


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


def prune_unused(store: ImageStore, *, in_use: Collection[str], before: float | None = None) -> Removed:
    """Delete every image that no container uses, named or not (docker image prune -a), and results of build steps.
    `before`: only those pulled or used for the last time before that, in Unix seconds."""
    prepare(store.root)
    with Session(store) as session, locked(store.root):
        gone = [
            record
            for record in store.list()
            if record.id not in in_use and (before is None or last_used(store, record) < before)
        ]
        freed = buildcache.prune(store, before=before)
        removed = remove_records(store, session, gone)
        return replace(removed, freed=removed.freed + freed)


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
