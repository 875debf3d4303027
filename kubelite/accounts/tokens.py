"""Issues and checks the tokens of ServiceAccounts.

Tokens are not recorded. A token is rejected when its ServiceAccount or the object that it is bound to is gone, or when
another key signed it, so each check reads the store.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from kubelite.accounts.claims import (
    Identity,
    Wish,
    claims_of,
    default_account,
    identity_of,
)
from kubelite.accounts.keys import SigningKey
from kubelite.kube.json import Json
from kubelite.kube.objects import DEFAULT_ACCOUNT

_KEPT = 1024  # tokens whose signature need not be checked again
#: Kinds whose objects make a namespace exist: first those that most namespaces have.
_OF_NAMESPACES = (
    "Pod", "ServiceAccount", "Secret", "ConfigMap", "Service", "Role", "RoleBinding", "Deployment", "StatefulSet",
    "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "PersistentVolumeClaim", "Ingress",
    "NetworkPolicy", "LimitRange", "ResourceQuota", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Endpoints",
    "EndpointSlice", "ControllerRevision",
)  # fmt: skip


class Found(Protocol):
    """A record, as far as it is read here."""

    @property
    def doc(self) -> Json: ...


class Objects(Protocol):
    """The store, as far as it is read here."""

    def get(self, kind: str, namespace: str, name: str) -> Found | None: ...
    def list(self, kind: str, namespace: str | None = None) -> Sequence[Found]: ...


class Token(NamedTuple):
    """A token, and when its holder must replace it (Unix seconds)."""

    text: str
    expires: float


class Tokens:
    """`key`: the file of the node's key; `issuer`: the URL that tokens name; `node`: the node's name, also its uid."""

    def __init__(
        self,
        store: Objects,
        key: str,
        *,
        issuer: str,
        node: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._key = SigningKey(key)
        self.issuer = issuer
        self.audiences = (issuer,)  # of the node's API
        self._node = node
        self._clock = clock
        self._verified: dict[str, Json] = {}

    def account(self, namespace: str, name: str) -> Json | None:
        """Return a ServiceAccount: a recorded one, or the one that every namespace has."""
        if (record := self._store.get("ServiceAccount", namespace, name)) is not None:
            return record.doc
        if name != DEFAULT_ACCOUNT or not self._has_namespace(namespace):
            return None
        defined = self._store.get("Namespace", "", namespace)
        return default_account(namespace, defined.doc if defined is not None else None)

    def find(self, kind: str, namespace: str, name: str) -> Json | None:
        """Return an object that a token can depend on."""
        if kind == "ServiceAccount":
            return self.account(namespace, name)
        if kind == "Node":
            return {"metadata": {"name": name, "uid": name}} if name == self._node else None
        record = self._store.get(kind, namespace, name)
        return record.doc if record is not None else None

    def issue(self, account: Json, wish: Wish) -> Token:
        """Return a new token of a ServiceAccount. Raises RuntimeFault if the node's key cannot be used."""
        now = self._clock()
        extend = set(wish.audiences) <= set(self.audiences)
        claims = claims_of(
            account, wish, issuer=self.issuer, node=self._node, now=now, jti=str(uuid.uuid4()), extend=extend
        )
        return Token(self._key.sign(claims), now + wish.seconds)

    def check(self, token: str, audiences: Iterable[str] = ()) -> Identity:
        """Return the user of a token. `audiences`: the token must have one of them; if empty, one of the node's API.
        Raises Rejected, and RuntimeFault if the node's key cannot be used."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._key.verified(token)
            if len(self._verified) >= _KEPT:
                del self._verified[next(iter(self._verified))]
            self._verified[token] = claims
        return identity_of(
            claims,
            issuer=self.issuer,
            audiences=tuple(audiences) or self.audiences,
            find=self.find,
            now=self._clock(),
        )

    def is_current(self, token: str) -> bool:
        """Whether the header of a token names the node's key; nothing else is checked. Raises RuntimeFault."""
        return self._key.is_current(token)

    def discovery(self) -> Json:
        """Return the document of /.well-known/openid-configuration (OpenID Connect Discovery 1.0)."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def public_keys(self) -> Json:
        """Return the public keys with which others can check tokens. Raises RuntimeFault."""
        return {"keys": [self._key.public()]}

    def _has_namespace(self, namespace: str) -> bool:
        if namespace == "default" or self._store.get("Namespace", "", namespace) is not None:
            return True
        return any(self._store.list(kind, namespace) for kind in _OF_NAMESPACES)
