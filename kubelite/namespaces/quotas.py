"""Keeps the status of ResourceQuotas current: `status.hard`, and `status.used` counted from the objects that exist.

Nothing here decides what is admitted: the store asks kubelite.policies.gate when it adds an object. What was refused is
tried again after `changed`. Source: Kubernetes pkg/controller/resourcequota/resource_quota_controller.go
(syncResourceQuota).

A node without quotas never imports this module: see `kubelite.daemon.workloads`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable

from kubelite.kube.json import Json
from kubelite.kube.objects import belongs_to_cluster
from kubelite.policies.gate import QUOTA
from kubelite.policies.ledger import Ledger
from kubelite.policies.resource_quota import PLURALS
from state.errors import StorageFailed
from state.store import Store

log = logging.getLogger(__name__)

COALESCE = 0.05  # seconds in which changes lead to one status
RESYNC = 10.0  # seconds until pods are counted again that terminate: past their grace period they use nothing
RETRY = 1.0  # seconds after a write that failed, as on a full disk


class QuotaKeeper:
    """`run` watches until it is cancelled. `changed` is called when a quota, or what is used of one, has changed."""

    def __init__(
        self, store: Store, changed: Callable[[], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._changed = changed
        self._clock = clock
        self._ledger = Ledger()

    async def run(self) -> None:
        """Count everything once, and then what changes."""
        async with self._store.watch(frozenset(PLURALS)) as watch:
            namespaces: Collection[str] = self._limited()
            while True:
                try:
                    await self._keep(namespaces)
                except StorageFailed as error:
                    log.error("the status of quotas cannot be written, will retry: %s", error)
                    await asyncio.sleep(RETRY)
                    namespaces = self._limited()
                    continue
                change = await watch.next(RESYNC if self._terminating() else None)
                await asyncio.sleep(COALESCE)
                found = [*([change] if change is not None else ()), *watch.take()]
                namespaces = {one.record.namespace for one in found} if found else self._limited()
                if any(one.record.kind == QUOTA and one.type == "DELETED" for one in found):
                    self._changed()

    async def _keep(self, namespaces: Collection[str]) -> None:
        """Write the status of the quotas of these namespaces, where it is another one."""
        writes = []
        for record in self._store.list(QUOTA):
            if record.namespace not in namespaces:
                continue
            status = status_of(record.doc, self._ledger, self._docs(record.namespace), self._clock())
            if status != record.doc.get("status"):
                writes.append(self._store.modify(record.uid, _with_status(status), durable=False))
        if writes:
            await asyncio.gather(*writes)
            self._changed()

    def _docs(self, namespace: str) -> Callable[[str], Iterable[Json]]:
        return lambda kind: [record.doc for record in self._store.list(kind, namespace)]

    def _limited(self) -> frozenset[str]:
        return frozenset(record.namespace for record in self._store.list(QUOTA))

    def _terminating(self) -> bool:
        limited = self._limited()
        pods = (record for record in self._store.list("Pod") if record.namespace in limited)
        return any(record.deleting and not belongs_to_cluster(record.doc) for record in pods)


def status_of(quota: Json, ledger: Ledger, docs: Callable[[str], Iterable[Json]], now: float) -> Json:
    """Return the status of a quota. `docs` returns the documents of a kind in its namespace. Pure."""
    hard = quota["spec"].get("hard") or {}
    used = ledger.used(quota, docs, now)
    return {
        "hard": {name: str(hard[name]) for name in sorted(hard)},
        "used": {name: str(used[name]) for name in sorted(hard)},
    }


def _with_status(status: Json) -> Callable[[Json], Json]:
    return lambda doc: {**doc, "status": status}
