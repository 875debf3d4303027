"""The API as one ASGI application: Kubernetes' routes and kubelite's own, with every error as a metav1.Status."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from kubelite.api.accepting import FewUpgrades
from kubelite.api.errors import failure, from_exception
from kubelite.api.guard import Guard
from kubelite.api.kube import conditions, ephemeral, eviction
from kubelite.api.kube import routes as kube_routes
from kubelite.api.kube.metrics import routes as metrics
from kubelite.api.kube.proxy import nodes as node_proxy
from kubelite.api.kube.proxy import routes as proxy
from kubelite.api.kube.streams import routes as streams
from kubelite.api.kube.writes import routes as writes
from kubelite.api.node import NodeApi
from kubelite.api.own import build, change, cluster, history, images, kubeconfig
from kubelite.api.own import routes as own_routes
from kubelite.api.rbac import reviews
from kubelite.api.secure import tokens
from kubelite.api.secure.certificates import NAMES
from kubelite.kube.errors import ApiError
from runtime.errors import RuntimeFault
from state.errors import StoreError


async def _on_error(_: Request, error: Exception) -> Response:
    return failure(from_exception(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 500
    reason = {404: "NotFound", 405: "MethodNotAllowed"}.get(code, "BadRequest")
    words = {
        404: "the server could not find the requested resource",
        405: f"{request.method} is not supported at {request.url.path}: objects are changed by their manifests "
        "(`kubelite apply`, `edit`, `delete`), and the node by `kubelite node`",
    }
    return await _on_error(request, ApiError(reason, words.get(code, str(getattr(error, "detail", error)))))


def create_app(node: NodeApi) -> Starlette:
    """Create the API of this node."""
    app = Starlette(
        routes=[
            *build.routes(),
            *conditions.routes(),
            *ephemeral.routes(),
            *eviction.routes(),
            *cluster.routes(),
            *images.routes(),
            *kubeconfig.routes(),
            *metrics.routes(),
            *own_routes.routes(),
            *change.routes(),
            *history.routes(),
            *reviews.routes(),
            *tokens.routes(),
            *streams.routes(),
            *proxy.routes(),
            *node_proxy.routes(),
            *writes.routes(),
            *kube_routes.routes(),
        ],
        # kubelite's own client sends "kubelite" as Host over the unix socket. The others are those of the certificate.
        middleware=[
            Middleware(
                Guard, names=("kubelite", node.node_name, *NAMES, node.tokens.issuer.partition("://")[2])
            ),
            Middleware(FewUpgrades),
        ],
        exception_handlers={
            ApiError: _on_error,
            RuntimeFault: _on_error,
            StoreError: _on_error,
            HTTPException: _on_http_error,
            Exception: _on_error,
        },
    )
    app.state.node = node
    app.state.writes = asyncio.Lock()  # of an object's version and its manifest: see kube/writes/writing.py
    return app
