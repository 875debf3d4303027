"""The writing side of the store: sessions, what they promise to need, commits by rename, and sweeping.

Rules that make a kill -9 at any line harmless:
- Everything new is made in a session's own directory `ingest/<id>` and reaches its place by one rename(2), when it is
  whole, verified and synced. index.json is written last, so it never names what is not there.
- A session's directory is flocked by its owner for life. Whoever finds one unlocked may delete it.
- Whatever deletes or edits index.json holds `lock`. It spares what live sessions have leased (`lease.json`).
- Deletion goes the other way round: first index.json, then renames into a session's directory, then the files.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self

from runtime.errors import ImageError
from runtime.images import reference as references
from runtime.images.store.listing import Image, digest_of, nameless, with_image
from runtime.images.store.store import (
    OCI_LAYOUT,
    REF_NAME,
    ImageRecord,
    ImageStore,
    Removed,
    chain_ids,
    read_index,
)
from runtime.removal import remove_tree


class Session:
    """One writer at work. A context manager; on exit its directory is gone, whatever happened."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self._brought: list[str] = []
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
        """A new name in the session's directory."""
        return os.path.join(self.directory, f"{prefix}-{secrets.token_hex(8)}")

    def lease(self, image: Image) -> None:
        """Promise to need these: from here on nobody deletes them. Only then look whether they are there."""
        needed = {image.manifest_digest, image.config_digest}
        for layer in image.layers:
            needed |= {layer.digest, f"chain:{layer.chain_id}"}
        self._lease(needed)

    def lease_record(self, record: ImageRecord) -> None:
        """The same for an image that is here."""
        self._lease({record.manifest_digest, record.id, *record.layer_digests})

    def _lease(self, needed: set[str]) -> None:
        path = os.path.join(self.directory, "lease.json")
        with locked(self.store.root):
            replace_file(path, json.dumps(sorted(needed | _read_lease(path))).encode(), sync=False)

    def has_blob(self, digest: str, size: int) -> bool:
        try:
            return os.stat(self.store.blob_path(digest)).st_size == size
        except FileNotFoundError:
            return False

    def has_layer(self, chain_id: str) -> bool:
        return os.path.isdir(self.store.layer_path(chain_id))

    def commit_blob(self, path: str, digest: str) -> None:
        """Make a verified and synced temporary file the blob `digest`."""
        os.rename(path, self.store.blob_path(digest))
        self._brought.append(digest)
        sync_directory(os.path.join(self.store.root, "blobs", "sha256"))

    def put_blob(self, data: bytes) -> str:
        digest = digest_of(data)
        if not self.has_blob(digest, len(data)):
            path = self.temporary("blob")
            replace_file(path, data)
            self.commit_blob(path, digest)
        return digest

    def lease_things(self, needed: set[str]) -> None:
        """The same for digests and `chain:<id>` of layers."""
        self._lease(needed)

    def take_back(self) -> None:
        """Delete the blobs this session brought which no image and no other session needs: the disk is full."""
        with locked(self.store.root):
            needed = referenced(self.store, lambda _digest, _error: None) | _cached(self.store)
            for path, alive in sessions(self.store.root):
                if alive and path != self.directory:
                    needed |= _read_lease(os.path.join(path, "lease.json"))
            for digest in self._brought:
                if digest not in needed:
                    with suppress(FileNotFoundError):
                        os.unlink(self.store.blob_path(digest))

    def commit_layer(self, path: str, chain_id: str) -> None:
        """Make an unpacked and synced directory the layer `chain_id`. Another process may have been first: fine."""
        try:
            os.rename(path, self.store.layer_path(chain_id))
        except OSError:
            if not self.has_layer(chain_id):
                raise
            remove_tree(path)

    def commit_image(self, image: Image) -> None:
        """Write manifest and config, then the names. A name that meant another image is taken from it."""
        self.put_blob(image.config)
        self.put_blob(image.manifest)
        sync_directory(os.path.join(self.store.root, "layers"))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with locked(self.store.root):
            index = read_index(self.store.root)
            index["manifests"] = with_image(index["manifests"], image, now)
            write_index(self.store.root, index)


def prepare(root: str) -> None:
    """Make the directories and the layout file. 0711 and 0700: a layer may hold set-uid programs, which no user of the
    host must be able to run from here, and a private image what not everybody may read."""
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
    """The store's one lock, across processes. Held for index edits and deletions only, never over the network."""
    fd = os.open(os.path.join(root, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def sessions(root: str) -> Iterator[tuple[str, bool]]:
    """(directory, alive) of every session. Call with the lock held to act on the answer."""
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
    """Delete what writers that died left behind. Needs the lock: no session is caught between mkdir and flock, and no
    index between its writing and its renaming."""
    for name in os.listdir(root):
        if name.endswith(".tmp"):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(root, name))
    for path, alive in list(sessions(root)):
        if not alive:
            remove_tree(path)


def remove_image(store: ImageStore, text: str, *, in_use: Collection[str], force: bool) -> Removed:
    """See ImageStore.remove. `text` may be a name (untags) or an image id (all its names)."""
    prepare(store.root)
    with Session(store) as session, locked(store.root):
        record, by_name = store.look_up(text)
        gone = [
            r for r in store.list() if r.id == record.id and (not by_name or r.reference == record.reference)
        ]
        kept = [r for r in store.list() if r.id == record.id and r not in gone]
        if not kept and record.id in in_use and not force:
            shown = record.reference or record.id
            raise ImageError(f"{shown} is in use by a container; remove the pod first", reason="ImageInUse")
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
    """As docker: an id takes its tags along, but not what other repositories call it."""
    if len({references.parse(name).name for name in names}) > 1:
        raise ImageError(
            f"{text} has names in several repositories: {', '.join(sorted(names))}; name one of them, or take all of "
            "them away with --force",
            reason="ImageHasOtherNames",
        )


def remove_records(store: ImageStore, session: Session, gone: Collection[ImageRecord]) -> Removed:
    """Take these out of the index, and sweep. Needs the lock."""
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


def prune(store: ImageStore, *, in_use: Collection[str]) -> Removed:
    """Delete dangling images that no container uses, results of build steps whose layers no image has, and data that
    nobody needs then."""
    from runtime.images.store import buildcache

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
        buildcache.prune_loose(store)
        freed = _sweep(store, session)
    return Removed((), tuple(sorted(gone)), freed)


def prune_cache(store: ImageStore, *, before: float | None = None) -> Removed:
    """Forget results of build steps, and what cache mounts hold, used for the last time `before` (None: all)."""
    from runtime.images.store import buildcache

    prepare(store.root)
    with Session(store) as session, locked(store.root):
        freed = buildcache.prune(store, before=before)
        return Removed((), (), freed + _sweep(store, session))


def referenced(store: ImageStore, visit: Callable[[str, Exception], None] | None = None) -> set[str]:
    """Every digest the index leads to, and `chain:<id>` of its layers. `visit` hears of what cannot be read."""
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
        follow(descriptor)
    return needed


def _sweep(store: ImageStore, session: Session) -> int:
    """Delete every blob and layer that neither the index nor a live session needs. Needs the lock. Returns bytes.
    An image that cannot be read stops nothing but keeps everything: what it needs is not known."""
    broken: list[str] = []
    needed = referenced(store, lambda digest, _error: broken.append(digest))
    if broken:
        return 0
    for path, alive in sessions(store.root):
        if alive:
            needed |= _read_lease(os.path.join(path, "lease.json"))
    needed |= _cached(store)
    freed = 0
    blobs = os.path.join(store.root, "blobs", "sha256")
    for name in os.listdir(blobs):
        if f"sha256:{name}" not in needed:
            freed += os.stat(os.path.join(blobs, name)).st_size
            os.unlink(os.path.join(blobs, name))
    return freed + _sweep_layers(store, session, needed)


def _sweep_layers(store: ImageStore, session: Session, needed: Collection[str]) -> int:
    """They leave their place, which reaches the disk before the first of their files goes: a power cut must not leave
    half a layer under its name, which a later pull would believe to be whole."""
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


def _cached(store: ImageStore) -> set[str]:
    """What results of build steps need, which are kept as long as they are."""
    from runtime.images.store import buildcache

    return buildcache.needed(store)


def tree_size(path: str) -> int:
    """Bytes a directory takes on disk; a file with several names counts once."""
    seen: set[int] = set()
    total = 0
    todo = [path]
    while todo:  # os.walk recurses, and a layer may be nested as deep as PATH_MAX allows
        with suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                st = entry.stat(follow_symlinks=False)
                if st.st_ino not in seen:
                    seen.add(st.st_ino)
                    total += st.st_blocks * 512
                if stat.S_ISDIR(st.st_mode):
                    todo.append(entry.path)
    return total


def write_index(root: str, index: dict[str, Any]) -> None:
    replace_file(os.path.join(root, "index.json"), json.dumps(index, indent=1).encode())


def replace_file(path: str, data: bytes, *, sync: bool = True) -> None:
    """Write beside and rename over: a reader sees the old content or the new."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if sync:
        sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """fsync(2) of a directory: the names in it, made, renamed or removed, are on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_lease(path: str) -> set[str]:
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
