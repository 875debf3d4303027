"""The resources for which plugins have registered, in the store.

After a restart, the node has none of them (capacity 0) until their plugins are back, instead of no such resource.
"""

from __future__ import annotations

from kubelite.node.scheduling.scheduler import log_store_errors
from state.store import Store

KIND, NAME = "DeviceResources", "device-plugins"


def known_resources(store: Store) -> list[str]:
    record = store.get(KIND, "", NAME)
    return list(record.doc["resources"]) if record is not None else []


async def remember(store: Store, resource: str, *, known: bool) -> None:
    """Add a resource, or remove it."""
    old = known_resources(store)
    new = sorted({*old, resource} if known else {*old} - {resource})
    if new == old:
        return
    doc = {"metadata": {"name": NAME, "uid": f"devices:{NAME}"}, "resources": new}
    with log_store_errors("cannot save the resources of device plugins"):
        if store.get(KIND, "", NAME) is None:
            await store.create(KIND, doc)
        else:
            await store.update(KIND, doc)
