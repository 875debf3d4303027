"""`PATCH …/pods/NAME/status`: set pod conditions that other programs maintain, for example for readiness gates.

A strategic merge patch merges conditions by type. A merge patch (RFC 7386) replaces the whole list, except for the
conditions that the node maintains.
"""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.kube.ephemeral import MERGE, STRATEGIC, body_of
from kubelite.api.kube.resources import RESOURCES, complete
from kubelite.api.kube.routes import node_of, pod_of
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from kubelite.kube.objects import NODE_CONDITIONS
from kubelite.kube.times import rfc3339


async def patch_status(request: Request) -> Response:
    pod, name = pod_of(request), request.path_params["name"]
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind not in (STRATEGIC, MERGE):
        words = f"a patch must be {STRATEGIC} or {MERGE}, not {kind or 'untyped'}"
        raise ApiError("UnsupportedMediaType", words)
    status = (await body_of(request)).get("status") or {}
    if not isinstance(status, dict):
        raise bad_request("status must be an object")
    if others := [key for key in status if key != "conditions" and not key.startswith("$")]:
        words = f"status.{others[0]}: only the node may set it, and clients may set conditions of their own"
        raise ApiError("Invalid", f'Pod "{name}" is invalid: {words}')
    given = status.get("conditions") or []
    if not isinstance(given, list) or not all(map(_is_condition, given)):
        raise bad_request("status.conditions must be a list of objects with a type, and with texts as values")
    own = [c for c in given if c["type"] in NODE_CONDITIONS]
    if kind == STRATEGIC and own:
        raise ApiError(
            "Invalid", f'Pod "{name}" is invalid: status.conditions: only the node may set {own[0]["type"]}'
        )
    foreign = [c for c in given if c["type"] not in NODE_CONDITIONS]
    now = rfc3339(time.time())

    def change(doc: Json) -> Json:
        before = (doc.get("status") or {}).get("conditions") or []
        after = conditions(before, foreign, whole=kind == MERGE, now=now)
        return {**doc, "status": {**(doc.get("status") or {}), "conditions": after}}

    record = await node_of(request).change_object(pod["metadata"]["uid"], change)
    if record is None:
        raise not_found("pods", name)
    return JSONResponse(complete(RESOURCES["pods"], record.doc))


def _is_condition(given: object) -> bool:
    """Whether an item of a patch can be stored: everything that shows conditions reads texts."""
    if not isinstance(given, dict) or not given.get("type"):
        return False
    return all(
        isinstance(value, str) or value is None or (key == "observedGeneration" and type(value) is int)
        for key, value in given.items()
    )


def conditions(before: list[Json], given: list[Json], *, whole: bool, now: str) -> list[Json]:
    """Return the conditions updated with those given. A condition whose status changes gets a transition time. With
    `whole`, conditions that are not given are removed, except for the node's."""
    known = {c["type"]: c for c in before}
    after = {t: c for t, c in known.items() if not whole or t in NODE_CONDITIONS}
    for condition in given:
        kind = condition["type"]
        if condition.get("$patch") == "delete":
            after.pop(kind, None)
            continue
        merged = {**known.get(kind, {}), **condition}
        changed = known.get(kind, {}).get("status") != merged.get("status")
        if changed or not merged.get("lastTransitionTime"):
            merged["lastTransitionTime"] = condition.get("lastTransitionTime") or now
        after[kind] = merged
    return list(after.values())


def routes() -> list[BaseRoute]:
    return [Route("/api/v1/namespaces/{namespace}/pods/{name}/status", patch_status, methods=["PATCH"])]
