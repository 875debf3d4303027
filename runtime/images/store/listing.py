"""Pure functions on index.json's list: add an image, move a name, drop names. Also the `Image` that is installed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import ImageError
from runtime.images.store.store import CONTAINERD_NAME, PULLED, REF_NAME, SOURCE

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class Layer:
    digest: str  # of the blob
    size: int
    media_type: str  # OCI's
    diff_id: str
    chain_id: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image to install: its index entry, and the blobs and layers that must be in place first."""

    manifest: bytes  # the OCI manifest, as stored
    config: bytes
    layers: tuple[Layer, ...]  # lowest first
    names: tuple[str, ...] = ()  # canonical references; empty for a dangling image
    source: str = ""  # repository@digest
    platform: dict[str, str] = field(default_factory=dict)

    @property
    def manifest_digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def config_digest(self) -> str:
        return digest_of(self.config)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def with_image(manifests: list[dict[str, Any]], image: Image, now: str) -> list[dict[str, Any]]:
    """Add the image under its names. Another image that loses its only name stays in the list without a name."""
    kept: list[dict[str, Any]] = []
    digest = image.manifest_digest
    for descriptor in manifests:
        name = (descriptor.get("annotations") or {}).get(REF_NAME, "")
        same = descriptor.get("digest") == digest
        if same and (not name or name in image.names):
            continue
        kept.append(nameless(descriptor) if name and name in image.names else descriptor)
    for name in image.names or ("",):
        annotations = {PULLED: now}
        if name:
            annotations |= {REF_NAME: name, CONTAINERD_NAME: name}
        if image.source:
            annotations[SOURCE] = image.source
        descriptor = {"mediaType": MANIFEST_TYPE, "digest": digest, "size": len(image.manifest)}
        if image.platform:
            descriptor["platform"] = image.platform
        kept.append({**descriptor, "annotations": annotations})
    return _without_needless(kept)


def name_image(manifests: list[dict[str, Any]], digest: str, name: str) -> list[dict[str, Any]]:
    """Give the image one more name. Another image that had the name loses it. Raises ImageError (ImageNotFound)."""
    mine = next((d for d in manifests if d.get("digest") == digest), None)
    if mine is None:
        raise ImageError(f"{digest} is not an image of this store", reason="ImageNotFound")
    kept = [
        nameless(d) if (d.get("annotations") or {}).get(REF_NAME) == name and d.get("digest") != digest else d
        for d in manifests
        if not (d.get("digest") == digest and (d.get("annotations") or {}).get(REF_NAME) == name)
    ]
    annotations = {**(mine.get("annotations") or {}), REF_NAME: name, CONTAINERD_NAME: name}
    return _without_needless([*kept, {**mine, "annotations": annotations}])


def _without_needless(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop an entry without a name if the image has a name elsewhere or is listed already."""
    named = {d.get("digest") for d in manifests if (d.get("annotations") or {}).get(REF_NAME)}
    result: list[dict[str, Any]] = []
    for descriptor in manifests:
        if (descriptor.get("annotations") or {}).get(REF_NAME) or descriptor.get("digest") not in named:
            result.append(descriptor)
            named.add(descriptor.get("digest"))
    return result


def nameless(descriptor: dict[str, Any]) -> dict[str, Any]:
    """The descriptor without its names. Only the image id still identifies the image."""
    annotations = dict(descriptor.get("annotations") or {})
    annotations.pop(REF_NAME, None)
    annotations.pop(CONTAINERD_NAME, None)
    return {**descriptor, "annotations": annotations}
