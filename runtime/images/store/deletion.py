"""Deletion: untag and remove images, prune, and sweep blobs and layers that nothing references."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

from runtime.errors import ImageError
from runtime.files import sync_directory
from runtime.images import reference as references
from runtime.images.store import buildcache
from runtime.images.store.content import Session, locked, prepare, read_lease, sessions, write_index
from runtime.images.store.disk import tree_size
from runtime.images.store.listing import nameless
from runtime.images.store.names import last_used
from runtime.images.store.store import REF_NAME, ImageRecord, ImageStore, Removed, chain_ids, read_index
from runtime.removal import remove_tree


def remove_image(
    store: ImageStore, text: str, *, in_use: Collection[str] = (), force: bool = False
) -> Removed:
    """Untag the image that `text` names; with an image id, remove all its names. Then delete the data that no other
    image needs.

    `in_use` lists the ids of images that containers use. The last name of such an image is not removed (ImageInUse)
    unless `force` is set, and `force` removes the name but not the data. An id whose names are in several repositories
    is refused too (ImageHasOtherNames) unless `force` is set. Takes the store's lock and blocks while it deletes files.
    Raises ImageError, also with the reasons of `ImageStore.look_up`.
    """
    prepare(store.root)
    with Session(store) as session, locked(store.root):
        record, by_name = store.look_up(text)
        gone = [
            r for r in store.list() if r.id == record.id and (not by_name or r.reference == record.reference)
        ]
        kept = [r for r in store.list() if r.id == record.id and r not in gone]
        if not kept and record.id in in_use and not force:
            shown = record.reference or record.id
            raise ImageError(
                f"{shown} is in use by a pod or a workload; delete that first", reason="ImageInUse"
            )
        names = {r.reference for r in gone}
        if not force:
            _refuse_several(text, names - {""})
        index = read_index(store.root)
        keep_data = not kept and record.id in in_use
        manifests = []
        for descriptor in index["manifests"]:
            mine = descriptor.get("digest") in {r.manifest_digest for r in gone}
            named = (descriptor.get("annotations") or {}).get(REF_NAME, "") in names
            if not (mine and named):
                manifests.append(descriptor)
            elif keep_data:
                manifests.append(nameless(descriptor))
        index["manifests"] = manifests
        write_index(store.root, index)
        freed = _sweep(store, session)
    untagged = tuple(sorted(name for name in names if name))
    return Removed(untagged, () if kept or keep_data else (record.id,), freed)


def _refuse_several(text: str, names: Collection[str]) -> None:
    """Refuse names in several repositories, as docker does: an id removes its tags in one repository only."""
    if len({references.parse(name).name for name in names}) > 1:
        raise ImageError(
            f"{text} has names in several repositories: {', '.join(sorted(names))}; remove one of these names, or all "
            "of them with --force",
            reason="ImageHasOtherNames",
        )


def remove_records(store: ImageStore, session: Session, gone: Collection[ImageRecord]) -> Removed:
    """Remove these records from the index, then sweep. Requires the lock."""
    names = {(r.manifest_digest, r.reference) for r in gone}
    ids = {r.id for r in gone} - {r.id for r in store.list() if r not in gone}
    index = read_index(store.root)
    index["manifests"] = [
        d
        for d in index["manifests"]
        if (d.get("digest"), (d.get("annotations") or {}).get(REF_NAME, "")) not in names
    ]
    write_index(store.root, index)
    freed = _sweep(store, session)
    untagged = tuple(sorted({r.reference for r in gone if r.reference}))
    return Removed(untagged, tuple(sorted(ids)), freed)


def prune(store: ImageStore, *, in_use: Collection[str], cache: bool = True) -> Removed:
    """Delete dangling images that no container uses, with `cache` build results whose layers belong to no image, and
    then the data that nothing needs."""
    prepare(store.root)
    with Session(store) as session, locked(store.root):
        named = {r.id for r in store.list() if r.reference}
        gone = {r.id for r in store.list() if r.id not in named and r.id not in in_use}
        digests = {r.manifest_digest for r in store.list() if not r.reference and r.id not in in_use}
        index = read_index(store.root)
        index["manifests"] = [
            d
            for d in index["manifests"]
            if d.get("digest") not in digests or (d.get("annotations") or {}).get(REF_NAME)
        ]
        write_index(store.root, index)
        if cache:
            buildcache.prune_orphans(store)
        freed = _sweep(store, session)
    return Removed((), tuple(sorted(gone)), freed)


def prune_unused(
    store: ImageStore, *, in_use: Collection[str], before: float | None = None, cache: bool = True
) -> Removed:
    """Delete every image that no container uses, with or without names (docker image prune -a), and with `cache` cached
    build steps. `before` (Unix seconds) limits this to images pulled and last used, and steps last used, before that
    time."""
    prepare(store.root)
    with Session(store) as session, locked(store.root):
        gone = [
            record
            for record in store.list()
            if record.id not in in_use and (before is None or last_used(store, record) < before)
        ]
        freed = buildcache.prune(store, before=before) if cache else 0
        removed = remove_records(store, session, gone)
        return replace(removed, freed=removed.freed + freed)


def prune_cache(store: ImageStore, *, before: float | None = None) -> Removed:
    """Delete cached build steps and cache mounts last used before `before` (Unix seconds; None: all)."""
    prepare(store.root)
    with Session(store) as session, locked(store.root):
        freed = buildcache.prune(store, before=before)
        return Removed((), (), freed + _sweep(store, session))


def discard_blobs(session: Session) -> None:
    """Delete the session's new blobs that no image and no other session needs, because the disk is full."""
    store = session.store
    with locked(store.root):
        needed = referenced(store, lambda _digest, _error: None) | buildcache.needed(store)
        for path, alive in sessions(store.root):
            if alive and path != session.directory:
                needed |= read_lease(os.path.join(path, "lease.json"))
        for digest in session.new_blobs:
            if digest not in needed:
                with suppress(FileNotFoundError):
                    os.unlink(store.blob_path(digest))


def retained(store: ImageStore, in_use: Collection[str]) -> set[str] | None:
    """What `prune_unused(store, in_use=in_use, cache=False)` would leave: digests, and `chain:<id>` of layers. None:
    everything, because an image cannot be read."""
    used = {(r.manifest_digest, r.reference) for r in store.list() if r.id in in_use}
    broken: list[str] = []

    def stays(descriptor: dict[str, Any]) -> bool:
        name = (descriptor.get("annotations") or {}).get(REF_NAME, "")
        return (descriptor.get("digest"), name) in used

    needed = referenced(store, lambda digest, _error: broken.append(digest), stays)
    return None if broken else needed | _leased(store) | buildcache.needed(store)


def _leased(store: ImageStore) -> set[str]:
    """What the sessions of living writers need."""
    found: set[str] = set()
    for path, alive in sessions(store.root):
        if alive:
            found |= read_lease(os.path.join(path, "lease.json"))
    return found


def referenced(
    store: ImageStore,
    visit: Callable[[str, Exception], None] | None = None,
    wanted: Callable[[dict[str, Any]], bool] = lambda _descriptor: True,
) -> set[str]:
    """Every digest reachable from the wanted descriptors of the index, and `chain:<id>` of its layers. `visit` receives
    unreadable images."""
    needed: set[str] = set()

    def follow(descriptor: dict[str, Any]) -> None:
        digest = str(descriptor["digest"])
        if digest in needed:
            return
        needed.add(digest)
        try:
            with open(store.blob_path(digest), "rb") as file:
                document = json.loads(file.read())
            for child in document.get("manifests") or ():
                follow(child)
            needed.update(str(layer["digest"]) for layer in document.get("layers") or ())
            if "config" in document:
                config = str(document["config"]["digest"])
                needed.add(config)
                with open(store.blob_path(config), "rb") as file:
                    diff_ids = (json.loads(file.read()).get("rootfs") or {}).get("diff_ids") or []
                needed.update(f"chain:{chain}" for chain in chain_ids(diff_ids))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if visit is None:
                raise ImageError(
                    f"cannot read image {digest}: {error}", reason="ImageStoreCorrupt"
                ) from error
            visit(digest, error)

    for descriptor in read_index(store.root)["manifests"]:
        if wanted(descriptor):
            follow(descriptor)
    return needed


def _sweep(store: ImageStore, session: Session) -> int:
    """Delete every blob and layer that neither the index, nor a live session, nor the build cache needs. Requires the
    lock. Returns bytes freed. If an image cannot be read, delete nothing: the data it needs is unknown."""
    broken: list[str] = []
    needed = referenced(store, lambda digest, _error: broken.append(digest))
    if broken:
        return 0
    needed |= _leased(store) | buildcache.needed(store)
    freed = 0
    blobs = os.path.join(store.root, "blobs", "sha256")
    for name in os.listdir(blobs):
        if f"sha256:{name}" not in needed:
            freed += os.stat(os.path.join(blobs, name)).st_blocks * 512  # as `usage` counts
            os.unlink(os.path.join(blobs, name))
    return freed + _sweep_layers(store, session, needed)


def _sweep_layers(store: ImageStore, session: Session, needed: Collection[str]) -> int:
    """Move unneeded layers to the session's directory, sync both directories, then delete the files. A power cut during
    the deletion must not leave half a layer under its name: a later pull would take it for complete."""
    layers = os.path.join(store.root, "layers")
    trash = []
    for name in os.listdir(layers):
        if f"chain:sha256:{name}" not in needed:
            trash.append(session.temporary("trash"))
            os.rename(os.path.join(layers, name), trash[-1])
    if trash:
        sync_directory(session.directory)
        sync_directory(layers)
    freed = 0
    for path in trash:
        freed += tree_size(path)
        remove_tree(path)
    return freed
