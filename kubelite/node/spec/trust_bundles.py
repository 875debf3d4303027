"""PURE: what a projected clusterTrustBundle has in its file: the trust anchors of one bundle, or of all of a signer's
that a selector picks, each once (K pkg/kubelet/clustertrustbundle).
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kubelite.node.model.errors import ConfigError
from manifests.types.core import ClusterTrustBundleProjection
from manifests.types.trust_bundle import pem_blocks

KIND = "ClusterTrustBundle"
Doc = Mapping[str, Any]


def trust_anchors(wanted: ClusterTrustBundleProjection, every: Callable[[str], Iterable[Doc]]) -> bytes:
    """PEM; nothing where there is none and that is `optional`. Raises ConfigError."""
    if wanted.name:
        found = [doc for doc in every(KIND) if doc["metadata"]["name"] == wanted.name]
        missing = f'clustertrustbundle "{wanted.name}" not found'
    else:
        found = [doc for doc in every(KIND) if _picked(wanted, doc)]
        missing = "combination of signerName and labelSelector matched zero ClusterTrustBundles"
    if not found and not wanted.optional:
        raise ConfigError(missing)
    anchors = {block.content for doc in found for block in pem_blocks(doc["spec"]["trustBundle"])}
    ordered = sorted(anchors, key=lambda one: hashlib.sha256(one).digest())  # of no bundle's own order
    return b"".join(_pem(one) for one in ordered)


def _picked(wanted: ClusterTrustBundleProjection, doc: Doc) -> bool:
    """A selector that is not there matches nothing, one that is empty everything."""
    if wanted.label_selector is None or doc["spec"].get("signerName") != wanted.signer_name:
        return False
    return wanted.label_selector.matches(doc["metadata"].get("labels") or {})


def _pem(content: bytes) -> bytes:
    body = "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 64))
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n".encode()
