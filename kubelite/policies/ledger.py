"""Counts what objects use of quotas, and decides whether one more fits. Pure, except that it remembers what documents
use: these never change, and to count a thousand pods again for each new one would take longer than to create it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kubelite.kube.json import Json
from kubelite.policies.amounts import Amounts, add
from kubelite.policies.resource_quota import PLURALS, excess, forbidden, used, used_by

#: kind → the documents of a namespace
Docs = Callable[[str], Iterable[Json]]


class Ledger:
    """What is used of each quota. One ledger serves all namespaces."""

    def __init__(self) -> None:
        self._tallies: dict[str, dict[tuple[str, str], _Tally]] = {}  # namespace → quota's name, kind

    def refusal(
        self, quotas: Sequence[Json], new: Json, docs: Docs, now: float, old: Json | None = None
    ) -> str:
        """Return why an object does not fit into the quotas of its namespace, as an API server says it; "" if it does.
        `old`: what an edited object was before; `docs`: the objects that exist, `old` among them."""
        kind = new["kind"]
        self._forget(new["metadata"].get("namespace", ""), quotas)
        if not quotas or kind not in PLURALS:
            return ""
        said = excess(quotas, new, now, lambda quota: self._of_kind(quota, kind, docs, now), old)
        return forbidden(new, said) if said else ""

    def used(self, quota: Json, docs: Docs, now: float) -> Amounts:
        """Return what is used of a quota by all objects: its `status.used`."""
        total = used(quota, (), now)
        for kind in PLURALS:
            add(total, self._of_kind(quota, kind, docs, now))
        return total

    def _of_kind(self, quota: Json, kind: str, docs: Docs, now: float) -> Amounts:
        metadata = quota["metadata"]
        tallies = self._tallies.setdefault(metadata.get("namespace", ""), {})
        tally = tallies.get((metadata["name"], kind))
        if tally is None or tally.quota["spec"] != quota["spec"]:
            tally = tallies[metadata["name"], kind] = _Tally(quota, kind)
        return tally.count(docs(kind), now)

    def _forget(self, namespace: str, quotas: Sequence[Json]) -> None:
        """Forget quotas that do not exist any more, with the documents that they refer to."""
        if namespace not in self._tallies:
            return
        names = {quota["metadata"]["name"] for quota in quotas}
        left = {key: tally for key, tally in self._tallies[namespace].items() if key[0] in names}
        if left:
            self._tallies[namespace] = left
        else:
            del self._tallies[namespace]


class _Tally:
    """What the objects of one kind use of one quota."""

    def __init__(self, quota: Json, kind: str) -> None:
        self.quota = quota
        self._kind = kind  # some recorded documents do not have it
        self._total = used(quota, (), 0)
        self._counted: dict[str, tuple[Json, Amounts]] = {}  # by name

    def count(self, docs: Iterable[Json], now: float) -> Amounts:
        """Return the total. Only documents that are new or changed are counted again, and those of terminating pods,
        whose usage ends at some time."""
        before, self._counted = self._counted, {}
        for doc in docs:
            metadata = doc["metadata"]
            known = before.pop(metadata["name"], None)
            if known is None or known[0] is not doc or metadata.get("deletionTimestamp"):
                self._subtract(known)
                known = doc, used_by(self.quota, {**doc, "kind": self._kind}, now)
                add(self._total, known[1])
            self._counted[metadata["name"]] = known
        for known in before.values():
            self._subtract(known)
        return self._total

    def _subtract(self, known: tuple[Json, Amounts] | None) -> None:
        for name, amount in known[1].items() if known is not None else ():
            self._total[name] = self._total[name] - amount
