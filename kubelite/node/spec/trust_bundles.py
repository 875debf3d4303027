"""The file of a projected clusterTrustBundle: the trust anchors of one bundle, or of all bundles of a signer that a
selector matches, each anchor once (Kubernetes pkg/kubelet/clustertrustbundle).
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
    """The anchors as PEM; empty if there are none and the source is `optional`. Raises ConfigError."""
    if wanted.name:
        found = [doc for doc in every(KIND) if doc["metadata"]["name"] == wanted.name]
        missing = f'clustertrustbundle "{wanted.name}" not found'
    else:
        found = [doc for doc in every(KIND) if _picked(wanted, doc)]
        missing = "combination of signerName and labelSelector matched zero ClusterTrustBundles"
    if not found and not wanted.optional:
        raise ConfigError(missing)
    anchors = {block.content for doc in found for block in pem_blocks(doc["spec"]["trustBundle"])}
    # so that consumers rely on no order
    ordered = sorted(anchors, key=lambda one: hashlib.sha256(one).digest())
    return b"".join(_pem(one) for one in ordered)


def _picked(wanted: ClusterTrustBundleProjection, doc: Doc) -> bool:
    """Whether a bundle is selected. A missing selector matches nothing, an empty one everything."""
    if wanted.label_selector is None or doc["spec"].get("signerName") != wanted.signer_name:
        return False
    return wanted.label_selector.matches(doc["metadata"].get("labels") or {})


def _pem(content: bytes) -> bytes:
    body = "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 64))
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n".encode()
