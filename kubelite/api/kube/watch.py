"""Watches: the store's changes as metav1.WatchEvent lines, whole objects or Table rows.

A selector turns a change into a move in or out of what the client sees: in is ADDED, out is DELETED
(kubernetes apiserver pkg/storage/cacher watchCache: the same rule). A client that does not read its changes is told
"410 Gone" and left, as an apiserver does, so that what waits for it is bounded.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from kubelite.api.errors import from_exception, status
from kubelite.api.kube.resources import Resource, complete, read_list
from kubelite.api.node import ChangeLike, NodeApi, WatchLike
from kubelite.api.stream import Stream
from kubelite.kube.json import Json
from state.errors import StoreError

LIMIT = 4096  # changes that may wait for one client
LOOK_SECONDS = 1.0  # between two looks at what the node makes up


@dataclass(frozen=True)
class WatchRequest:
    resource: Resource
    namespace: str | None
    selects: Callable[[Json], bool]
    render: Callable[[Json], Json]  # one document -> what is sent of it (itself, or a Table of one row)
    since: int | None  # None: begin with everything there is
    timeout: float | None
    bookmark: bool = False  # sendInitialEvents: mark the end of what there was


def open_watch(node: NodeApi, request: WatchRequest) -> Stream:
    """Subscribe now (an Expired error comes from here, before an answer has begun) and return the answer."""
    if not request.resource.stored:
        return Stream(_made_up(node, request), media_type="application/json")
    now = node.store.resource_version
    watch = node.store.watch(request.resource.kind, request.since, LIMIT)
    initial = [
        complete(request.resource, record.doc)
        for record in node.store.list(request.resource.kind, request.namespace)
    ]
    events = _events(watch, request, [doc for doc in initial if request.selects(doc)], now)
    return Stream(events, media_type="application/json", on_close=watch.close)


async def _events(
    watch: WatchLike, request: WatchRequest, initial: list[Json], start: int
) -> AsyncGenerator[bytes, None]:
    known = {doc["metadata"].get("uid") for doc in initial}
    deadline = None if request.timeout is None else time.monotonic() + request.timeout
    if request.since is None:
        for doc in initial:
            yield _line("ADDED", request.render(doc))
        if request.bookmark:
            yield _line("BOOKMARK", _bookmark(request.resource, start))
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        try:
            change = await watch.next(left)
        except (
            StoreError
        ) as error:  # fallen behind: the client lists again, as after a resourceVersion too old
            yield _line("ERROR", status(from_exception(error)))
            return
        if change is None:
            return
        event = _event(change, request, known, replayed=change.record.resource_version <= start)
        if event is not None:
            yield event


async def _made_up(node: NodeApi, request: WatchRequest) -> AsyncGenerator[bytes, None]:
    """Of what the store does not have (nodes, namespaces): looked at again while somebody watches. It has no versions
    to go on from: unless nothing at all has changed since the client's, it is told what there is once more."""

    def look() -> dict[str, Json]:
        docs = (doc for doc in read_list(node, request.resource, None) if request.selects(doc))
        return {doc["metadata"]["name"]: doc for doc in docs}

    deadline = None if request.timeout is None else time.monotonic() + request.timeout
    seen = request.since is not None
    known = look() if request.since == node.store.resource_version else {}
    begun = seen or not request.bookmark
    while True:
        now = look()
        for name, doc in now.items():
            if doc != known.get(name):
                yield _line("MODIFIED" if seen or name in known else "ADDED", request.render(doc))
        for name in known.keys() - now.keys():
            yield _line("DELETED", request.render(known[name]))
        if not begun:
            begun = True
            yield _line("BOOKMARK", _bookmark(request.resource, node.store.resource_version))
        known, seen = now, False
        left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - time.monotonic())
        if left <= 0:
            return
        await asyncio.sleep(left)


def _event(change: ChangeLike, request: WatchRequest, known: set[Any], *, replayed: bool) -> bytes | None:
    record = change.record
    if request.namespace not in (None, record.namespace):
        return None
    doc = complete(request.resource, record.doc)
    was_known = record.uid in known
    if change.type == "DELETED" or not request.selects(doc):
        known.discard(record.uid)
        # Of a replayed change nobody here knows what the client saw before it; a needless DELETED does no harm.
        gone = was_known or (replayed and change.type != "ADDED")
        if change.type == "DELETED":
            gone = gone or request.selects(doc)
        return _line("DELETED", request.render(doc)) if gone else None
    known.add(record.uid)
    kind = "MODIFIED" if was_known and change.type == "MODIFIED" else "ADDED"
    return _line(kind, request.render(doc))


def _bookmark(resource: Resource, version: int) -> Json:
    annotations = {"k8s.io/initial-events-end": "true"}
    metadata = {"resourceVersion": str(version), "creationTimestamp": None, "annotations": annotations}
    return {"kind": resource.kind, "apiVersion": resource.group_version, "metadata": metadata}


def _line(kind: str, document: Json) -> bytes:
    return json.dumps({"type": kind, "object": document}, separators=(",", ":")).encode() + b"\n"
