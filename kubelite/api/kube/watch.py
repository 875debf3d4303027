"""Watches: the store's changes as metav1.WatchEvent lines, with whole objects or Table rows.

If a change makes an object match the client's selector, the client gets ADDED; if the object no longer matches, it gets
DELETED (the same rule as in Kubernetes: watchCache in staging/src/k8s.io/apiserver/pkg/storage/cacher). The number of
pending changes is limited: a client that does not read them gets "410 Gone" and is disconnected, as by the API server.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from kubelite.api.errors import from_exception, status
from kubelite.api.kube.resources import Resource, complete, read_list
from kubelite.api.node import ChangeLike, NodeApi, WatchLike
from kubelite.api.stream import Stream
from kubelite.kube.json import Json
from state.errors import Expired, StoreError

LIMIT = 4096  # pending changes of one client
BOOKMARK_SECONDS = 60.0  # between two bookmarks, as on a cluster
LOOK_SECONDS = 1.0  # between checks of objects that are not stored


@dataclass(frozen=True)
class WatchRequest:
    resource: Resource
    namespace: str | None
    selects: Callable[[Json], bool]
    render: Callable[[Json], Json]  # document → the document or a Table of one row, which is sent
    since: int | None  # None: begin with all existing objects
    timeout: float | None
    bookmark: bool = False  # sendInitialEvents: mark the end of the existing objects
    bookmarks: bool = False  # allowWatchBookmarks: say now and then from which version a watch can resume


def open_watch(node: NodeApi, request: WatchRequest) -> Stream:
    """Subscribe to changes and return the answer. A version that the store no longer has is an event of the watch, not
    a failure of the request (apiserver pkg/storage/cacher/cacher.go, newErrWatcher)."""
    if not request.resource.stored:
        return Stream(_watch_derived(node, request), media_type="application/json")
    now = node.store.resource_version
    try:
        watch = node.store.watch(request.resource.kind, request.since, LIMIT)
    except Expired as error:
        return Stream(_only(_failure(error)), media_type="application/json")
    initial = [
        complete(request.resource, record.doc)
        for record in node.store.list(request.resource.kind, request.namespace)
    ]
    events = _events(node, watch, request, [doc for doc in initial if request.selects(doc)], now)
    return Stream(events, media_type="application/json", on_close=watch.close)


async def _events(
    node: NodeApi, watch: WatchLike, request: WatchRequest, initial: list[Json], start: int
) -> AsyncGenerator[bytes, None]:
    known = {doc["metadata"].get("uid") for doc in initial}
    deadline = math.inf if request.timeout is None else time.monotonic() + request.timeout
    if request.since is None:
        for doc in initial:
            yield _line("ADDED", request.render(doc))
        if request.bookmark:
            yield _line("BOOKMARK", _bookmark(request.resource, start, initial=True))
    due = time.monotonic() + BOOKMARK_SECONDS if request.bookmarks else math.inf
    while (left := deadline - time.monotonic()) > 0:
        # What was published before is delivered first: if no change comes, the client has seen all of it.
        version, wait = node.store.resource_version, min(left, max(due - time.monotonic(), 0.0))
        began = time.monotonic()
        try:
            change = await watch.next(None if wait == math.inf else wait)
        except StoreError as error:
            # The client is too far behind. It lists again, as after an expired resourceVersion.
            yield _failure(error)
            return
        if change is not None:
            version = change.record.resource_version
            event = _event(change, request, known, replayed=version <= start)
            if event is not None:
                yield event
        elif time.monotonic() < began + wait:
            return  # closed
        if time.monotonic() >= min(due, deadline) and request.bookmarks:
            yield _line("BOOKMARK", _bookmark(request.resource, version))
            due = time.monotonic() + BOOKMARK_SECONDS


async def _only(line: bytes) -> AsyncGenerator[bytes, None]:
    yield line


async def _watch_derived(node: NodeApi, request: WatchRequest) -> AsyncGenerator[bytes, None]:
    """Watch objects that are not stored (nodes, namespaces) by checking them periodically. A watch cannot resume from a
    version of them: if the store has changed since the client's version, all of them are sent again."""

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
            version = node.store.resource_version
            yield _line("BOOKMARK", _bookmark(request.resource, version, initial=True))
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
        # For a replayed change, it is unknown what the client saw before; a redundant DELETED does no harm.
        gone = was_known or (replayed and change.type != "ADDED")
        if change.type == "DELETED":
            gone = gone or request.selects(doc)
        return _line("DELETED", request.render(doc)) if gone else None
    known.add(record.uid)
    kind = "MODIFIED" if was_known and change.type == "MODIFIED" else "ADDED"
    return _line(kind, request.render(doc))


def _bookmark(resource: Resource, version: int, *, initial: bool = False) -> Json:
    """Return the object of a bookmark. `initial`: all existing objects have been sent."""
    metadata: Json = {"resourceVersion": str(version), "creationTimestamp": None}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return {"kind": resource.kind, "apiVersion": resource.group_version, "metadata": metadata}


def _failure(error: StoreError) -> bytes:
    return _line("ERROR", status(from_exception(error)))


def _line(kind: str, document: Json) -> bytes:
    return json.dumps({"type": kind, "object": document}, separators=(",", ":")).encode() + b"\n"
