"""Signatures of images as cosign and skopeo attach them to a registry: an image at the tag `sha256-<digest>.sig`, whose
layers are the signed texts and have the signatures as annotations (sigstore/cosign, specs/SIGNATURE_SPEC.md).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from runtime.errors import ImageError
from runtime.images.reference import Reference
from runtime.images.registry.policy import REASON, Identity, Requirement

MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"
MOST = 64  # the most signatures of an image that are checked


class Signature(NamedTuple):
    """A signed text and its signature."""

    payload: bytes
    signature: bytes


def tag_of(digest: str) -> str:
    return f"{digest.replace(':', '-')}.sig"


def check(
    found: Sequence[Signature], required: Iterable[Requirement], wanted: Reference, digests: Sequence[str]
) -> None:
    """Check that each requirement is met by one of the signatures. `digests`: of the manifest, and of the index that
    led to it; a signature of either counts. Raises ImageError."""
    for requirement in required:
        keys = _keys(requirement) if found else []
        identity = requirement.identity
        said = [why for one in found if (why := _wrong(one, keys, identity, wanted, digests))]
        if len(said) == len(found):
            words = "; ".join(dict.fromkeys(said)) or "it has none"
            raise ImageError(
                f"Source image rejected: A signature was required, but no signature is valid: {words}",
                reason=REASON,
            )


def _wrong(
    one: Signature, keys: Sequence[Any], identity: Identity, wanted: Reference, digests: Sequence[str]
) -> str:
    """Why a signature does not meet a requirement; "" if it does. The text is trusted only after its signature has been
    verified."""
    if not any(verified(key, one) for key in keys):
        return "a signature is by another key"
    try:
        critical = json.loads(one.payload)["critical"]
        kind, digest = critical["type"], critical["image"]["docker-manifest-digest"]
        named = critical["identity"]["docker-reference"]
    except (ValueError, KeyError, TypeError):
        return "a signed text is not one of an image"
    if kind != _TYPE or not isinstance(named, str):
        return "a signed text is not one of an image"
    if digest not in digests:
        return f"a signature is of another image, {digest}"
    if not identity.matches(named, wanted):
        return f"a signature is of the name {named}"
    return ""


def _keys(requirement: Requirement) -> list[Any]:
    """Raises ImageError if a key cannot be read."""
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        words = "signatures need the Python package cryptography: pip install 'kubelite[signatures]'"
        raise ImageError(words, reason=REASON) from error
    texts = list(requirement.key_data)
    for path in requirement.key_paths:
        try:
            with open(path, "rb") as file:
                texts.append(file.read())
        except OSError as error:
            raise ImageError(f"cannot read the public key {path}: {error.strerror}", reason=REASON) from error
    try:
        return [load_pem_public_key(text) for text in texts]
    except ValueError as error:
        raise ImageError(
            f"a key of the image policy is not a public key in PEM: {error}", reason=REASON
        ) from error


def verified(key: Any, one: Signature) -> bool:
    """Whether the key made the signature: ECDSA or RSA with SHA-256, or Ed25519."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(one.signature, one.payload, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(one.signature, one.payload, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(one.signature, one.payload)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def listed(document: Any) -> list[tuple[Any, bytes]]:
    """The signatures in a signature image's manifest: (descriptor of the signed text, signature). Pure."""
    layers = document.get("layers") if isinstance(document, dict) else None
    found = []
    for layer in layers if isinstance(layers, list) else ():
        if not isinstance(layer, dict) or layer.get("mediaType") != MEDIA_TYPE:
            continue
        try:
            text = (layer.get("annotations") or {})[ANNOTATION]
            found.append((layer, base64.b64decode(text, validate=True)))
        except (KeyError, TypeError, AttributeError, binascii.Error):
            continue
    return found[:MOST]
