"""Who sends a request over TLS: the user of a client certificate or of a token, or nobody."""

from __future__ import annotations

from typing import Any, NamedTuple

from starlette.types import Scope

from kubelite.kube.json import Json

KEY = "kubelite.user"  # key in the ASGI scope of a request
MASTERS = "system:masters"  # the group that may do everything
READERS = "kubelite:readers"  # the group that may read everything except Secrets
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
#: Paths that need no login, as on a cluster (the ClusterRole system:public-info-viewer).
PUBLIC = frozenset({"/healthz", "/livez", "/readyz", "/version"})


class User(NamedTuple):
    """A user as Kubernetes has it (apiserver pkg/authentication/user)."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def info(self) -> Json:
        """Return the user as authentication.k8s.io/v1 UserInfo."""
        found: Json = {
            "username": self.name,
            **({"uid": self.uid} if self.uid else {}),
            "groups": list(self.groups),
        }
        return {**found, "extra": {key: list(of) for key, of in self.extra}} if self.extra else found

    @property
    def anonymous(self) -> bool:
        return UNAUTHENTICATED in self.groups


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


def of_certificate(certificate: Any) -> User | None:
    """Return the user of a verified client certificate in the form of `ssl.SSLSocket.getpeercert()`; None if it names
    none. Source: apiserver pkg/authentication/request/x509 (CommonNameUserConversion)."""
    if not certificate:
        return None
    fields = [field for part in certificate.get("subject", ()) for field in part]
    name = next((value for key, value in fields if key == "commonName"), "")
    groups = [value for key, value in fields if key == "organizationName"]
    return User(name, (*groups, AUTHENTICATED)) if name else None


def expires_of(certificate: Any) -> float:
    """Return the Unix seconds at which a client certificate expires; 0 without one."""
    import ssl

    return float(ssl.cert_time_to_seconds(certificate["notAfter"])) if certificate else 0.0


def user_of(scope: Scope) -> User | None:
    """Return the user of a request; None on the unix socket."""
    found: User | None = scope.get(KEY)
    return found
