"""What a pod's volumes get from the node's API: tokens, and the authority that clients trust."""

from __future__ import annotations

from typing import Protocol

from manifests.types.core import Pod, ServiceAccountTokenProjection


class TokenSource(Protocol):
    """The node's API, as far as volumes need it."""

    def token(self, pod: Pod, wanted: ServiceAccountTokenProjection, current: str) -> str:
        """Return the token for a pod's file: `current`, which the file has, unless it is due for a new one. Raises
        ConfigError."""
        ...

    def authority(self) -> str | None:
        """Return the certificate (PEM) of the API's authority; None until pods can reach the API."""
        ...


class NoTokens:
    """A node without an API: it has no authority, and issues no tokens."""

    def token(self, _pod: Pod, _wanted: ServiceAccountTokenProjection, _current: str) -> str:
        return ""

    def authority(self) -> str | None:
        return None


def file_user(pod: Pod) -> int | None:
    """Return the user as whom all containers of a pod run; None if the manifest does not say so of each, or if they
    differ (Kubernetes pkg/volume/util/util.go, FsUserFrom)."""
    shared = pod.spec.security_context.run_as_user if pod.spec.security_context is not None else None
    found = set()
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        own = container.security_context.run_as_user if container.security_context is not None else None
        found.add(shared if own is None else own)
    return found.pop() if len(found) == 1 else None
