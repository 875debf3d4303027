"""DELETE of a pod, a workload or a claim, with DeleteOptions: grace period, propagation policy, preconditions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kubelite.api.delete_options import delete_options, dry_run
from kubelite.api.kube.resources import Resource, complete, read_one
from kubelite.api.node import NodeApi, Propagation, RecordLike
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE

_CLAIM, _SERVICE = "PersistentVolumeClaim", "Service"
_POLICIES: tuple[Propagation, ...] = ("Background", "Foreground", "Orphan")


async def deleted(request: Request, node: NodeApi, resource: Resource, namespace: str, name: str) -> Response:
    """Delete an object, or begin its deletion. Its manifest or its owner may create it again: a warning says so."""
    doc = read_one(node, resource, namespace, name)
    if doc is None:
        raise not_found(resource.plural, name)
    metadata = doc["metadata"]
    source = (metadata.get("annotations") or {}).get(SOURCE, "")
    # A claim that a workload's controller created is in no manifest. All others are deleted with theirs.
    if "delete" not in resource.verbs or (resource.kind == _CLAIM and source):
        words = f"{resource.kind} {name} is defined by {source or 'the node itself'}"
        remedy = f": delete it with `kubelite delete -f {source}`" if source else " and cannot be deleted"
        raise ApiError("MethodNotAllowed", words + remedy)
    options = await delete_options(request)
    kind = resource.kind.lower()
    must = options.get("preconditions") or {}
    for field in ("uid", "resourceVersion"):
        if must.get(field) and must[field] != metadata.get(field):
            words = f'the {field} in the precondition, {must[field]}, is not that of {kind} "{name}"'
            raise ApiError("Conflict", words)
    if dry_run(request.query_params.getlist("dryRun"), options.get("dryRun")):
        policy(options)
        return JSONResponse(complete(resource, doc))
    if (
        resource.kind == _SERVICE
    ):  # what the controller of Services has made goes with it, whatever the policy
        record: RecordLike | None = await node.delete_workload(metadata["uid"], "Background")
    elif resource.workload or resource.kind == _CLAIM:
        record = await node.delete_workload(metadata["uid"], policy(options))
    else:
        record = await node.delete_pod(namespace, name, grace=options.get("gracePeriodSeconds"))
    if record is None:
        raise not_found(resource.plural, name)
    headers = {}
    if text := recreated(kind, metadata, source):
        headers["Warning"] = '299 - "' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return JSONResponse(complete(resource, record.doc), headers=headers)


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
