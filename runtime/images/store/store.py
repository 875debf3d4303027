"""The images that are present: records and paths, the synchronous reading side of the store.

It is safe in the daemon's event loop. A look-up costs one stat(2) of index.json. The file is read again only when its
inode, size or mtime has changed, because writers replace it by rename. Manifests and configs are immutable and are read
once. Nothing here needs the network, a thread or a lock. Writers and deletion are separate modules above this one
(`content.py`, `deletion.py`); the daemon reaches them through `client.ImageClient`.

Each image is one descriptor in index.json (image-spec image-layout.md), always of an OCI manifest. Its annotations:
    org.opencontainers.image.ref.name   the normalised reference, which skopeo's oci:ROOT:REF matches
    io.containerd.image.name            the same, as containerd and buildkit write it
    io.kubelite.image.source            repository@digest the image was pulled by (the index's digest if there was one)
    io.kubelite.image.pulled            time of the pull, RFC 3339
A descriptor without a name is a dangling image: its tag has moved to another image, but containers may still use it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from runtime.errors import ImageError
from runtime.images import reference as references

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
SOURCE = "io.kubelite.image.source"
PULLED = "io.kubelite.image.pulled"

OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One name of one image, or an image without a name."""

    id: str  # sha256:… of its config: the image id in `docker images`
    reference: str  # docker.io/library/nginx:latest; "" when dangling
    repo_digests: tuple[str, ...]  # docker.io/library/nginx@sha256:…
    size: int  # bytes of manifest, config and layers as stored (compressed)
    created: str  # RFC 3339, from the config; "" if the config has none
    layers: tuple[str, ...]  # unpacked layer directories, topmost first (overlayfs order)
    config: dict[str, Any] = field(
        default_factory=dict
    )  # the config's "config" object: Entrypoint, Cmd, Env, User, …
    architecture: str = ""
    os: str = ""
    variant: str = ""
    manifest_digest: str = ""  # of the OCI manifest in the store
    layer_digests: tuple[str, ...] = ()  # of the blobs, lowest first
    pulled: str = ""  # RFC 3339
    unpacked: bool = True  # every layer directory exists; get() returns only such images

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Removed:
    """The result of a removal, in docker's terms."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()  # image ids that have no name left
    freed: int = 0  # bytes of blobs and layer files


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain id of every layer, lowest first (image-spec config.md "Layer ChainID")."""
    chains: list[str] = []
    for diff_id in diff_ids:
        text = f"{chains[-1]} {diff_id}" if chains else ""
        chains.append(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if chains else diff_id)
    return chains


class ImageStore:
    """The images under `root`. Creates nothing: a root that does not exist is an empty store."""

    def __init__(self, root: str, *, expand: Callable[[str], str] = str) -> None:
        """`expand` replaces a short name by its alias; see `registriesconf`."""
        self.root = os.path.abspath(root)
        self.expand = expand
        self._stamp: tuple[int, int, int] | None = None
        self._records: tuple[ImageRecord, ...] = ()
        self._blobs: dict[str, dict[str, Any]] = {}  # parsed manifests and configs of the index

    def blob_path(self, digest: str) -> str:
        return os.path.join(self.root, "blobs", *digest.split(":", 1))

    def layer_path(self, chain_id: str) -> str:
        return os.path.join(self.root, "layers", chain_id.partition(":")[2])

    def list(self) -> tuple[ImageRecord, ...]:
        """Every image, named and dangling, in index order."""
        try:
            st = os.stat(os.path.join(self.root, "index.json"))
        except FileNotFoundError:
            self._stamp, self._records = None, ()
            return ()
        stamp = (st.st_ino, st.st_mtime_ns, st.st_size)
        if stamp != self._stamp:
            self._records = self._read_index()
            self._stamp = stamp
        return self._records

    def get(self, reference: str) -> ImageRecord | None:
        """The unpacked image with this name, or None. Accepts a name as users write it, a name with a digest, or a
        whole image id (`sha256:…`). Raises ImageError (InvalidImageName) for anything else."""
        records = [r for r in self.list() if r.unpacked]
        if references.is_digest(reference):
            return next((r for r in records if reference in (r.id, r.manifest_digest)), None)
        wanted = references.parse(self.expand(reference))
        canonical = str(wanted)
        for record in records:
            if record.reference == canonical:
                return record
        if not wanted.digest:
            return None
        return next((r for r in records if _has_digest(r, wanted)), None)

    def find(self, text: str) -> ImageRecord:
        """The image a command-line argument names. Raises the errors of `look_up`."""
        return self.look_up(text)[0]

    def look_up(self, text: str) -> tuple[ImageRecord, bool]:
        """Return (image, whether `text` is its name). Names take precedence, as in docker: `a` means a:latest before it
        means an image id that begins with a. Otherwise `text` is an image id, a unique prefix of one, or a name with a
        digest. Raises ImageError: ImageNotFound, AmbiguousImageId, or InvalidImageName."""
        prefix = text.removeprefix("sha256:").lower()
        hexadecimal = bool(prefix) and all(c in "0123456789abcdef" for c in prefix)
        wanted: references.Reference | None = None
        if not (hexadecimal and (len(prefix) == 64 or text.startswith("sha256:"))):
            try:
                wanted = references.parse(self.expand(text))
            except ImageError:
                if not hexadecimal:
                    raise
        for record in self.list() if wanted is not None else ():
            if record.reference == str(wanted):
                return record, True
        found = (
            {r.id: r for r in self.list() if r.id.removeprefix("sha256:").startswith(prefix)}
            if hexadecimal
            else {}
        )
        if len(found) > 1:
            raise ImageError(
                f'"{text}" is a prefix of {len(found)} image ids; give more digits', reason="AmbiguousImageId"
            )
        if found:
            return next(iter(found.values())), False
        if wanted is not None and wanted.digest:
            for record in self.list():
                if _has_digest(record, wanted):
                    return record, False
        raise ImageError(f"no such image: {text}; see `kubelite images`", reason="ImageNotFound")

    def short_name(self, reference: str) -> str:
        """The shortest name that users can write for an image with this canonical name: without docker's registry,
        unless an alias makes the short name mean another image."""
        if not reference:
            return ""
        short = references.parse(reference).familiar
        return short if str(references.parse(self.expand(short))) == reference else reference

    def manifest(self, record: ImageRecord) -> dict[str, Any]:
        return self._json_blob(record.manifest_digest)

    def image_config(self, record: ImageRecord) -> dict[str, Any]:
        """The whole config: architecture, rootfs, history."""
        return self._json_blob(record.id)

    def _read_index(self) -> tuple[ImageRecord, ...]:
        index = read_index(self.root)
        records = []
        for descriptor in index["manifests"]:
            record = self._record(descriptor)
            if record is not None:
                records.append(record)
        kept = {descriptor["digest"] for descriptor in index["manifests"]} | {record.id for record in records}
        blobs = self._blobs
        self._blobs = {digest: blobs[digest] for digest in kept if digest in blobs}
        return tuple(_share_digests(records))

    def _record(self, descriptor: dict[str, Any]) -> ImageRecord | None:
        """None if the entry is not an image to run: a nested index, an artifact, or a broken entry of another tool."""
        try:
            manifest = self._json_blob(descriptor["digest"])
            config = self._json_blob(manifest["config"]["digest"])
            chains = chain_ids(config["rootfs"]["diff_ids"])
            layers = manifest["layers"]
            blob_sizes = (
                descriptor["size"] + manifest["config"]["size"] + sum(layer["size"] for layer in layers)
            )
            layer_digests = tuple(layer["digest"] for layer in layers)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        annotations = descriptor.get("annotations") or {}
        directories = tuple(self.layer_path(chain) for chain in reversed(chains))
        source = annotations.get(SOURCE, "")
        return ImageRecord(
            id=manifest["config"]["digest"],
            reference=annotations.get(REF_NAME, ""),
            repo_digests=(source,) if source else (),
            size=blob_sizes,
            created=config.get("created") or "",
            layers=directories,
            config=config.get("config") or {},
            architecture=config.get("architecture", ""),
            os=config.get("os", ""),
            variant=config.get("variant", ""),
            manifest_digest=descriptor["digest"],
            layer_digests=layer_digests,
            pulled=annotations.get(PULLED, ""),
            unpacked=all(os.path.isdir(path) for path in directories),
        )

    def _json_blob(self, digest: str) -> dict[str, Any]:
        cached = self._blobs.get(digest)
        if cached is None:
            with open(self.blob_path(digest), "rb") as file:
                cached = json.loads(file.read())
            if not isinstance(cached, dict):
                raise ValueError(f"{digest} is not a JSON object")
            self._blobs[digest] = cached
        return cached


def read_index(root: str) -> dict[str, Any]:
    """Read index.json; an empty index if there is none. Raises ImageError if the file is not an index."""
    path = os.path.join(root, "index.json")
    try:
        with open(path, "rb") as file:
            index = json.loads(file.read())
        if not isinstance(index["manifests"], list):
            raise TypeError("manifests is not a list")
    except FileNotFoundError:
        return {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{path} is not an OCI image index: {error}", reason="ImageStoreCorrupt") from error
    return dict(index)


def _has_digest(record: ImageRecord, wanted: references.Reference) -> bool:
    """Whether name@digest means this image: by the digest it was pulled with, or by the stored manifest's."""
    if not wanted.digest:
        return False
    exact = f"{wanted.name}@{wanted.digest}"
    if exact in record.repo_digests:
        return True
    same_repository = any(digest.startswith(f"{wanted.name}@") for digest in record.repo_digests)
    return same_repository and record.manifest_digest == wanted.digest


def _share_digests(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Give every name of an image all its repo digests: they belong to the image, not to a name."""
    by_id: dict[str, list[str]] = {}
    for record in records:
        known = by_id.setdefault(record.id, [])
        known.extend(digest for digest in record.repo_digests if digest not in known)
    return [replace(record, repo_digests=tuple(by_id[record.id])) for record in records]
