"""Answers a request for a page of a list from the store, or from a snapshot that an earlier page has left."""

from __future__ import annotations

import time

from starlette.requests import Request

from kubelite.api.kube.lists.pages import (
    LATEST,
    Snapshot,
    Snapshots,
    Token,
    decoded,
    encoded,
    expired,
    page,
    place_of,
)
from kubelite.api.kube.resources import Resource, complete, is_only_stored, read_list
from kubelite.api.node import NodeApi
from kubelite.kube.json import Json
from kubelite.kube.selectors import Selector


def page_of(
    request: Request,
    node: NodeApi,
    resource: Resource,
    namespace: str | None,
    selects: Selector,
    *,
    limit: int,
) -> tuple[list[Json], int, Json]:
    """Return the objects of a page, the version of the list, and what its metadata says of the pages that follow.
    Raises BadRequest for a token that is none, Expired for one whose list is gone."""
    everywhere, now = resource.namespaced and namespace is None, time.monotonic()
    text = request.query_params.get("continue", "")
    token = decoded(text, namespace=namespace or "", namespaced=everywhere) if text else None
    snapshots, key = _snapshots(request), (resource.group_version, resource.kind, namespace or "")
    snapshot = _snapshot(node, resource, namespace)
    if token is not None and token.version not in (LATEST, snapshot.version):
        kept = snapshots.get(key, token.version, now)
        if kept is None:
            raise expired(token, namespaced=everywhere)
        snapshot = kept

    def finish(doc: Json) -> Json:
        return complete(resource, doc) if is_only_stored(resource) else doc

    found = page(snapshot, selects, finish, token.after if token else None, limit)
    if found.after is None:
        return found.items, snapshot.version, {}
    snapshots.keep(key, snapshot, now)
    more: Json = {"continue": encoded(Token(snapshot.version, found.after), namespaced=everywhere)}
    if not request.query_params.get("labelSelector") and not request.query_params.get("fieldSelector"):
        more["remainingItemCount"] = found.left
    return found.items, snapshot.version, more


def _snapshot(node: NodeApi, resource: Resource, namespace: str | None) -> Snapshot:
    version = node.store.resource_version
    if is_only_stored(resource):
        return Snapshot(version, [record.doc for record in node.store.list(resource.kind, namespace)])
    return Snapshot(version, sorted(read_list(node, resource, namespace), key=place_of))


def _snapshots(request: Request) -> Snapshots:
    found = getattr(request.app.state, "snapshots", None)
    if not isinstance(found, Snapshots):
        found = request.app.state.snapshots = Snapshots()
    return found
