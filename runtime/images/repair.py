"""Repair a store as far as possible without a registry.

Damaged files are deleted, so that the next pull fetches them. Missing layers are unpacked again from their blobs. An
image that cannot be restored this way is reported, and the caller pulls it again.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable

from runtime.errors import ImageError
from runtime.images import manifests
from runtime.images.install import Installer, Report
from runtime.images.layers.streams import Spool
from runtime.images.reference import is_digest
from runtime.images.registry.repository import MAX_MANIFEST
from runtime.images.store.content import Session, locked, prepare, sessions, write_index
from runtime.images.store.listing import MANIFEST_TYPE, Layer
from runtime.images.store.store import ImageRecord, ImageStore, read_index
from runtime.images.store.verify import hash_file
from runtime.removal import remove_tree


async def repair(store: ImageStore, *, deep: bool, report: Report) -> tuple[list[str], list[str]]:
    """Return (one sentence per repair, names of images to pull again). `deep` reads and hashes every blob."""
    done: list[str] = []
    await asyncio.to_thread(_repair_files, store, deep, done)
    broken: list[str] = []
    for record in _one_per_image(store.list()):
        try:
            if await _unpack_again(store, record, report):
                done.append(f"unpacked {record.reference or record.id} again")
        except ImageError as error:
            name = record.reference or record.id
            report({"event": "warning", "message": f"{name}: {error}"})
            broken.append(name)
    return done, broken


def _one_per_image(records: tuple[ImageRecord, ...]) -> list[ImageRecord]:
    found: dict[str, ImageRecord] = {}
    for record in records:
        if not record.reference:
            found.setdefault(record.manifest_digest, record)
        elif not found.get(record.manifest_digest, record).reference or record.manifest_digest not in found:
            found[record.manifest_digest] = record
    return list(found.values())


def _repair_files(store: ImageStore, deep: bool, done: list[str]) -> None:
    """Remove stray files and damaged blobs, and replace an unreadable index. Takes the lock."""
    if not os.path.isdir(store.root):
        return
    prepare(store.root)
    with locked(store.root):
        for path, alive in list(sessions(store.root)):
            if not alive:
                remove_tree(path)
                done.append(f"removed {path}, left by a writer that died")
        for name in sorted(os.listdir(store.root)):
            if name.endswith(".tmp"):
                os.unlink(os.path.join(store.root, name))
                done.append(f"removed the stray file {name}")
        for kind in ("blobs/sha256", "layers"):
            _remove_foreign_files(os.path.join(store.root, kind), done)
        for name in sorted(os.listdir(os.path.join(store.root, "blobs/sha256"))):
            path = store.blob_path(f"sha256:{name}")
            if _damaged(path, f"sha256:{name}", deep):
                os.unlink(path)
                done.append(f"removed blob sha256:{name}, whose content had another digest")
        _replace_index(store, done)


def _remove_foreign_files(directory: str, done: list[str]) -> None:
    for name in sorted(os.listdir(directory)):
        if not is_digest(f"sha256:{name}"):
            path = os.path.join(directory, name)
            remove_tree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
            done.append(f"removed {path}, which did not belong to the store")


def _damaged(path: str, digest: str, deep: bool) -> bool:
    """Whether the blob's content has another digest. Manifests and configs are small and always read."""
    return (deep or os.stat(path).st_size <= MAX_MANIFEST) and hash_file(path) != digest


def _replace_index(store: ImageStore, done: list[str]) -> None:
    """Set aside an index that cannot be read. List every stored manifest as an image without a name: containers may use
    its layers, which the next sweep would otherwise delete."""
    path = os.path.join(store.root, "index.json")
    try:
        read_index(store.root)
        return
    except ImageError:
        aside = f"{path}.broken-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"
        os.rename(path, aside)
    entries = []
    for name in sorted(os.listdir(os.path.join(store.root, "blobs/sha256"))):
        digest = f"sha256:{name}"
        size = os.stat(store.blob_path(digest)).st_size
        if size <= MAX_MANIFEST and _is_image_manifest(store, digest):
            entries.append({"mediaType": MANIFEST_TYPE, "digest": digest, "size": size})
    write_index(store.root, {**read_index(store.root), "manifests": entries})
    done.append(f"set aside the unreadable index as {aside}; {len(entries)} images remain without names")


def _is_image_manifest(store: ImageStore, digest: str) -> bool:
    try:
        with open(store.blob_path(digest), "rb") as file:
            manifests.read_manifest(json.loads(file.read()))
    except (ImageError, ValueError, AttributeError):
        return False
    return True


async def _unpack_again(store: ImageStore, record: ImageRecord, report: Report) -> bool:
    """Install the image from its own blobs. True if a layer was missing. Raises ImageError if a blob is missing."""
    manifest = manifests.read_manifest(store.manifest(record))
    with open(store.blob_path(record.id), "rb") as file:  # noqa: ASYNC230 - the worker has nothing else to do
        config = file.read()
    with open(store.blob_path(record.manifest_digest), "rb") as file:  # noqa: ASYNC230
        original = file.read()
    image = manifests.build_image(manifest, config, original=original, names=(), source="")
    missing = [x for x in image.layers if not os.path.isdir(store.layer_path(x.chain_id))]
    absent = [x.digest for x in image.layers if _size(store, x.digest) != x.size]
    if absent:
        raise ImageError(f"its layer blob {absent[0]} is missing")
    if not missing:
        return False
    with Session(store) as session, Installer(session, report) as installer:
        await installer.restore(image, _nothing_to_fetch)
    return True


def _size(store: ImageStore, digest: str) -> int:
    try:
        return os.stat(store.blob_path(digest)).st_size
    except FileNotFoundError:
        return -1


async def _nothing_to_fetch(layer: Layer, _spool: Spool, _progress: Callable[[int], None]) -> None:
    raise ImageError(f"blob {layer.digest} was removed during the repair")
