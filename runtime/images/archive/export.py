"""Save images to files: docker-archive, oci-archive, or an OCI layout directory. `reading.py` does the opposite.

A file appears complete, by rename, or not at all. A pipe or device receives the same bytes directly. Equal images give
equal bytes: members are in order, without times, owned by root. Formats: image-spec image-layout.md; moby
image/spec/v1.2.md "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any, Protocol

from runtime.errors import ImageError
from runtime.images import reference as references
from runtime.images.layers.streams import CHUNK, decompress
from runtime.images.reference import Reference
from runtime.images.store.content import Session
from runtime.images.store.disk import replace_file
from runtime.images.store.listing import INDEX_TYPE, MANIFEST_TYPE
from runtime.images.store.store import (
    CONTAINERD_NAME,
    OCI_LAYOUT,
    REF_NAME,
    ImageRecord,
    ImageStore,
    read_index,
)

DOCKER, OCI, LAYOUT = "docker-archive", "oci-archive", "oci-dir"
FORMATS = (DOCKER, OCI, LAYOUT)
_FAILED = "ErrImageSave"
_TELL_SECONDS = 0.2  # between two progress events of one layer
Report = Callable[[dict[str, Any]], None]
_Picked = list[tuple[ImageRecord, list[str]]]  # images, each with the names to save


def save(
    store: ImageStore, wanted: Sequence[str], path: str, *, form: str, report: Report
) -> list[ImageRecord]:
    """Write the images to `path` in the format `form` (one of FORMATS). Raises ImageError."""
    if form not in FORMATS:
        raise ImageError(f'unknown format "{form}"; use one of {", ".join(FORMATS)}', reason="InvalidRequest")
    with Session(store) as session:
        picked = _pick(store, wanted)
        for record, _ in picked:  # protects them from deletion
            session.lease_record(record)
        for record, _ in picked:
            _check_blobs(store, record)
        try:
            progress = _Progress(store, picked, report)
            if form == LAYOUT:
                _write_layout(store, picked, path, progress)
            else:
                write = _write_docker if form == DOCKER else _write_oci
                with _output(path) as file, tarfile.open(fileobj=file, mode="w|", bufsize=CHUNK) as archive:
                    write(session, picked, archive, progress)
        except BrokenPipeError as error:
            raise ImageError(f"the reader of {path} closed it early", reason=_FAILED) from error
        except OSError as error:
            where = f" ({error.filename})" if error.filename not in (None, path) else ""
            raise ImageError(f"cannot save to {path}: {error.strerror}{where}", reason=_FAILED) from error
        report({"event": "saved", "path": path, "format": form})
    return [record for record, _ in picked]


class _Source(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Progress:
    """Reports the layers, and how much of each has been read, with the events of a pull: `resolved`, then `layer`."""

    def __init__(self, store: ImageStore, picked: _Picked, report: Report) -> None:
        found = {d["digest"]: d["size"] for record, _ in picked for d in store.manifest(record)["layers"]}
        self._sizes: dict[str, int] = found
        self._report, self._told = report, 0.0
        names = ", ".join(name for record, names in picked for name in (names or [record.id]))
        layers = [{"digest": digest, "size": size} for digest, size in found.items()]
        report({"event": "resolved", "reference": names, "layers": layers, "size": sum(found.values())})

    @contextmanager
    def reading(self, digest: str, file: IO[bytes]) -> Iterator[_Source]:
        """Report progress while the file with this blob is read."""
        if digest not in self._sizes:  # a manifest or config
            yield file
            return
        self._tell(digest, "saving", 0)
        yield _Counted(file, lambda: self._now_and_then(digest, file.tell()))
        self._tell(digest, "done", self._sizes[digest])

    def present(self, digest: str) -> None:
        """Report a blob that the destination has already."""
        if digest in self._sizes:
            self._tell(digest, "present", self._sizes[digest])

    def _now_and_then(self, digest: str, current: int) -> None:
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self._tell(digest, "saving", current)

    def _tell(self, digest: str, state: str, current: int) -> None:
        self._told = time.monotonic()
        total = self._sizes[digest]
        self._report({"event": "layer", "digest": digest, "state": state, "current": current, "total": total})


class _Counted:
    """A file that calls `told` after each read."""

    def __init__(self, file: IO[bytes], told: Callable[[], None]) -> None:
        self._file, self._told = file, told

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._told()
        return data


def _pick(store: ImageStore, wanted: Sequence[str]) -> _Picked:
    """Each image once, with the names it was requested by. An image requested by id is saved without a name, as in
    docker."""
    if not wanted:
        raise ImageError("name at least one image to save", reason="InvalidRequest")
    picked: dict[str, tuple[ImageRecord, list[str]]] = {}
    for text in wanted:
        record, by_name = store.look_up(text)
        _, names = picked.setdefault(record.manifest_digest, (record, []))
        if by_name and record.reference not in names:
            names.append(record.reference)
    return list(picked.values())


def _check_blobs(store: ImageStore, record: ImageRecord) -> None:
    for descriptor in store.manifest(record)["layers"]:
        try:
            size = os.stat(store.blob_path(descriptor["digest"])).st_size
        except FileNotFoundError:
            size = -1
        if size != descriptor["size"]:
            raise ImageError(
                f"layer {descriptor['digest']} of {record.reference or record.id} is missing or damaged; run "
                "`kubelite doctor --repair`",
                reason="ImageStoreCorrupt",
            )


@contextmanager
def _output(path: str) -> Iterator[IO[bytes]]:
    """Open the output: an existing pipe or device as it is, else a new file that appears complete by rename."""
    try:
        special = not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        special = False
    if os.path.isdir(path):
        raise ImageError(f"{path} is a directory; use --format {LAYOUT} for it", reason="InvalidRequest")
    if special:
        with open(path, "wb", buffering=0) as file:
            yield file
        return
    path = os.path.realpath(path)  # replace the target of a link, not the link
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "xb") as file:
            os.fchmod(file.fileno(), 0o600)  # the image may be private
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _add(archive: tarfile.TarFile, name: str, size: int, content: _Source) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    archive.addfile(member, content)


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    _add(archive, name, len(data), io.BytesIO(data))


def _add_blob(archive: tarfile.TarFile, store: ImageStore, digest: str, progress: _Progress) -> None:
    with open(store.blob_path(digest), "rb") as file, progress.reading(digest, file) as content:
        name = f"blobs/{digest.replace(':', '/')}"
        _add(archive, name, os.fstat(file.fileno()).st_size, content)


# --- OCI ---


def _blobs(store: ImageStore, record: ImageRecord) -> list[str]:
    return list(dict.fromkeys([record.manifest_digest, record.id, *record.layer_digests]))


def _entries(store: ImageStore, picked: _Picked) -> list[dict[str, Any]]:
    entries = []
    for record, names in picked:
        size = os.stat(store.blob_path(record.manifest_digest)).st_size
        entry: dict[str, Any] = {"mediaType": MANIFEST_TYPE, "digest": record.manifest_digest, "size": size}
        for name in names or [""]:
            annotations = {REF_NAME: name, CONTAINERD_NAME: name} if name else None
            entries.append({**entry, "annotations": annotations} if annotations else entry)
    return entries


def _write_oci(session: Session, picked: _Picked, archive: tarfile.TarFile, progress: _Progress) -> None:
    store = session.store
    _add_bytes(archive, "oci-layout", OCI_LAYOUT)
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": _entries(store, picked)}
    _add_bytes(archive, "index.json", json.dumps(index, indent=1).encode())
    for digest in dict.fromkeys(digest for record, _ in picked for digest in _blobs(store, record)):
        _add_blob(archive, store, digest, progress)


def _write_layout(store: ImageStore, picked: _Picked, path: str, progress: _Progress) -> None:
    """Write to a new directory, or add to an existing OCI layout. A name that exists there moves to the new image."""
    if os.path.isdir(path) and os.listdir(path) and not os.path.exists(f"{path}/oci-layout"):
        raise ImageError(f"{path} is neither empty nor an OCI layout", reason="InvalidRequest")
    with ExitStack() as undo:
        for directory in (path, f"{path}/blobs", f"{path}/blobs/sha256"):
            if not os.path.isdir(directory):
                os.makedirs(directory)
                undo.callback(_rmdir, directory)
        for digest in dict.fromkeys(digest for record, _ in picked for digest in _blobs(store, record)):
            target = f"{path}/blobs/{digest.replace(':', '/')}"
            if not os.path.exists(target):
                with open(store.blob_path(digest), "rb") as file, progress.reading(digest, file) as content:
                    _copy_blob(content, target)
                undo.callback(os.unlink, target)
            else:
                progress.present(digest)
        _list_images(store, picked, path)
        undo.pop_all()


def _rmdir(directory: str) -> None:
    with suppress(OSError):  # not empty: another process has written there
        os.rmdir(directory)


def _copy_blob(source: _Source, target: str) -> None:
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as copy:
            shutil.copyfileobj(source, copy, CHUNK)
            copy.flush()
            os.fsync(copy.fileno())
        os.rename(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _list_images(store: ImageStore, picked: _Picked, path: str) -> None:
    index = read_index(path)
    entries = _entries(store, picked)
    names = {_ref_name(entry) for entry in entries} - {""}
    digests = {entry["digest"] for entry in entries}
    kept = [
        e
        for e in index["manifests"]
        if _ref_name(e) not in names and not (not _ref_name(e) and e.get("digest") in digests)
    ]
    index["manifests"] = [*kept, *entries]
    replace_file(f"{path}/index.json", json.dumps(index, indent=1).encode())
    replace_file(f"{path}/oci-layout", OCI_LAYOUT)


def _ref_name(entry: dict[str, Any]) -> str:
    return str((entry.get("annotations") or {}).get(REF_NAME, ""))


# --- docker ---


def _write_docker(session: Session, picked: _Picked, archive: tarfile.TarFile, progress: _Progress) -> None:
    """Write what any version of `docker load` reads: plain layers, each once, and manifest.json at the end."""
    store = session.store
    listed: list[dict[str, Any]] = []
    written: set[str] = set()
    for record, names in picked:
        config = store.image_config(record)
        diff_ids = [str(diff_id) for diff_id in config["rootfs"]["diff_ids"]]
        for digest, diff_id in zip(record.layer_digests, diff_ids, strict=True):
            if diff_id not in written:
                written.add(diff_id)
                _add_plain_layer(session, archive, digest, diff_id, progress)
        with open(store.blob_path(record.id), "rb") as file:
            raw = file.read()
        config_name = f"{record.id.partition(':')[2]}.json"
        if config_name not in written:
            written.add(config_name)
            _add_bytes(archive, config_name, raw)
        tags = [_docker_name(references.parse(name)) for name in names]
        layers = [_layer_name(diff_id) for diff_id in diff_ids]
        listed.append({"Config": config_name, "RepoTags": tags or None, "Layers": layers})
    _add_bytes(archive, "manifest.json", json.dumps(listed).encode())


def _docker_name(name: Reference) -> str:
    """docker writes the short form, always with a tag."""
    return name.familiar if name.tag else f"{name.familiar}:latest"


def _layer_name(diff_id: str) -> str:
    return f"{diff_id.partition(':')[2]}/layer.tar"


def _add_plain_layer(
    session: Session, archive: tarfile.TarFile, digest: str, diff_id: str, progress: _Progress
) -> None:
    """Add a layer as a plain tar. tar states the size before the content, so a compressed layer is decompressed to a
    file first."""
    plain = session.temporary("plain")
    hashing = hashlib.sha256()
    with (
        open(session.store.blob_path(digest), "rb", buffering=0) as blob,
        progress.reading(digest, blob) as source,
        open(plain, "x+b") as file,
    ):
        for chunk in decompress(source):
            hashing.update(chunk)
            file.write(chunk)
        if f"sha256:{hashing.hexdigest()}" != diff_id:
            raise ImageError(
                f"layer {digest} is damaged; run `kubelite doctor --repair`", reason="ImageStoreCorrupt"
            )
        size = file.tell()
        file.seek(0)
        _add(archive, _layer_name(diff_id), size, file)
    os.unlink(plain)
