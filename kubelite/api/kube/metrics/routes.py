"""`/apis/metrics.k8s.io/v1beta1`: what the node and its pods use, as metrics-server answers (`kubectl top`).

Nothing is measured unless a client asks. The first question takes `FIRST` seconds, since CPU time is the difference of
two samples; a later one is compared with the sample of the one before.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.kube.metrics.documents import (
    GROUP_VERSION,
    Measured,
    list_of,
    measured,
    node_metrics,
    pod_metrics,
)
from kubelite.api.kube.resources import METRICS, Resource
from kubelite.api.kube.routes import node_of, selector
from kubelite.api.node import NodeApi
from kubelite.kube.errors import not_found
from kubelite.kube.json import Json

FIRST = 2.0  # seconds between the two samples of a first question
SHORTEST = 4.0  # seconds for which an answer is given again: clock ticks distort a shorter difference
LONGEST = 60.0  # seconds after which the earlier sample says nothing about now
_NODES, _PODS = METRICS


class _Meter:
    """The last sample, and what it showed."""

    def __init__(self) -> None:
        self._busy = asyncio.Lock()
        self._sample: Json | None = None
        self._found: Measured | None = None

    async def measure(self, node: NodeApi) -> Measured:
        async with self._busy:
            after = await node.usage()
            age = after["now"] - self._sample["now"] if self._sample is not None else -1
            if self._found is not None and 0 <= age < SHORTEST:
                return self._found
            if self._sample is None or not SHORTEST <= age <= LONGEST:
                self._sample = after
                await asyncio.sleep(FIRST)
                after = await node.usage()
            self._found, self._sample = measured(self._sample, after), after
            return self._found


async def _measured(request: Request) -> Measured:
    state = request.app.state
    if not hasattr(state, "meter"):
        state.meter = _Meter()
    meter: _Meter = state.meter
    return await meter.measure(node_of(request))


async def list_nodes(request: Request) -> Response:
    items = [node_metrics(await _measured(request), node_of(request).node())]
    return _list(request, _NODES, items)


async def get_node(request: Request) -> Response:
    node, name = node_of(request), request.path_params["name"]
    if name != node.node_name:
        raise not_found(_title(_NODES), name)
    return JSONResponse(node_metrics(await _measured(request), node.node()))


async def list_pods(request: Request) -> Response:
    records = node_of(request).store.list("Pod", request.path_params.get("namespace"))
    items = pod_metrics(await _measured(request), [record.doc for record in records])
    return _list(request, _PODS, items)


async def get_pod(request: Request) -> Response:
    namespace, name = request.path_params["namespace"], request.path_params["name"]
    record = node_of(request).store.get("Pod", namespace, name)
    found = pod_metrics(await _measured(request), [record.doc] if record is not None else [])
    if not found:
        raise not_found(_title(_PODS), name)
    return JSONResponse(found[0])


def _list(request: Request, resource: Resource, items: list[Json]) -> Response:
    selects = selector(request, resource)
    return JSONResponse(list_of(resource.kind, [one for one in items if selects(one)]))


def _title(resource: Resource) -> str:
    return f"{resource.plural}.{GROUP_VERSION.partition('/')[0]}"


def routes() -> list[BaseRoute]:
    top = f"/apis/{GROUP_VERSION}"
    return [
        Route(f"{top}/nodes", list_nodes),
        Route(f"{top}/nodes/{{name}}", get_node),
        Route(f"{top}/pods", list_pods),
        Route(f"{top}/namespaces/{{namespace}}/pods", list_pods),
        Route(f"{top}/namespaces/{{namespace}}/pods/{{name}}", get_pod),
    ]
