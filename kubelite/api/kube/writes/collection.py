"""DELETE of a collection: the objects of a resource that the request selects, all at once.

The documents of all of them are removed from the manifest directory in one plan: either every file is written, or none
stays changed. Objects in no manifest, such as a Deployment's pods, are deleted one after the other after that.

Source: apiserver pkg/registry/generic/registry/store.go (DeleteCollection). An API server stops at the first error, and
what it has deleted by then is gone. Here, what can be refused is refused before anything is deleted.
"""

from __future__ import annotations

from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kubelite.api.delete_options import delete_options, dry_run
from kubelite.api.kube.deletion import (
    check_preconditions,
    delete_record,
    is_deleted_by_name,
    policy,
    refuse_orphans,
)
from kubelite.api.kube.lists.options import check_list_options
from kubelite.api.kube.resources import Resource, list_document, read_list
from kubelite.api.kube.routes import selector
from kubelite.api.kube.writes.writing import carry_out, key_of
from kubelite.api.node import NodeApi
from kubelite.api.warnings import warning_header
from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from kubelite.sources import edits

_NAMED = 5  # objects that a warning names


class Selected(NamedTuple):
    """The objects of a collection by what their deletion is: an edit of a file, a write to the store, or nothing."""

    from_files: list[tuple[Json, str]]  # with the file that defines each
    recorded: list[Json]
    kept: list[Json]  # objects that the node itself makes, and would make again


async def deleted_collection(request: Request, node: NodeApi, resource: Resource, namespace: str) -> Response:
    """Delete the objects of a namespace, or of a resource without namespaces, that the selectors choose. Answer with
    them as they were."""
    _check_scope(request, resource, namespace)
    selects = selector(request, resource)
    options = await delete_options(request)
    policy(options)
    async with request.app.state.writes:
        await node.rescan()
        version = node.store.resource_version
        check_list_options(request.query_params, version)
        docs = [doc for doc in read_list(node, resource, namespace or None) if selects(doc)]
        found = select(resource, docs)
        for doc in docs:
            check_preconditions(options, doc)
        for _, source in found.from_files[:1]:
            refuse_orphans(options, source)
        if not dry_run(request.query_params.getlist("dryRun"), options.get("dryRun")):
            await _delete(request, node, resource, found, options)
    gone = [doc for doc in docs if doc not in found.kept]
    headers = warning_header([_kept(resource, found.kept)] if found.kept else [])
    return JSONResponse(list_document(resource, gone, version), headers=headers)


def _check_scope(request: Request, resource: Resource, namespace: str) -> None:
    """Raise an ApiError if the resource has no such collection."""
    if "deletecollection" not in resource.verbs:
        words = f"{resource.plural} of {resource.group_version} cannot be deleted as a collection"
        remedy = ": delete each by its name" if "delete" in resource.verbs else ""
        raise ApiError("MethodNotAllowed", words + remedy)
    if resource.namespaced and not namespace:
        words = f"{resource.plural} can be deleted as a collection in one namespace, not in all at once"
        raise ApiError("MethodNotAllowed", words)
    if request.query_params.get("manifest") == "keep":
        raise bad_request("manifest=keep is for the deletion of one object")


def select(resource: Resource, docs: list[Json]) -> Selected:
    """Sort the objects of a collection. Pure."""
    found = Selected([], [], [])
    for doc in docs:
        if source := (doc["metadata"].get("annotations") or {}).get(SOURCE, ""):
            found.from_files.append((doc, source))
        else:
            (found.recorded if is_deleted_by_name(resource) else found.kept).append(doc)
    return found


async def _delete(
    request: Request, node: NodeApi, resource: Resource, found: Selected, options: Json
) -> None:
    if found.from_files:
        keys = [key_of(doc) for doc, _ in found.from_files]
        before = edits.read_candidates({source for _, source in found.from_files}, keys)
        plan = edits.plan_remove(before, keys)
        if missing := [str(outcome.key) for outcome in plan.outcomes if outcome.result == "missing"]:
            words = f"the files that define {', '.join(missing[:_NAMED])} have changed meanwhile: try again"
            raise ApiError("Conflict", words)
        await carry_out(request, node, plan, before)
    left = [doc for doc, _ in found.from_files] if _has_grace(resource, options) else []
    for doc in (*left, *found.recorded):
        await delete_record(node, resource, doc, options)


def _has_grace(resource: Resource, options: Json) -> bool:
    """Whether the request says how long pods have to stop. Those of files terminate already, with their own time."""
    return resource.kind == "Pod" and options.get("gracePeriodSeconds") is not None


def _kept(resource: Resource, docs: list[Json]) -> str:
    names = [doc["metadata"]["name"] for doc in docs]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"not deleted, because the node itself makes them: {resource.plural} {', '.join(names[:_NAMED])}{more}"
