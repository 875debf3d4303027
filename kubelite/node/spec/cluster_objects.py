"""Which objects a pod refers to: those of the manifest directory, or, for a pod of a cluster, the cluster's. Pure.

Both are in the store, apart from each other: the kind of the cluster's objects has a prefix. So a pod of the cluster
never reads a Secret of the manifest directory that has the same name, and the other way round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from kubelite.kube.objects import is_of_cluster
from manifests.types.core import Pod, ServiceAccountTokenProjection

Find = Callable[[str, str, str], Mapping[str, Any] | None]  # (kind, namespace, name) → the document
Every = Callable[[str], Iterable[Mapping[str, Any]]]

TOKEN = (
    "ServiceAccountToken"  # kind of a token that the cluster has issued for a pod; its document has `token`
)
TOKEN_SECONDS = 3600  # life of a token whose projection names none (Kubernetes pkg/apis/core/v1/defaults.go)


class TokenAsked(NamedTuple):
    """A token as a projected volume asks for it. `audience`: "" for the API server's."""

    audience: str
    seconds: int


def cluster_kind(kind: str) -> str:
    """Return the kind under which the store has a cluster's objects of a kind."""
    return f"cluster/{kind}"


def find_for(pod: Pod, find: Find) -> Find:
    """Return what finds the objects that this pod refers to."""
    if not is_of_cluster(pod.metadata.annotations):
        return find
    return lambda kind, namespace, name: find(cluster_kind(kind), namespace, name)


def every_for(pod: Pod, every: Every) -> Every:
    """Return what lists the objects that concern this pod."""
    if not is_of_cluster(pod.metadata.annotations):
        return every
    return lambda kind: every(cluster_kind(kind))


def token_asked(projection: ServiceAccountTokenProjection) -> TokenAsked:
    return TokenAsked(projection.audience or "", projection.expiration_seconds or TOKEN_SECONDS)


def token_name(uid: str, asked: TokenAsked) -> str:
    """Return the name under which the store has a token of a pod."""
    audience = hashlib.sha256(asked.audience.encode()).hexdigest()[:12] if asked.audience else "api"
    return f"{uid}.{audience}.{asked.seconds}"
