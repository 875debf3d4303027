"""What the store asks before it adds an object, or edits one as its manifest says: whether the namespace has room, and
of a new one, whether the namespace is not terminated. Pure.

The store asks while it writes, so that the answer counts the writes before it, whoever makes them: of two objects that
are created side by side, only one gets the last place. Source: Kubernetes
staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/resource_access.go, where a conflict of writes to the
quota's status has this effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from kubelite.kube.errors import Forbidden
from kubelite.kube.json import Json
from kubelite.kube.objects import NAMESPACE, belongs_to_cluster, is_ending
from kubelite.policies.rules import of_ending

if TYPE_CHECKING:
    from kubelite.policies.ledger import Ledger

QUOTA = "ResourceQuota"


class Objects(Protocol):
    """The objects as of a write."""

    def docs_in(self, kind: str, namespace: str) -> Iterable[Json]: ...

    def doc_of(self, kind: str, namespace: str, name: str) -> Json | None: ...


class Gate:
    """`clock` returns Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ledger: Ledger | None = None  # made for the first quota

    def __call__(self, objects: Objects, kind: str, doc: Json, old: Json | None) -> None:
        """Raise Forbidden if the object must not be added, or edited. `old`: what an edited object was before. The
        cluster's API server has admitted its pods already."""
        if belongs_to_cluster(doc):
            return
        namespace = doc["metadata"].get("namespace", "")
        home = objects.doc_of(NAMESPACE, "", namespace) if namespace and old is None else None
        if home is not None and is_ending(home) and kind != "Event":
            raise of_ending({**doc, "kind": kind})
        quotas = list(objects.docs_in(QUOTA, namespace)) if namespace else []
        if not quotas and self._ledger is None:
            return
        from kubelite.policies.ledger import Ledger

        self._ledger = self._ledger or Ledger()

        def docs(other: str) -> Iterable[Json]:
            return objects.docs_in(other, namespace)

        before = {**old, "kind": kind} if old is not None else None
        if said := self._ledger.refusal(quotas, {**doc, "kind": kind}, docs, self._clock(), before):
            raise Forbidden(said, "metadata")
