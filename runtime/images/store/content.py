"""The writing side of the store: sessions, leases, and commits by rename.

These rules make a kill -9 at any line harmless:
- A session creates everything in its own directory, `ingest/<id>`. A complete, verified and synced object moves to its
  place by one rename(2). index.json is written last, so it never names an object that is missing.
- The owner of a session holds an flock on its directory. An unlocked directory has no owner and may be deleted.
- Deleting an object or editing index.json requires `lock`. Deletion spares what live sessions lease (`lease.json`).
- Deletion runs in the opposite order: first index.json, then renames into a session's directory, then the files.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self

from runtime.files import sync_directory
from runtime.images.store.disk import replace_file
from runtime.images.store.listing import Image, digest_of, with_image
from runtime.images.store.store import OCI_LAYOUT, ImageRecord, ImageStore, read_index
from runtime.removal import remove_tree


class Session:
    """One writer. A context manager: its directory is deleted on exit, whatever happened."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self.new_blobs: list[str] = []
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            prepare(self.store.root)
            with locked(self.store.root):
                sweep_stale(self.store.root)
                self.directory = os.path.join(self.store.root, "ingest", secrets.token_hex(8))
                os.mkdir(self.directory, 0o700)
                undo.callback(remove_tree, self.directory)
                undo.callback(os.close, _flock(self.directory, fcntl.LOCK_EX))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._undo.close()

    def temporary(self, prefix: str) -> str:
        """A new path in the session's directory."""
        return os.path.join(self.directory, f"{prefix}-{secrets.token_hex(8)}")

    def lease(self, image: Image) -> None:
        """Protect the image's blobs and layers from deletion. Lease before looking whether they exist."""
        needed = {image.manifest_digest, image.config_digest}
        for layer in image.layers:
            needed |= {layer.digest, f"chain:{layer.chain_id}"}
        self._lease(needed)

    def lease_record(self, record: ImageRecord) -> None:
        """Protect an image that is in the store."""
        self._lease({record.manifest_digest, record.id, *record.layer_digests})

    def _lease(self, needed: set[str]) -> None:
        path = os.path.join(self.directory, "lease.json")
        with locked(self.store.root):
            replace_file(path, json.dumps(sorted(needed | read_lease(path))).encode(), sync=False)

    def has_blob(self, digest: str, size: int) -> bool:
        try:
            return os.stat(self.store.blob_path(digest)).st_size == size
        except FileNotFoundError:
            return False

    def has_layer(self, chain_id: str) -> bool:
        return os.path.isdir(self.store.layer_path(chain_id))

    def commit_blob(self, path: str, digest: str) -> None:
        """Rename a verified and synced temporary file to the blob `digest`."""
        os.rename(path, self.store.blob_path(digest))
        self.new_blobs.append(digest)
        sync_directory(os.path.join(self.store.root, "blobs", "sha256"))

    def put_blob(self, data: bytes) -> str:
        digest = digest_of(data)
        if not self.has_blob(digest, len(data)):
            path = self.temporary("blob")
            replace_file(path, data)
            self.commit_blob(path, digest)
        return digest

    def lease_digests(self, needed: set[str]) -> None:
        """Protect blobs (by digest) and layers (`chain:<chain id>`)."""
        self._lease(needed)

    def commit_layer(self, path: str, chain_id: str) -> None:
        """Rename an unpacked and synced directory to the layer `chain_id`. A layer that exists already is kept."""
        try:
            os.rename(path, self.store.layer_path(chain_id))
        except OSError:
            if not self.has_layer(chain_id):
                raise
            remove_tree(path)

    def commit_image(self, image: Image) -> None:
        """Write config and manifest, then the names. A name that another image had moves to this one."""
        self.put_blob(image.config)
        self.put_blob(image.manifest)
        sync_directory(os.path.join(self.store.root, "layers"))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with locked(self.store.root):
            index = read_index(self.store.root)
            index["manifests"] = with_image(index["manifests"], image, now)
            write_index(self.store.root, index)


def prepare(root: str) -> None:
    """Create the directories and the layout file. Their modes are 0711 and 0700, because a layer may hold set-uid
    programs that no user of the host may run from here, and a private image may hold secrets."""
    os.makedirs(root, 0o711, exist_ok=True)
    for name, mode in (("blobs", 0o700), ("blobs/sha256", 0o700), ("layers", 0o700), ("ingest", 0o700)):
        with suppress(FileExistsError):
            os.mkdir(os.path.join(root, name), mode)
    layout = os.path.join(root, "oci-layout")
    if not os.path.exists(layout):
        with locked(root):
            replace_file(layout, OCI_LAYOUT)
            if not os.path.exists(os.path.join(root, "index.json")):
                write_index(root, read_index(root))


@contextmanager
def locked(root: str) -> Iterator[None]:
    """Hold the store's lock, which all processes share. It is needed to edit the index, to delete objects and to check
    the store. Do not hold it while data is fetched or unpacked. On a read-only file system it can be held to check the
    store, if its file exists."""
    path = os.path.join(root, "lock")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def sessions(root: str) -> Iterator[tuple[str, bool]]:
    """Yield (directory, whether its owner lives) for every session. Hold the lock to act on the answer."""
    ingest = os.path.join(root, "ingest")
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(ingest)):
            path = os.path.join(ingest, name)
            try:
                os.close(_flock(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                yield path, True
            except FileNotFoundError:
                continue
            else:
                yield path, False


def sweep_stale(root: str) -> None:
    """Delete what dead writers left behind. Requires the lock, so that no session is between mkdir and flock and no
    index is between write and rename."""
    for name in os.listdir(root):
        if name.endswith(".tmp"):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(root, name))
    for path, alive in list(sessions(root)):
        if not alive:
            remove_tree(path)


def write_index(root: str, index: dict[str, Any]) -> None:
    replace_file(os.path.join(root, "index.json"), json.dumps(index, indent=1).encode())


def read_lease(path: str) -> set[str]:
    try:
        with open(path, "rb") as file:
            return set(json.loads(file.read()))
    except FileNotFoundError:
        return set()


def _flock(directory: str, operation: int) -> int:
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, operation)
    except BaseException:
        os.close(fd)
        raise
    return fd
