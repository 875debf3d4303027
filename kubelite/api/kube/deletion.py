"""DELETE of one object, with DeleteOptions: grace period, propagation, preconditions. Collections are deleted in
writes/collection.py."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kubelite.api.delete_options import delete_options, dry_run
from kubelite.api.kube.resources import Resource, complete, read_one
from kubelite.api.node import NodeApi, Propagation, RecordLike
from kubelite.api.warnings import warning_header
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from kubelite.kube.objects import IMMORTAL, NAMESPACE, SOURCE

if TYPE_CHECKING:
    from kubelite.sources.edits import Plan

_CLAIM, _SERVICE = "PersistentVolumeClaim", "Service"
#: Kinds whose deletion is answered with the object (ReturnDeletedObject in Kubernetes pkg/registry/*/*/storage).
_ANSWERED = frozenset(
    {
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "ResourceQuota",
        "Service",
        "ServiceAccount",
        "StorageClass",
    }
)
_POLICIES: tuple[Propagation, ...] = ("Background", "Foreground", "Orphan")


async def deleted(request: Request, node: NodeApi, resource: Resource, namespace: str, name: str) -> Response:
    """Delete an object, or begin its deletion. Its manifest or its owner may create it again: a warning says so."""
    if resource.kind == NAMESPACE and name in IMMORTAL:
        raise ApiError("Forbidden", f'namespaces "{name}" is forbidden: this namespace may not be deleted')
    doc = read_one(node, resource, namespace, name)
    if doc is None:
        raise not_found(resource.plural, name)
    if resource.kind == NAMESPACE:
        return await _deleted_namespace(request, node, resource, doc)
    metadata = doc["metadata"]
    source = (metadata.get("annotations") or {}).get(SOURCE, "")
    if source and request.query_params.get("manifest") != "keep":
        return await _removed(request, node, resource, doc, source)
    # A claim that a workload's controller created is in no manifest. All others are deleted with theirs.
    if not is_deleted_by_name(resource) or (resource.kind == _CLAIM and source):
        words = f"{resource.kind} {name} is defined by {source or 'the node itself'}"
        remedy = f": delete it with `kubelite delete -f {source}`" if source else " and cannot be deleted"
        raise ApiError("MethodNotAllowed", words + remedy)
    options = await delete_options(request)
    kind = resource.kind.lower()
    check_preconditions(options, doc)
    if dry_run(request.query_params.getlist("dryRun"), options.get("dryRun")):
        policy(options)
        return JSONResponse(doc)
    record = await delete_record(node, resource, doc, options)
    if record is None:
        raise not_found(resource.plural, name)
    headers = warning_header([recreated(kind, metadata, source)])
    left = read_one(node, resource, namespace, name)
    answer = outcome(resource, complete(resource, record.doc), left)
    if request.query_params.get("manifest") == "keep":  # of kubelite's own commands
        answer = complete(resource, record.doc)
    return JSONResponse(answer, headers=headers)


def outcome(resource: Resource, deleted: Json, left: Json | None) -> Json:
    """Return the answer to a deletion: what is left of the object while it ends; after its end the object as it was, or
    for most kinds a Status (apiserver pkg/registry/generic/registry/store.go, finalizeDelete). `left`: the object of
    that name now."""
    metadata = deleted["metadata"]
    if left is not None and left["metadata"].get("uid") == metadata.get("uid"):
        return left
    if resource.kind in _ANSWERED:
        return deleted
    details = {"name": metadata["name"], "kind": resource.plural, "uid": metadata.get("uid", "")}
    details |= {"group": resource.group} if resource.group else {}
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}}
    return {**head, "status": "Success", "details": details}


async def delete_record(node: NodeApi, resource: Resource, doc: Json, options: Json) -> RecordLike | None:
    """Delete an object that no manifest defines. Return what is recorded of it; None if it is gone already."""
    metadata = doc["metadata"]
    if (
        resource.kind == _SERVICE
    ):  # what the controller of Services has made goes with it, whatever the policy
        return await node.delete_workload(metadata["uid"], "Background")
    if resource.workload or resource.kind == _CLAIM:
        return await node.delete_workload(metadata["uid"], policy(options))
    grace = options.get("gracePeriodSeconds")
    return await node.delete_pod(metadata["namespace"], metadata["name"], grace=grace)


async def _removed(request: Request, node: NodeApi, resource: Resource, doc: Json, source: str) -> Response:
    """Remove the object from its manifest, and so from the node."""
    from kubelite.api.kube.writes.writing import remove

    options, metadata = await delete_options(request), doc["metadata"]
    check_preconditions(options, doc)
    refuse_orphans(options, source)
    if dry_run(request.query_params.getlist("dryRun"), options.get("dryRun")):
        return JSONResponse(doc)
    name, namespace = metadata["name"], metadata.get("namespace", "")

    def check() -> None:
        """Check again what another write, for which this one waited, may have changed."""
        now = read_one(node, resource, namespace, name)
        if now is None:
            raise not_found(resource.plural, name)
        check_preconditions(options, now)

    await remove(request, node, doc, source, check)
    grace = options.get("gracePeriodSeconds")
    if resource.kind == "Pod" and grace is not None:
        await node.delete_pod(namespace, name, grace=grace)
    return JSONResponse(outcome(resource, doc, read_one(node, resource, namespace, name)))


def refuse_orphans(options: Json, source: str) -> None:
    """Raise BadRequest if what belongs to an object of this file would have to stay."""
    if policy(options) == "Orphan":
        words = f"objects of the manifest directory are deleted with what belongs to them ({source})"
        raise bad_request(f"propagationPolicy Orphan is not supported: {words}")


def check_preconditions(options: Json, doc: Json) -> None:
    """Raise Conflict if the object is not the one that the preconditions of DeleteOptions name."""
    given, metadata = options.get("preconditions") or {}, doc["metadata"]
    for field in ("uid", "resourceVersion"):
        if given.get(field) and given[field] != metadata.get(field):
            words = f"the {field} in the precondition, {given[field]}, is not that of"
            raise ApiError("Conflict", f'{words} {doc["kind"].lower()} "{metadata["name"]}"')


def is_deleted_by_name(resource: Resource) -> bool:
    """Whether an object in no manifest can be deleted."""
    return resource.workload or resource.kind in (_CLAIM, _SERVICE, "Pod")


def recreated(kind: str, metadata: Json, source: str) -> str:
    """Return the warning that a deleted object is created again; "" if it is not."""
    name = metadata["name"]
    if source:
        remedy = f"delete it with `kubelite delete -f {source}`"
        return f"{source} still defines {kind} {name}, so it is recreated; {remedy}"
    owner = next((ref for ref in metadata.get("ownerReferences") or () if ref.get("controller")), None)
    if owner is None:
        return ""
    return f"{kind} {name} belongs to {owner['kind'].lower()} {owner['name']}, which may replace it"


def policy(options: Json) -> Propagation:
    """Return the propagation policy of DeleteOptions. Source: Kubernetes apiserver pkg/registry/rest/delete.go."""
    given = options.get("propagationPolicy")
    if given is not None and options.get("orphanDependents") is not None:
        raise bad_request("orphanDependents and deletionPropagation cannot be both set")
    if given is None:
        return "Orphan" if options.get("orphanDependents") else "Background"
    found = next((one for one in _POLICIES if one == given), None)
    if found is None:
        raise bad_request(f"propagationPolicy must be one of {', '.join(_POLICIES)}, not {given!r}")
    return found


async def _deleted_namespace(request: Request, node: NodeApi, resource: Resource, before: Json) -> Response:
    """Begin the deletion of a namespace, and answer with it.

    The directory is the truth: a namespace that documents name would come back. They are removed from their files in
    place, and the warning names these; the history keeps the versions before."""
    from collections import Counter

    from kubelite.sources import edits

    options, name = await delete_options(request), before["metadata"]["name"]
    check_preconditions(options, before)
    if dry_run(request.query_params.getlist("dryRun"), options.get("dryRun")):
        return JSONResponse(before)
    await node.rescan()
    plan = _removal([entry["file"] for entry in node.manifests()], name)
    if plan.writes:
        edits.execute(plan, node.manifests_dir)
    await node.end_namespace(name)
    await node.rescan()
    doc = read_one(node, resource, "", name) or before  # an empty one is gone already
    files = Counter(outcome.file for outcome in plan.outcomes if outcome.key.kind != NAMESPACE)
    headers = warning_header([_warning(name, files)] if files else [])
    return JSONResponse(doc, headers=headers)


def _removal(paths: list[str], name: str) -> Plan:
    """Plan the removal of all documents that name a namespace, and of its own."""
    from kubelite.sources import edits

    files = edits.read_candidates(paths, [edits.Key(NAMESPACE, "", name)])
    keys = [
        key
        for path, text in files.items()
        for chunk in edits.split(text, path)
        for key in chunk.keys
        if key.namespace == name or (key.kind, key.name) == (NAMESPACE, name)
    ]
    return edits.plan_remove(files, keys)


def _warning(name: str, files: Mapping[str, int]) -> str:
    places = ", ".join(f"{os.path.basename(path)} ({count})" for path, count in sorted(files.items()))
    return f"the documents of namespace {name} are removed from the manifests: {places}"
