"""Who may ask the node's server: the cluster decides, by TokenReview and SubjectAccessReview.

Source: Kubernetes pkg/kubelet/server/auth.go (GetRequestAttributes: what a path asks for), the times for which answers
count in pkg/kubelet/apis/config/v1beta1/defaults.go (SetDefaults_KubeletConfiguration).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from kubelite.api.secure.users import User
from kubelite.cluster.client import ClusterClient
from kubelite.kube.json import Json

TOKEN = 120.0  # seconds for which an answer about a token counts
ALLOWED, DENIED = 300.0, 30.0  # seconds for which an answer about a request counts
MOST = 1024  # answers that are remembered of each kind
_VERBS = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
#: First part of a path → the subresources of nodes of which one must be allowed. Every other path needs `proxy`.
_SUBRESOURCES = {
    "stats": ("stats",),
    "metrics": ("metrics",),
    "logs": ("log",),
    "pods": ("pods", "proxy"),
    "runningpods": ("pods", "proxy"),
    "healthz": ("healthz", "proxy"),
    "configz": ("configz", "proxy"),
}

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Asked(NamedTuple):
    """What a request asks of the node, as RBAC knows it."""

    verb: str
    subresource: str


def asked(method: str, path: str) -> tuple[Asked, ...]:
    """Return what a request asks for: one of these must be allowed, and they are tried in this order. Pure."""
    first = path.strip("/").partition("/")[0]
    return tuple(Asked(_VERBS.get(method, ""), one) for one in _SUBRESOURCES.get(first, ("proxy",)))


class _Answers(Generic[K, V]):
    """Remembers answers for a time, the newest ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        until, value = self._kept.get(key, (0.0, None))
        return value if time.monotonic() < until else None

    def put(self, key: K, value: V, seconds: float) -> None:
        self._kept[key] = time.monotonic() + seconds, value
        self._kept.move_to_end(key)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)


class Authorization:
    """Asks the cluster. Raises ClusterError if it does not answer: nobody is admitted then."""

    def __init__(self, client: ClusterClient, node: str) -> None:
        self._client = client
        self._node = node
        self._users: _Answers[str, tuple[User | None]] = _Answers()
        self._decisions: _Answers[tuple[User, Asked], bool] = _Answers()

    async def user_of(self, token: str) -> User | None:
        """Return whose bearer token this is, None if it is nobody's."""
        if (known := self._users.get(token)) is not None:
            return known[0]
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        status = (await self._client.post("/apis/authentication.k8s.io/v1/tokenreviews", review)).get(
            "status"
        ) or {}
        given = status.get("user") or {}
        user = None
        if status.get("authenticated") and given.get("username"):
            user = User(given["username"], tuple(given.get("groups") or ()), given.get("uid") or "")
        self._users.put(token, (user,), TOKEN)
        return user

    async def may(self, user: User, wanted: Asked) -> bool:
        """Whether a user may do this on the node."""
        if (known := self._decisions.get((user, wanted))) is not None:
            return known
        attributes: Json = {
            "verb": wanted.verb,
            "version": "v1",
            "resource": "nodes",
            "subresource": wanted.subresource,
            "name": self._node,
        }
        spec = {
            "user": user.name,
            "groups": list(user.groups),
            "uid": user.uid,
            "resourceAttributes": attributes,
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = await self._client.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        allowed = bool((answer.get("status") or {}).get("allowed"))
        self._decisions.put((user, wanted), allowed, ALLOWED if allowed else DENIED)
        return allowed
