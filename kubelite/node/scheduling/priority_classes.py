"""Stores the PriorityClasses that come from no manifest: Kubernetes' built-in ones and those of the settings."""

from __future__ import annotations

import time
from collections.abc import Mapping

from kubelite.kube.objects import source_of
from kubelite.kube.times import rfc3339
from kubelite.node.model.priority import KIND, always_there
from runtime.identity import new_uid
from state.store import Store


async def keep_classes(store: Store, settings: Mapping[str, int]) -> None:
    """Make the stored classes match the settings. Classes from manifests stay unchanged. Raises StoreError."""
    wanted = {doc["metadata"]["name"]: doc for doc in always_there(settings)}
    recorded = {record.name: record for record in store.list(KIND)}
    for name, record in recorded.items():
        if name not in wanted and not source_of(record):
            await store.delete(record.uid)
    for name, doc in wanted.items():
        if (found := recorded.get(name)) is None:
            own = {"name": name, "uid": new_uid(), "creationTimestamp": rfc3339(time.time())}
            await store.create(KIND, {**doc, "metadata": own}, durable=False)
        elif not source_of(found) and found.doc.get("value") != doc["value"]:
            await store.update(KIND, {**doc, "metadata": found.metadata})
