"""certificates.k8s.io/v1beta1: ClusterTrustBundle (Kubernetes 1.36)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from manifests.types.meta import Model, Object, ObjectMeta, Str


class ClusterTrustBundleSpec(Model):
    signer_name: Str | None = None
    trust_bundle: Str


class ClusterTrustBundle(Object):
    namespaced: ClassVar[bool] = False
    api_version: Literal["certificates.k8s.io/v1beta1"] = "certificates.k8s.io/v1beta1"
    kind: Literal["ClusterTrustBundle"] = "ClusterTrustBundle"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: ClusterTrustBundleSpec


class Block(NamedTuple):
    """One PEM block (RFC 7468)."""

    label: str
    headers: bool
    content: bytes


_BLOCK = re.compile(r"-----BEGIN ([^\n-]+)-----[ \t\r]*\n(.*?)\n?-----END \1-----", re.DOTALL)


def pem_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks that Go's pem.Decode finds. Text between blocks and malformed blocks are skipped."""
    for found in _BLOCK.finditer(text):
        head, blank, body = found[2].replace("\r", "").rpartition("\n\n")
        headers = bool(blank) or ":" in body
        try:
            content = base64.b64decode("".join(body.split()), validate=True)
        except binascii.Error:
            if not headers:
                continue
            content = b""
        yield Block(found[1], headers or bool(head), content)
