"""When a namespace ends. Pure.

It ends when its document is gone and no other document names it, whatever the order in which they go. Until then it
stays as a namespace without a document, and what other documents define goes on. `marked` records that the document is
gone; `to_terminate` says when nothing names the namespace any more. What is in it is deleted by kubelite/namespaces.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from kubelite.kube.json import Json
from kubelite.kube.objects import NAMESPACE, TERMINATING, is_ending
from kubelite.kube.times import rfc3339
from kubelite.node.storage.protection import FINALIZERS

Key = tuple[str, str, str]  # kind, namespace, name


def marked(namespace: Json, now: float) -> Json | None:
    """Return a Namespace whose document is gone, without what the document said; None if it is marked already."""
    metadata = namespace["metadata"]
    if metadata.get("deletionTimestamp"):
        return None
    kept = {key: value for key, value in metadata.items() if key not in ("annotations", "labels")}
    return {**namespace, "metadata": {**kept, "deletionTimestamp": rfc3339(now)}}


def terminated(namespace: Json, now: float) -> Json | None:
    """Return a Namespace that is emptied from now on; None if it is emptied already."""
    if is_ending(namespace):
        return None
    return {**(marked(namespace, now) or namespace), "status": {"phase": TERMINATING}}


def to_terminate(
    recorded: Iterable[Json], documents: Iterable[Iterable[Key] | None], lost: Iterable[str]
) -> tuple[str, ...]:
    """Return the marked namespaces that no document names. `documents`: of each file, None if they are unknown; while
    that is so of one file or directory, nothing is terminated."""
    states = list(documents)
    waiting = [
        str(doc["metadata"]["name"])
        for doc in recorded
        if doc["metadata"].get("deletionTimestamp") and not is_ending(doc)
    ]
    if not waiting or list(lost) or any(keys is None for keys in states):
        return ()
    named = {key[1] for keys in states for key in keys or ()}
    return tuple(name for name in waiting if name not in named)


def is_revived(doc: Json, ending: Container[str]) -> bool:
    """Whether a document that exists again cancels the deletion of its object. `ending`: the namespaces that are
    terminated, in which nothing is revived."""
    if doc["metadata"].get("namespace", "") in ending:
        return False
    return doc["kind"] in FINALIZERS or (doc["kind"] == NAMESPACE and not is_ending(doc))
