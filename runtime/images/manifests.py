"""Read manifests and indexes of registries and archives, choose one by platform, and build the manifest to store.

Media types: OCI image-spec (manifest.md, image-index.md) and docker's "Image Manifest Version 2, Schema 2". The store
keeps only OCI manifests, because an OCI layout may name nothing else. A schema 2 manifest is rewritten with OCI's media
types. Config and layers keep their bytes, so the image id equals docker's. The digest of the pull is recorded as well.
"""

from __future__ import annotations

import json
import platform as host_platform
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from runtime.errors import ImageError
from runtime.images import imageconfig
from runtime.images.reference import is_digest
from runtime.images.store.listing import INDEX_TYPE, MANIFEST_TYPE, Image, Layer, digest_of
from runtime.images.store.store import chain_ids

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
SCHEMA_1 = frozenset(
    (
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    )
)
INDEX_TYPES = frozenset((INDEX_TYPE, DOCKER_LIST))
ACCEPT = ", ".join((MANIFEST_TYPE, INDEX_TYPE, DOCKER_MANIFEST, DOCKER_LIST, *sorted(SCHEMA_1), "*/*;q=0.1"))

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_CONFIG_TYPES = frozenset((CONFIG_TYPE, "application/vnd.docker.container.image.v1+json"))
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_LAYER_TYPES = {
    LAYER_TYPE: LAYER_TYPE,
    f"{LAYER_TYPE}+gzip": f"{LAYER_TYPE}+gzip",
    f"{LAYER_TYPE}+zstd": f"{LAYER_TYPE}+zstd",
    _DOCKER_LAYER: LAYER_TYPE,
    f"{_DOCKER_LAYER}.gzip": f"{LAYER_TYPE}+gzip",
    f"{_DOCKER_LAYER}.zstd": f"{LAYER_TYPE}+zstd",
    "application/vnd.docker.container.image.rootfs.diff+x-gtar": LAYER_TYPE,
}
MAX_LAYERS = 500  # overlayfs accepts 500 lower directories


@dataclass(frozen=True, slots=True)
class Descriptor:
    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked image manifest."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str]


_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
}


def this_platform() -> Platform:
    """linux and this machine's architecture, in Go's names."""
    machine = host_platform.machine()
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def parse_platform(text: str) -> Platform:
    """Parse `linux/arm64/v8`, `linux/amd64` or `arm64`; empty means this machine. Raises ImageError."""
    if not text:
        return this_platform()
    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        raise ImageError(f'"{text}" is not a platform; write os/architecture or os/architecture/variant')
    if len(parts) == 1:
        return Platform("linux", parts[0])
    return Platform(*parts)


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object from a registry or archive. Raises ImageError, which calls the document `what`."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise ImageError(f"{what} is not JSON: {error}") from error
    except RecursionError as error:
        raise ImageError(f"{what} is nested too deeply") from error
    if not isinstance(document, dict):
        raise ImageError(f"{what} is not a JSON object")
    return document


def media_type(document: dict[str, Any], content_type: str = "") -> str:
    """A manifest's media type: from its own mediaType field, else from the transport's Content-Type, else from its
    shape (OCI allows mediaType to be absent)."""
    own = document.get("mediaType")
    if isinstance(own, str) and own:
        return own
    if document.get("schemaVersion") == 1:
        return "application/vnd.docker.distribution.manifest.v1+json"
    if isinstance(document.get("manifests"), list):
        return content_type if content_type in INDEX_TYPES else INDEX_TYPE
    if content_type and content_type not in {"application/json", "application/octet-stream", "text/plain"}:
        return content_type
    return MANIFEST_TYPE if "layers" in document else content_type


def refuse_foreign(kind: str) -> None:
    """Raise ImageError unless `kind` is an image manifest or an index."""
    if kind in SCHEMA_1:
        raise ImageError(
            "it is a Docker schema 1 manifest, a format retired in 2017; push the image again with a current tool"
        )
    if kind not in INDEX_TYPES and kind not in {MANIFEST_TYPE, DOCKER_MANIFEST}:
        raise ImageError(f"it is of media type {kind or 'unknown'}, not a container image")


def refuse_both(document: dict[str, Any]) -> None:
    """Raise ImageError for a document that could be read as a manifest or as an index (CVE-2021-41190)."""
    if "manifests" in document and ("layers" in document or "config" in document):
        raise ImageError("it lists manifests and layers: it cannot be an index and an image at once")


def choose(index: dict[str, Any], wanted: Platform) -> Descriptor:
    """The index's entry for the platform. Of several matching variants, the newest that `wanted` allows wins."""
    best: tuple[int, Descriptor] | None = None
    offered = []
    entries = index.get("manifests") or ()
    for entry in entries if isinstance(entries, list) else ():
        about = entry.get("platform") if isinstance(entry, dict) else None
        about = about if isinstance(about, dict) else {}
        found = Platform(
            str(about.get("os") or "linux"),
            str(about.get("architecture") or wanted.architecture),
            str(about.get("variant") or ""),
        )
        if found.os == "unknown":  # an attestation of buildkit
            continue
        offered.append(str(found))
        rank = _fits(found, wanted)
        if rank and (best is None or rank > best[0]):
            best = rank, descriptor(entry, "an index entry")
    if best is None:
        listed = ", ".join(sorted(set(offered))) or "none"
        raise ImageError(f"it has no image for {wanted}; available platforms: {listed}")
    return best[1]


def _fits(found: Platform, wanted: Platform) -> int:
    """Rank a variant: 0 means it cannot run, a larger number is better. arm/v7 also runs v6 and v5; arm64 means v8.
    amd64's v2 and later need a newer processor, so they are chosen only if `wanted` asks for them."""
    if (found.os, found.architecture) != (wanted.os, wanted.architecture):
        return 0
    if found.variant == wanted.variant:
        return 100
    if found.architecture == "arm":
        have, want = _version(found.variant or "v7"), _version(wanted.variant or "v7")
        return 50 + have if have <= want else 0
    if found.architecture == "arm64":
        have, want = _version(found.variant or "v8"), _version(wanted.variant or "v8")
        return 50 + have if have <= want else 0
    if found.architecture == "amd64":
        have, want = _version(found.variant or "v1"), _version(wanted.variant or "v1")
        return 50 + have if have <= want else 0
    return 50 if not found.variant or not wanted.variant else 0


def _version(variant: str) -> int:
    digits = variant.removeprefix("v").partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def descriptor(entry: Any, what: str) -> Descriptor:
    """Check a descriptor's digest, size and media type. Raises ImageError, which calls it `what`."""
    if not isinstance(entry, dict):
        raise ImageError(f"{what} is not a descriptor")
    digest, size = entry.get("digest"), entry.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ImageError(f"{what} has the digest {digest!r}; only sha256 is supported")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ImageError(f"{what} has the invalid size {size!r}")
    return Descriptor(digest, size, str(entry.get("mediaType") or ""))


def read_manifest(document: dict[str, Any]) -> Manifest:
    """Check an image manifest. Raises ImageError for artifacts and for encrypted or foreign layers."""
    config = descriptor(document.get("config"), "the manifest's config")
    artifact = document.get("artifactType") or ""
    if config.media_type not in _CONFIG_TYPES:
        kind = artifact or config.media_type or "unknown"
        raise ImageError(f"it is an artifact of type {kind}, not a container image")
    entries = document.get("layers")
    if not isinstance(entries, list):
        raise ImageError("its manifest has no list of layers")
    if len(entries) > MAX_LAYERS:
        raise ImageError(f"it has {len(entries)} layers; overlayfs accepts {MAX_LAYERS}")
    layers = tuple(descriptor(entry, f"layer {n}") for n, entry in enumerate(entries, 1))
    for number, layer in enumerate(layers, 1):
        _check_layer_type(number, layer.media_type)
    annotations = document.get("annotations") or {}
    return Manifest(config, layers, dict(annotations) if isinstance(annotations, dict) else {})


def _check_layer_type(number: int, kind: str) -> None:
    if kind in _LAYER_TYPES:
        return
    if "foreign" in kind or "nondistributable" in kind:
        raise ImageError(f"layer {number} is of media type {kind}: its content is not in the registry")
    if kind.endswith("+encrypted"):
        raise ImageError(f"layer {number} is encrypted ({kind}), which is not supported")
    raise ImageError(f"layer {number} is of media type {kind or 'unknown'}, which is not a file system layer")


def build_image(
    manifest: Manifest, config: bytes, *, original: bytes, names: Iterable[str], source: str
) -> Image:
    """The image to store, with the original manifest if that is OCI's, else with its translation."""
    about = parse_json(config, "the image's config")
    imageconfig.check(about)
    rootfs = about.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(d, str) and is_digest(d) for d in diff_ids):
        raise ImageError("the image's config does not list its layers' diff ids")
    if len(diff_ids) != len(manifest.layers):
        raise ImageError(
            f"the manifest has {len(manifest.layers)} layers and the config {len(diff_ids)} diff ids"
        )
    layers = tuple(
        Layer(blob.digest, blob.size, _LAYER_TYPES[blob.media_type], diff_id, chain)
        for blob, diff_id, chain in zip(manifest.layers, diff_ids, chain_ids(diff_ids), strict=True)
    )
    platform = {key: str(about[key]) for key in ("architecture", "os", "variant") if about.get(key)}
    translated = _is_translated(manifest, original)
    stored = oci_manifest(config, layers, manifest.annotations) if translated else original
    return Image(stored, config, layers, tuple(names), source, platform)


def _is_translated(manifest: Manifest, original: bytes) -> bool:
    if not original:
        return True
    document = parse_json(original, "the manifest")
    kinds = {manifest.config.media_type, *(layer.media_type for layer in manifest.layers)}
    return media_type(document) != MANIFEST_TYPE or any(".docker." in kind for kind in kinds)


def oci_manifest(config: bytes, layers: Iterable[Layer], annotations: dict[str, str] | None = None) -> bytes:
    """An OCI manifest as bytes. Equal input gives equal bytes."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": x.media_type, "digest": x.digest, "size": x.size} for x in layers],
    }
    if annotations:
        document["annotations"] = annotations
    return json.dumps(document, indent=1).encode()
