"""Cached results of build steps (`<store>/cache/<key>.json`) and the directories of RUN --mount=type=cache.

A record names the layers below a step and the layer it created, or states that the step changed no file. A record is
valid only while all its layers are present. Deletion spares the layers that records name until the records themselves
are pruned. A record's modification time is the time of its last use.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from runtime.images.store.disk import replace_file, tree_size
from runtime.images.store.listing import Layer
from runtime.images.store.store import ImageStore
from runtime.removal import remove_tree


@dataclass(frozen=True, slots=True)
class Step:
    """A step's result. `layer` is None if it changed no file. `chain` holds all chain ids, the step's own last."""

    created: str  # RFC 3339
    layer: Layer | None
    chain: tuple[str, ...]


def directory(store: ImageStore) -> str:
    return os.path.join(store.root, "cache")


def mounts_directory(store: ImageStore) -> str:
    return os.path.join(store.root, "cache-mounts")


def contents_directory(store: ImageStore) -> str:
    """Known digests of context files (see `runtime.builder.known`)."""
    return os.path.join(store.root, "cache-contents")


def compressed_directory(store: ImageStore) -> str:
    """Digests of layers compressed for a push (see `runtime.images.layers.compress`)."""
    return os.path.join(store.root, "cache-compressed")


def record_path(store: ImageStore, key: str) -> str:
    return os.path.join(directory(store), f"{key}.json")


def load(store: ImageStore, key: str) -> Step | None:
    """The step's result if all its layers are present, else None. Marks the record as used."""
    path = record_path(store, key)
    step = _read(path)
    if step is None or not _whole(store, step):
        return None
    with suppress(OSError):
        os.utime(path)
    return step


def save(store: ImageStore, key: str, step: Step) -> None:
    """Record a result. Its layer must be in place, synced and leased, or a sweep may delete it at once."""
    os.makedirs(directory(store), 0o700, exist_ok=True)
    replace_file(record_path(store, key), json.dumps(asdict(step)).encode(), sync=False)


def _read(path: str) -> Step | None:
    """None if the record is missing or broken."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read())
        layer = document["layer"]
        return Step(document["created"], Layer(**layer) if layer else None, tuple(document["chain"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _whole(store: ImageStore, step: Step) -> bool:
    if not all(os.path.isdir(store.layer_path(chain)) for chain in step.chain):
        return False
    if step.layer is None:
        return True
    try:
        return os.stat(store.blob_path(step.layer.digest)).st_size == step.layer.size
    except FileNotFoundError:
        return False


def _records(store: ImageStore) -> Iterator[tuple[str, Step | None]]:
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(directory(store))):
            path = os.path.join(directory(store), name)
            yield path, _read(path)


def needed(store: ImageStore) -> set[str]:
    """Digests of blobs and `chain:<id>` of layers that records name."""
    found: set[str] = set()
    for _, step in _records(store):
        if step is not None:
            found |= {f"chain:{chain}" for chain in step.chain}
            if step.layer is not None:
                found.add(step.layer.digest)
    return found


def prune(store: ImageStore, *, before: float | None = None) -> int:
    """Delete records that are broken or were last used before `before` (Unix seconds; None: all), and likewise cache
    mounts, known context digests and notes on compressed layers. Requires the store's lock; the sweep that follows
    frees the layers the records named. Returns the bytes freed from cache mounts."""
    for path, step in _records(store):
        if step is None or _older(path, before):
            with suppress(FileNotFoundError):
                os.unlink(path)
    for place in (contents_directory(store), compressed_directory(store)):
        with suppress(FileNotFoundError):
            for name in os.listdir(place):
                if _older(path := os.path.join(place, name), before):
                    with suppress(FileNotFoundError):
                        os.unlink(path)
    return _prune_mounts(store, before)


def prune_orphans(store: ImageStore) -> None:
    """Delete broken records, and records that name a layer no image has. Requires the lock."""
    images = {os.path.basename(path) for record in store.list() for path in record.layers}
    for path, step in _records(store):
        if step is None or not images.issuperset(chain.partition(":")[2] for chain in step.chain):
            with suppress(FileNotFoundError):
                os.unlink(path)


def _older(path: str, before: float | None) -> bool:
    try:
        return before is None or os.stat(path).st_mtime < before
    except FileNotFoundError:
        return True


def _prune_mounts(store: ImageStore, before: float | None) -> int:
    """Delete old cache mounts; returns the bytes freed. Skip one that a RUN uses, because the RUN holds its lock."""
    freed = 0
    with suppress(FileNotFoundError):
        for name in os.listdir(mounts_directory(store)):
            path = os.path.join(mounts_directory(store), name)
            if not _older(path, before):
                continue
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                freed += tree_size(path)
                remove_tree(path)
            except BlockingIOError:
                continue
            finally:
                os.close(fd)
    return freed


def usage(store: ImageStore) -> dict[str, Any]:
    """{"records": count, "needed": digests and chains the records name, "mounts": [bytes of each cache mount]}."""
    mounts: list[int] = []
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(mounts_directory(store))):
            mounts.append(tree_size(os.path.join(mounts_directory(store), name)))
    count = sum(1 for _ in _records(store))
    return {"records": count, "needed": sorted(needed(store)), "mounts": mounts}
