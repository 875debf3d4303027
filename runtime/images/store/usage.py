"""Disk space the store uses."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from runtime.images.store import buildcache
from runtime.images.store.deletion import retained
from runtime.images.store.disk import tree_size
from runtime.images.store.store import ImageStore


def usage(store: ImageStore, in_use: Collection[str] = ()) -> dict[str, Any]:
    """Bytes on disk: {"blobs": {digest: n}, "layers": {chain id: n}, "ingest": n, "cache": see buildcache.usage}, and
    {"retained": see deletion.retained}. `in_use`: ids of images."""
    blobs: dict[str, int] = {}
    layers: dict[str, int] = {}
    with suppress(FileNotFoundError):
        for entry in os.scandir(os.path.join(store.root, "blobs/sha256")):
            with suppress(FileNotFoundError):
                blobs[f"sha256:{entry.name}"] = entry.stat().st_blocks * 512
        for entry in os.scandir(os.path.join(store.root, "layers")):
            layers[f"sha256:{entry.name}"] = tree_size(entry.path)
    ingest = tree_size(os.path.join(store.root, "ingest"))
    kept = retained(store, in_use)
    return {
        "blobs": blobs,
        "layers": layers,
        "ingest": ingest,
        "cache": buildcache.usage(store),
        "retained": None if kept is None else sorted(kept),
    }
