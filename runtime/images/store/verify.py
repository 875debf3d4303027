"""Verify the store's files, for `kubelite doctor`: one sentence per problem; an empty list means that all is well."""

from __future__ import annotations

import hashlib
import os

from runtime.errors import ImageError
from runtime.images.reference import is_digest
from runtime.images.store.content import locked, prepare, sessions
from runtime.images.store.deletion import referenced
from runtime.images.store.store import ImageStore


def check_store(store: ImageStore, *, deep: bool = False) -> list[str]:
    """Check every blob and layer that the index or an image needs. `deep` reads and hashes every blob. Takes the lock,
    so that no writer is in the middle of a change."""
    if not os.path.isdir(store.root):
        return []
    prepare(store.root)
    problems: list[str] = []
    with locked(store.root):
        try:
            needed = referenced(
                store, lambda digest, error: problems.append(f"cannot read image {digest}: {error}")
            )
        except (ImageError, KeyError, TypeError) as error:
            return [f"cannot read index.json: {error}; run `kubelite doctor --repair`"]
        for digest in sorted(needed):
            problems += (
                _check_layer(store, digest)
                if digest.startswith("chain:")
                else _check_blob(store, digest, deep)
            )
        problems += _check_sizes(store)
        problems += _check_strays(store)
    return problems


def _check_blob(store: ImageStore, digest: str, deep: bool) -> list[str]:
    if not is_digest(digest):
        return [f"an image refers to the blob {digest}, which is not a sha256 digest; remove the image"]
    path = store.blob_path(digest)
    if not os.path.isfile(path):
        return [f"blob {digest} is missing, but an image needs it; pull the image again"]
    if deep and hash_file(path) != digest:
        return [
            f"blob {digest} is damaged: its content has another digest; remove the image and pull it again"
        ]
    return []


def _check_layer(store: ImageStore, chain: str) -> list[str]:
    if os.path.isdir(store.layer_path(chain.removeprefix("chain:"))):
        return []
    chain_id = chain.removeprefix("chain:")
    return [f"layer {chain_id} is not unpacked, but an image needs it; pull the image again"]


def _check_sizes(store: ImageStore) -> list[str]:
    problems = []
    for record in store.list():
        manifest = store.manifest(record)
        for descriptor in (manifest["config"], *manifest["layers"]):
            try:
                found = os.stat(store.blob_path(descriptor["digest"])).st_size
            except OSError:
                continue  # `_check_blob` has reported it
            if found != descriptor["size"]:
                problems.append(
                    f"blob {descriptor['digest']} has {found} bytes, but an image lists {descriptor['size']}"
                )
    return list(dict.fromkeys(problems))


def _check_strays(store: ImageStore) -> list[str]:
    problems = [
        f"{path} was left by a writer that died; the next pull removes it"
        for path, alive in sessions(store.root)
        if not alive
    ]
    for name in sorted(os.listdir(store.root)):
        if name.endswith(".tmp"):
            problems.append(f"{os.path.join(store.root, name)} is a stray temporary file; delete it")
    for kind in ("blobs/sha256", "layers"):
        directory = os.path.join(store.root, kind)
        problems += [
            f"{os.path.join(directory, name)} does not belong to the store; delete it"
            for name in sorted(os.listdir(directory))
            if not is_digest(f"sha256:{name}")
        ]
    return problems


def hash_file(path: str) -> str:
    """The file's digest, `sha256:…`. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
