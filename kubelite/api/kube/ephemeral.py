"""`…/pods/NAME/ephemeralcontainers`, which `kubectl debug` and `kubelite debug` use, and `…/pods/NAME/attach`.

A request can only add ephemeral containers. A strategic merge patch merges by name, the list's merge key. A merge patch
(RFC 7386) replaces the whole list. PUT sends the whole pod.
"""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from kubelite.api.kube import exec as exec_bridge
from kubelite.api.kube.logs import container_status, pick_container
from kubelite.api.kube.resources import RESOURCES, complete
from kubelite.api.kube.routes import flag, node_of, pod_of, size_of
from kubelite.api.kube.writes.bodies import data_of
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from manifests.problems import InvalidObject
from runtime.errors import RuntimeFault

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


async def pod_attach(ws: WebSocket) -> None:
    protocol = exec_bridge.choose_protocol(ws.scope.get("subprotocols", []))
    try:
        if protocol is None:
            raise bad_request(
                f"attach supports only the WebSocket subprotocols {', '.join(exec_bridge.PROTOCOLS)}"
            )
        pod = pod_of(ws)
        container = pick_container(pod, ws.query_params.get("container", ""))
        if "running" not in container_status(pod, container).get("state", {}):
            raise bad_request(
                f"container {container} not found in pod {pod['metadata']['name']}, or not running"
            )
        session = await node_of(ws).attach(pod, container, stdin=flag(ws, "stdin"))
        if session.tty:
            await session.resize(size_of(ws, "width"), size_of(ws, "height"))
    except (ApiError, RuntimeFault) as error:
        await exec_bridge.deny(ws, error)
    else:
        await ws.accept(subprotocol=protocol)
        await exec_bridge.serve(ws, session, protocol)


async def attach_without_upgrade(request: Request) -> Response:
    pod_of(request)
    raise bad_request("attach needs a WebSocket: upgrade the connection with subprotocol v5.channel.k8s.io")


def routes() -> list[BaseRoute]:
    pod = "/api/v1/namespaces/{namespace}/pods/{name}"
    return [
        Route(f"{pod}/ephemeralcontainers", get_ephemeral),
        Route(f"{pod}/ephemeralcontainers", change_ephemeral, methods=["PATCH", "PUT"]),
        WebSocketRoute(f"{pod}/attach", pod_attach),
        Route(f"{pod}/attach", attach_without_upgrade, methods=["GET", "POST"]),
    ]
