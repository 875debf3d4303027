"""Load images from files: docker-archive (`docker save`), oci-archive (a tar of a layout) and OCI layout directories.

The blobs take the same path as those of a pull: they are verified, unpacked, and visible only when complete. A
compressed archive is first decompressed into the session's directory, because its members are not in the order in which
they are needed. Formats: image-spec image-layout.md; moby image/spec/v1.2.md "Combined Image JSON + Filesystem
Changeset Format".
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from runtime import syscalls
from runtime.errors import ImageError
from runtime.images import manifests
from runtime.images import reference as references
from runtime.images.install import Installer, Report
from runtime.images.layers.streams import CHUNK, Spool, decompress
from runtime.images.manifests import Descriptor, Manifest, Platform
from runtime.images.registry.repository import MAX_CONFIG, MAX_MANIFEST
from runtime.images.store.content import Session
from runtime.images.store.listing import Image, Layer, digest_of
from runtime.images.store.store import CONTAINERD_NAME, REF_NAME, ImageRecord, ImageStore

_PARALLEL = 2
_FAILED = "ErrImageLoad"
_TAG_LIKE = re.compile(r"latest|v?[0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class _Extent:
    """The position of a member's bytes: a file, an offset and a size in bytes. With `beneath`, the file's path is
    relative to that directory and never leads out of it."""

    path: str
    offset: int
    size: int
    beneath: str = ""

    def open(self) -> BinaryIO:
        return _open_beneath(self.beneath, self.path) if self.beneath else open(self.path, "rb")


class _Archive(Protocol):
    def find(self, name: str) -> _Extent | None: ...


class _Directory:
    """A directory. Its files name others (manifest.json names layers); links are followed while they stay inside."""

    def __init__(self, path: str) -> None:
        self._path = path

    def find(self, name: str) -> _Extent | None:
        try:
            with _open_beneath(self._path, name) as file:
                return _Extent(name, 0, os.fstat(file.fileno()).st_size, self._path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENXIO):
                return None
            raise


def _open_beneath(directory: str, name: str) -> BinaryIO:
    """Open a regular file of the directory. Raises ImageError if its path leads out of the directory by `..`, as an
    absolute path or by a link, even one that is created meanwhile; IsADirectoryError if it is not a regular file;
    OSError."""
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # O_NONBLOCK: a FIFO does not make the open wait.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        fd = syscalls.openat2(
            root, name, flags, resolve=syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS
        )
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise ImageError(f"its file {name} leads out of the directory") from error
        raise
    finally:
        os.close(root)
    with ExitStack() as undo:
        undo.callback(os.close, fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        undo.pop_all()
    return os.fdopen(fd, "rb")


class _Tar:
    """A plain tar with random access. Links among its members are followed: old versions of `docker save` share layers
    that way."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    self._members[os.path.normpath(member.name)] = member
        except (tarfile.TarError, EOFError) as error:
            raise ImageError(f"it is not a tar archive: {error}") from error

    def find(self, name: str) -> _Extent | None:
        member = self._members.get(os.path.normpath(name))
        for _ in range(8):
            if member is None or member.isreg():
                break
            base = os.path.dirname(member.name) if member.issym() else ""
            member = self._members.get(os.path.normpath(os.path.join(base, member.linkname)))
        if member is None or not member.isreg():
            return None
        return _Extent(self._path, member.offset_data, member.size)


@dataclass(frozen=True, slots=True)
class _Loaded:
    image: Image
    blobs: dict[str, _Extent]


async def load(
    store: ImageStore,
    path: str,
    *,
    report: Report,
    reference: str | None = None,
    platform: Platform | None = None,
    shown: str = "",
) -> list[ImageRecord]:
    """Import every image of an archive. `reference` names the image if there is only one. `shown` is the path in error
    messages. Raises ImageError."""
    platform, shown = platform or manifests.this_platform(), shown or path
    name = str(references.parse(store.expand(reference))) if reference else ""
    try:
        with Session(store) as session, Installer(session, report, parallel=_PARALLEL) as installer:
            images = await asyncio.to_thread(_read, session, path, platform, name)
            for loaded in images:
                await _install(installer, loaded, report)
    except ImageError as error:
        raise ImageError(
            f"cannot load {shown}: {error}",
            reason=_FAILED if error.reason == "ErrImagePull" else error.reason,
            retriable=error.retriable,
        ) from error
    except OSError as error:
        raise ImageError(f"cannot load {shown}: {error.strerror}", reason=_FAILED) from error
    records: list[ImageRecord] = []
    for loaded in images:
        wanted = loaded.image.names or (loaded.image.config_digest,)
        records += [record for record in map(store.get, wanted) if record is not None]
    return records


async def _install(installer: Installer, loaded: _Loaded, report: Report) -> None:
    image = loaded.image
    layers = [{"digest": x.digest, "size": x.size, "present": False} for x in image.layers]
    size = sum(layer.size for layer in image.layers)
    name = image.names[0] if image.names else image.config_digest
    report(
        {
            "event": "resolved",
            "reference": name,
            "digest": image.manifest_digest,
            "layers": layers,
            "size": size,
        }
    )

    async def fetch(layer: Layer, spool: Spool, progress: Callable[[int], None]) -> None:
        await asyncio.to_thread(_copy_extent, loaded.blobs[layer.digest], spool, progress)

    await installer.install(image, fetch)


def _copy_extent(extent: _Extent, spool: Spool, progress: Callable[[int], None]) -> None:
    """Thread: copy a member into the spool."""
    for chunk in _chunks(extent):
        spool.write(chunk)
        progress(spool.received)


def _read(session: Session, path: str, platform: Platform, name: str) -> list[_Loaded]:
    """Detect the archive's format and read every image in it. `name` renames a single image."""
    archive: _Archive = _Directory(path) if os.path.isdir(path) else _Tar(_plain(session, path))
    if archive.find("index.json") is not None and archive.find("oci-layout") is not None:
        images = _read_layout(archive, platform, os.path.basename(os.path.abspath(path)))
    elif archive.find("manifest.json") is not None:
        images = _read_docker(archive)
    else:
        raise ImageError(
            "it is neither an OCI layout nor a docker archive: no index.json and no manifest.json"
        )
    if name and len(images) > 1:
        raise ImageError(f"it has {len(images)} images; only a single image can be given the name {name}")
    if name:
        images = [_Loaded(_renamed(image.image, name), image.blobs) for image in images]
    return images


def _renamed(image: Image, name: str) -> Image:
    return Image(image.manifest, image.config, image.layers, (name,), image.source, image.platform)


def _plain(session: Session, path: str) -> str:
    """The path of the archive if it is plain, else of a decompressed copy."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(262)
        if head[257:262] == b"ustar":
            return path
        file.seek(0)
        inflated = session.temporary("archive")
        with open(inflated, "xb", buffering=0) as out:
            for chunk in decompress(file):
                out.write(chunk)
    return inflated


def _chunks(extent: _Extent) -> Iterator[bytes]:
    left = extent.size
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(extent.open())
        file.seek(extent.offset)
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise ImageError("the archive is truncated")
            left -= len(chunk)
            yield chunk


def _small(archive: _Archive, name: str, limit: int) -> bytes:
    extent = archive.find(name)
    if extent is None:
        raise ImageError(f"it has no {name}")
    if extent.size > limit:
        raise ImageError(f"its {name} has {extent.size} bytes; at most {limit} are accepted")
    return b"".join(_chunks(extent))


def _blob(archive: _Archive, blob: Descriptor, limit: int) -> bytes:
    data = _small(archive, f"blobs/{blob.digest.replace(':', '/')}", limit)
    if digest_of(data) != blob.digest:
        raise ImageError(f"its blob {blob.digest} is damaged: the content has another digest")
    return data


# --- OCI layouts ---


def _read_layout(archive: _Archive, platform: Platform, file_name: str) -> list[_Loaded]:
    index = manifests.parse_json(_small(archive, "index.json", MAX_MANIFEST), "index.json")
    entries = [entry for entry in index.get("manifests") or () if isinstance(entry, dict)]
    if not entries:
        raise ImageError("its index.json lists no image")
    names = [_entry_name(entry, file_name) for entry in entries]
    if len(entries) > 1 and not any(names) and all("platform" in entry for entry in entries):
        chosen = manifests.choose(index, platform)  # the index of one image for several platforms
        entries = [entry for entry in entries if entry.get("digest") == chosen.digest][:1]
        names = [""]
    return [_read_entry(archive, entry, platform, name) for entry, name in zip(entries, names, strict=True)]


def _read_entry(archive: _Archive, entry: dict[str, Any], platform: Platform, name: str) -> _Loaded:
    blob = manifests.descriptor(entry, "an entry of index.json")
    source_digest = blob.digest
    for _ in range(4):
        raw = _blob(archive, blob, MAX_MANIFEST)
        document = manifests.parse_json(raw, "the manifest")
        kind = manifests.media_type(document, blob.media_type)
        manifests.refuse_foreign(kind)
        manifests.refuse_both(document)
        if kind not in manifests.INDEX_TYPES:
            break
        blob = manifests.choose(document, platform)
    else:
        raise ImageError("its indexes are nested too deeply")
    manifest = manifests.read_manifest(document)
    config = _blob(archive, manifest.config, MAX_CONFIG)
    source = f"{references.parse(name).name}@{source_digest}" if name else ""
    image = manifests.build_image(manifest, config, original=raw, names=[name] if name else [], source=source)
    return _Loaded(image, {x.digest: _layer_extent(archive, x) for x in manifest.layers})


def _layer_extent(archive: _Archive, layer: Descriptor) -> _Extent:
    extent = archive.find(f"blobs/{layer.digest.replace(':', '/')}")
    if extent is None:
        raise ImageError(f"its layer {layer.digest} is missing")
    if extent.size != layer.size:
        raise ImageError(f"its layer {layer.digest} has {extent.size} bytes instead of {layer.size}")
    return extent


def _entry_name(entry: dict[str, Any], file_name: str) -> str:
    """The canonical name in an entry of index.json, or "". umoci and buildkit write only a tag such as `latest`; then
    the file name serves as the repository. skopeo and podman write whole names."""
    annotations = entry.get("annotations") or {}
    for value in (annotations.get(CONTAINERD_NAME), annotations.get(REF_NAME)):
        if not isinstance(value, str) or not value:
            continue
        text = value
        if _TAG_LIKE.fullmatch(text):
            stem = re.sub(r"(\.oci)?(\.tar)?(\.(gz|tgz|zst|xz|bz2))?$", "", file_name.lower())
            text = f"{re.sub(r'[^a-z0-9]+', '-', stem).strip('-') or 'image'}:{text}"
        try:
            return str(references.parse(text))
        except ImageError:
            continue
    return ""


# --- docker archives ---


def _read_docker(archive: _Archive) -> list[_Loaded]:
    try:
        entries = json.loads(_small(archive, "manifest.json", MAX_MANIFEST))
        return [_read_docker_entry(archive, entry) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ImageError(f"its manifest.json is not that of a docker archive: {error}") from error


def _read_docker_entry(archive: _Archive, entry: dict[str, Any]) -> _Loaded:
    config = _small(archive, str(entry["Config"]), MAX_CONFIG)
    names = [str(references.parse(tag)) for tag in entry.get("RepoTags") or ()]
    blobs: dict[str, _Extent] = {}
    layers = []
    for layer_name in entry["Layers"]:
        extent = archive.find(str(layer_name))
        if extent is None:
            raise ImageError(f"its layer {layer_name} is missing")
        digest, kind = _examine(extent)
        blobs[digest] = extent
        layers.append(Descriptor(digest, extent.size, kind))
    about = Descriptor(digest_of(config), len(config), manifests.CONFIG_TYPE)
    manifest = Manifest(about, tuple(layers), {})
    return _Loaded(manifests.build_image(manifest, config, original=b"", names=names, source=""), blobs)


def _examine(extent: _Extent) -> tuple[str, str]:
    """Digest and media type of a layer file. A docker archive states neither."""
    hashing = hashlib.sha256()
    head = b""
    for chunk in _chunks(extent):
        head = head or chunk[:4]
        hashing.update(chunk)
    suffix = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}.get(head[:2], "")
    return f"sha256:{hashing.hexdigest()}", f"{manifests.LAYER_TYPE}{suffix}"
