"""What pods' volumes ask of the node's API: tokens, and the CA certificate that clients of the API trust."""

from __future__ import annotations

from typing import Protocol

from manifests.types.core import Pod, ServiceAccountTokenProjection


class TokenSource(Protocol):
    """The part of the node's API that volumes use."""

    def token(self, pod: Pod, wanted: ServiceAccountTokenProjection, current: str) -> str:
        """Return the token that a pod's file gets: `current`, the token in the file, until a new one is due. Raises
        ConfigError."""
        ...

    def authority(self) -> str | None:
        """Return the API's CA certificate (PEM), or None until pods can reach the API."""
        ...


class NoTokens:
    """A node without an API: it has no authority, and issues no tokens."""

    def token(self, _pod: Pod, _wanted: ServiceAccountTokenProjection, _current: str) -> str:
        return ""

    def authority(self) -> str | None:
        return None


def file_user(pod: Pod) -> int | None:
    """Return the uid as which all containers of a pod run; None if a container sets none, or if they differ
    (Kubernetes pkg/volume/util/util.go, FsUserFrom)."""
    shared = pod.spec.security_context.run_as_user if pod.spec.security_context is not None else None
    found = set()
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        own = container.security_context.run_as_user if container.security_context is not None else None
        found.add(shared if own is None else own)
    return found.pop() if len(found) == 1 else None
