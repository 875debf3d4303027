"""`…/pods/NAME/ephemeralcontainers`, which `kubectl debug` and `kubelite debug` use.

A request can only add ephemeral containers. A strategic merge patch merges by name, the list's merge key. A merge patch
(RFC 7386) replaces the whole list. PUT sends the whole pod.
"""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.kube.resources import RESOURCES, complete
from kubelite.api.kube.routes import node_of, pod_of
from kubelite.api.kube.writes.bodies import data_of
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from manifests.problems import InvalidObject

FIELD = "ephemeralContainers"
STRATEGIC, MERGE = "application/strategic-merge-patch+json", "application/merge-patch+json"


async def get_ephemeral(request: Request) -> Response:
    return JSONResponse(pod_of(request))


async def change_ephemeral(request: Request) -> Response:
    pod = pod_of(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    body = await body_of(request)
    if request.method == "PUT":
        wanted = _list(body)
    elif kind == STRATEGIC:
        wanted = by_name(pod["spec"].get(FIELD) or [], _list(body))
    elif kind == MERGE:
        wanted = _list(body) if FIELD in (body.get("spec") or {}) else pod["spec"].get(FIELD) or []
    else:
        raise ApiError(
            "UnsupportedMediaType", f"a patch must be {STRATEGIC} or {MERGE}, not {kind or 'untyped'}"
        )
    name = pod["metadata"]["name"]
    if pod["metadata"].get("deletionTimestamp"):
        raise ApiError("Conflict", f'pod "{name}" is being deleted')
    try:
        record = await node_of(request).set_ephemeral(pod["metadata"]["uid"], wanted)
    except InvalidObject as error:
        causes = [
            {"reason": "FieldValueInvalid", "message": p.message, "field": p.field} for p in error.problems
        ]
        raise ApiError("Invalid", f'Pod "{name}" is invalid: {error}', details={"causes": causes}) from error
    if record is None:
        raise not_found("pods", name)
    return JSONResponse(complete(RESOURCES["pods"], record.doc))


def by_name(before: list[Json], patch: list[Json]) -> list[Json]:
    """Return the list with the patch's entries merged by name, new ones at the end."""
    after = {entry["name"]: dict(entry) for entry in before}
    for entry in patch:
        name = entry.get("name")
        if not name:
            raise bad_request(f"map: {json.dumps(entry)} does not contain declared merge key: name")
        if entry.get("$patch") == "delete":
            after.pop(name, None)
        else:
            after[name] = {**after.get(name, {}), **entry}
    return list(after.values())


async def body_of(request: Request) -> Json:
    body = await data_of(request)
    if not isinstance(body, dict) or not isinstance(body.get("spec") or {}, dict):
        raise bad_request("the body and its spec must be objects")
    return body


def _list(body: Json) -> list[Json]:
    found = (body.get("spec") or {}).get(FIELD) or []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise bad_request(f"spec.{FIELD} must be a list of objects")
    return found


def routes() -> list[BaseRoute]:
    pod = "/api/v1/namespaces/{namespace}/pods/{name}"
    return [
        Route(f"{pod}/ephemeralcontainers", get_ephemeral),
        Route(f"{pod}/ephemeralcontainers", change_ephemeral, methods=["PATCH", "PUT"]),
    ]
