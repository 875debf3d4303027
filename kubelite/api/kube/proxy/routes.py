"""`…/pods/NAME/proxy` and `…/services/NAME/proxy`: HTTP to pods, through the API. The rest of this room is imported
with the first request."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from kubelite.api.accepting import left_descriptors, spare_descriptors
from kubelite.api.errors import refuse
from kubelite.api.kube.resources import RESOURCES, read_one
from kubelite.api.kube.routes import node_of
from kubelite.api.upgrade import upgrades
from kubelite.kube.errors import ApiError, not_found

METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
SERVICE_NAME = "kubernetes.io/service-name"
_PARTS = 8  # of a path up to the word proxy: "", api, v1, namespaces, NAMESPACE, RESOURCE, NAME, proxy


async def _proxy(request: Request, kind: str) -> Response:
    """Send a request on. Raises ApiError."""
    from kubelite.api.kube.proxy import location
    from kubelite.api.kube.proxy.exchange import Exchange

    if upgrades(request.scope):
        raise _no_upgrade()
    # As the client wrote it: %2F in a name is no separator.
    parts = request.scope["raw_path"].decode("ascii").split("/", _PARTS)
    base, query = "/".join(parts[:_PARTS]), request.url.query
    if len(parts) == _PARTS and request.method in ("GET", "HEAD"):
        return RedirectResponse(f"{base}/{'?' if query else ''}{query}", 301)
    if left_descriptors() < 2 * spare_descriptors():
        words = "too many connections for the node's limit of file descriptors, please try again later"
        raise ApiError("TooManyRequests", words)
    namespace, node = request.path_params["namespace"], node_of(request)
    wanted = location.given(request.path_params["name"], kind.removesuffix("s"))
    doc = read_one(node, RESOURCES[kind], namespace, wanted.name)
    if doc is None:
        raise not_found(kind, wanted.name)
    if kind == "pods":
        found = location.of_pod(doc, wanted)
    else:
        slices = (record.doc for record in node.store.list("EndpointSlice") if record.namespace == namespace)
        own = (
            one for one in slices if (one["metadata"].get("labels") or {}).get(SERVICE_NAME) == wanted.name
        )
        pods = {one.name: location.addresses_of(one.doc) for one in node.store.list("Pod", namespace)}
        found = random.choice(location.of_service(doc, own, pods, wanted))
    rest = parts[_PARTS] if len(parts) > _PARTS else ""
    return Exchange(found, base, f"/{rest}{'?' if query else ''}{query}")


def _of(kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def proxy(request: Request) -> Response:
        return await _proxy(request, kind)

    return proxy


async def without_upgrade(ws: WebSocket) -> None:
    await refuse(_no_upgrade(), ws.scope, ws.receive, ws.send)


def _no_upgrade() -> ApiError:
    words = "the proxy of pods and Services passes no WebSockets on: use `kubectl port-forward`"
    return ApiError("NotImplemented", words)


def routes() -> list[BaseRoute]:
    found: list[BaseRoute] = []
    for kind in ("pods", "services"):
        path = f"/api/v1/namespaces/{{namespace}}/{kind}/{{name}}/proxy"
        for place in (path, f"{path}/{{path:path}}"):
            found += [Route(place, _of(kind), methods=METHODS), WebSocketRoute(place, without_upgrade)]
    return found
