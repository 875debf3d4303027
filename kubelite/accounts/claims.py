"""The claims of a ServiceAccount's token, and whether a token with them is accepted. Pure.

Source: Kubernetes pkg/serviceaccount/claims.go (Claims, Validate), pkg/registry/core/serviceaccount/storage/token.go,
and apiserver pkg/authentication/serviceaccount/util.go (names, groups, and the keys of `extra`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from kubelite.kube.json import Json
from kubelite.kube.objects import DEFAULT_ACCOUNT, MOUNTED_SECONDS
from kubelite.kube.times import parse_time

LEEWAY = (
    60.0  # seconds by which clocks may differ; a deleted object still counts as long (go-jose, DefaultLeeway)
)
SHORTEST, LONGEST = 600, 1 << 32  # seconds (pkg/apis/authentication/validation, ValidateTokenRequest)
DEFAULT_SECONDS = 3600  # pkg/apis/authentication/v1/defaults.go
#: A pod's token that is asked for with MOUNTED_SECONDS is valid for this many seconds, for programs that read the file
#: only once. The file itself gets a new token after the shorter time.
EXTENDED = 365 * 86400
BOUND_KINDS = ("Pod", "Secret", "Node")
PREFIX = "system:serviceaccount:"
GROUP = "system:serviceaccounts"
_EXTRA = "authentication.kubernetes.io/"
_UIDS = uuid.UUID("5a6c1f0e-9d0c-4b0e-8f5f-0a1d4a3c7b52")  # the name space of derived uids

Find = Callable[[str, str, str], Mapping[str, Any] | None]  # (kind, namespace, name) → the document


class Rejected(Exception):
    """A token that is not accepted. The message says why."""


class Bound(NamedTuple):
    """The object that a token is bound to. The token is rejected once the object is gone."""

    kind: str
    name: str
    uid: str


class Wish(NamedTuple):
    """The token that is asked for."""

    audiences: tuple[str, ...]
    seconds: int = DEFAULT_SECONDS
    bound: Bound | None = None


class Identity(NamedTuple):
    """The user that a token names. `audiences`: the token's audiences that the caller accepts."""

    username: str
    uid: str
    groups: tuple[str, ...]
    extra: tuple[tuple[str, tuple[str, ...]], ...]
    audiences: tuple[str, ...]


def default_account(namespace: str, of_namespace: Mapping[str, Any] | None) -> Json:
    """Return the ServiceAccount `default` of a namespace whose manifests define none. `of_namespace`: the recorded
    Namespace, None if there is only its name. Its uid goes into that of the account, so that the tokens of a namespace
    that is deleted and created again are worthless."""
    metadata = (of_namespace or {}).get("metadata") or {}
    uid = uuid.uuid5(_UIDS, f"{namespace}/{metadata.get('uid', '')}")
    found = {"name": DEFAULT_ACCOUNT, "namespace": namespace, "uid": str(uid)}
    if created := metadata.get("creationTimestamp"):
        found["creationTimestamp"] = created
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": found}


def claims_of(
    account: Mapping[str, Any], wish: Wish, *, issuer: str, node: str, now: float, jti: str, extend: bool
) -> Json:
    """Return the claims of a new token. `account`: the ServiceAccount; `node`: the node's name;
    `extend`: whether a pod's token for the API may be valid longer than asked for; `now`: Unix seconds."""
    metadata, began = account["metadata"], int(now)
    namespace, name = metadata["namespace"], metadata["name"]
    extended = (
        extend and wish.bound is not None and wish.bound.kind == "Pod" and wish.seconds == MOUNTED_SECONDS
    )
    own: Json = {"namespace": namespace, "serviceaccount": {"name": name, "uid": metadata["uid"]}}
    if wish.bound is not None:
        own[wish.bound.kind.lower()] = {"name": wish.bound.name, "uid": wish.bound.uid}
        if wish.bound.kind == "Pod":
            own["node"] = {"name": node, "uid": node}
    if extended:
        own["warnafter"] = began + wish.seconds
    return {
        "aud": list(wish.audiences),
        "exp": began + (EXTENDED if extended else wish.seconds),
        "iat": began,
        "iss": issuer,
        "jti": jti,
        "kubernetes.io": own,
        "nbf": began,
        "sub": f"{PREFIX}{namespace}:{name}",
    }


def identity_of(claims: Json, *, issuer: str, audiences: Iterable[str], find: Find, now: float) -> Identity:
    """Return the user of a token whose signature is verified. Raises Rejected.

    `audiences`: the token must have one of them. `find` returns objects that exist, also a derived ServiceAccount."""
    accepted = tuple(one for one in audiences if one in claims["aud"])
    if claims["iss"] != issuer or not accepted:
        raise Rejected("token audiences or issuer are not those of this node")
    if now - LEEWAY > claims["exp"]:
        raise Rejected("service account token has expired")
    if now + LEEWAY < claims["nbf"]:
        raise Rejected("service account token is not valid yet")
    own = claims["kubernetes.io"]
    namespace, account = own["namespace"], own["serviceaccount"]
    _check("ServiceAccount", namespace, account, find, now)
    for kind in BOUND_KINDS:
        # A pod's token names its node for information only (claims.go, Validate).
        if (bound := own.get(kind.lower())) is not None and not (kind == "Node" and "pod" in own):
            _check(kind, "" if kind == "Node" else namespace, bound, find, now)
    groups = (GROUP, f"{GROUP}:{namespace}", "system:authenticated")
    return Identity(claims["sub"], account["uid"], groups, tuple(_extra(claims)), accepted)


def _check(kind: str, namespace: str, claim: Json, find: Find, now: float) -> None:
    """Check that an object named in a token exists and has the same uid. Raises Rejected."""
    found = find(kind, namespace, claim["name"])
    if found is None or found["metadata"].get("uid") != claim["uid"]:
        raise Rejected(f"service account token has been invalidated: the {kind} {claim['name']} is gone")
    deleted = parse_time(found["metadata"].get("deletionTimestamp") or "")
    if deleted is not None and deleted < now - LEEWAY:
        raise Rejected(f"service account token has been invalidated: the {kind} {claim['name']} is deleted")


def _extra(claims: Json) -> Iterable[tuple[str, tuple[str, ...]]]:
    own = claims["kubernetes.io"]
    yield f"{_EXTRA}credential-id", (f"JTI={claims['jti']}",)
    for kind in ("node", "pod"):
        if (found := own.get(kind)) is not None:
            yield f"{_EXTRA}{kind}-name", (found["name"],)
            yield f"{_EXTRA}{kind}-uid", (found["uid"],)
