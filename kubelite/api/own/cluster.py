"""/kubelite/v1/cluster: the node's membership in a cluster (`kubelite join`, `kubelite leave`)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.audit import note
from kubelite.api.kube.routes import flag, node_of, number_of
from kubelite.api.node import ClusterApi
from kubelite.api.own.routes import json_body
from kubelite.kube.errors import ApiError, bad_request

LONGEST = 1 << 20  # characters of a kubeconfig


def _cluster(request: Request) -> ClusterApi:
    found = node_of(request).cluster
    if found is None:
        raise ApiError("ServiceUnavailable", "the node is not ready yet")
    return found


async def membership(request: Request) -> Response:
    return JSONResponse(_cluster(request).status())


async def join(request: Request) -> Response:
    """Body: {"line": a join command} or {"kubeconfig": text}. Answer: the membership, with "steps"."""
    wanted = await json_body(request)
    given = [key for key in ("line", "kubeconfig") if isinstance(wanted.get(key), str) and wanted[key]]
    if len(given) != 1 or len(wanted[given[0]]) > LONGEST:
        raise bad_request('joining a cluster needs {"line": a join command} or {"kubeconfig": text}')
    note(request, "join a cluster")
    return JSONResponse(await _cluster(request).join({given[0]: wanted[given[0]]}))


async def leave(request: Request) -> Response:
    """Parameters: force, seconds. Answer: {"steps": sentences}."""
    note(request, "leave the cluster")
    seconds = number_of(request, "seconds", least=1) or 300
    return JSONResponse(await _cluster(request).leave(force=flag(request, "force"), seconds=float(seconds)))


def routes() -> list[BaseRoute]:
    return [
        Route("/kubelite/v1/cluster", membership, methods=["GET"]),
        Route("/kubelite/v1/cluster", join, methods=["POST"]),
        Route("/kubelite/v1/cluster", leave, methods=["DELETE"]),
    ]
