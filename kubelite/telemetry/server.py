"""What Prometheus and load balancers ask: /metrics with its parts, /stats/summary, /healthz and /readyz on the node's
TCP port. All of it is numbers to be read; the API itself is on the unix socket only."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kubelite.api.server import serving
from kubelite.telemetry.exposition import OPENMETRICS, TEXT, prefers_openmetrics
from kubelite.telemetry.webpage import HEADERS
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from kubelite.agent import Agent


def create_app(agent: Agent) -> Starlette:
    pages = agent.pages()

    async def scrape(request: Request) -> Response:
        name = request.path_params.get("page", "")
        if name not in pages.names:
            return PlainTextResponse(f"no page called {name}; there are: {', '.join(pages.names[1:])}\n", 404)
        openmetrics = prefers_openmetrics(request.headers.get("accept", ""))
        compressed = accepts_gzip(request.headers.get("accept-encoding", ""))
        body = await pages.render(name, openmetrics=openmetrics, compressed=compressed)
        headers = {"content-type": OPENMETRICS if openmetrics else TEXT, "vary": "accept, accept-encoding"}
        if compressed:
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)

    async def summary(_: Request) -> Response:
        return JSONResponse(await pages.summary())

    async def index(_: Request) -> Response:
        return HTMLResponse(await pages.index(), headers=HEADERS)

    async def pod(request: Request) -> Response:
        found = await pages.pod(request.path_params["namespace"], request.path_params["name"])
        if found is None:
            return PlainTextResponse("there is no such pod\n", 404)
        return HTMLResponse(found, headers=HEADERS)

    async def discovery(request: Request) -> Response:
        """Prometheus' HTTP service discovery: this node, by the address it was asked at, with its name."""
        target = request.headers.get("host", "")
        labels = {"__meta_kubelite_node": agent.node_name}
        return JSONResponse([{"targets": [target], "labels": labels}] if target else [])

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        ready, why = agent.ready()
        return PlainTextResponse("ok\n" if ready else f"{why}\n", 200 if ready else 503)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/pods/{namespace}/{name}", pod),
            Route("/metrics", scrape),
            Route("/metrics/{page}", scrape),
            Route("/stats/summary", summary),
            Route("/sd", discovery),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/livez", healthz),
        ]
    )


def accepts_gzip(header: str) -> bool:
    """Whether Accept-Encoding names gzip and does not forbid it (RFC 9110, 12.5.3)."""
    for part in header.split(","):
        coding, _, weight = part.replace(" ", "").partition(";q=")
        if coding == "gzip":
            return weight not in ("0", "0.0", "0.00", "0.000")
    return False


@contextlib.asynccontextmanager
async def serve_metrics(agent: Agent, host: str, port: int) -> AsyncIterator[int]:
    """Listen while the context lasts; gives the port (useful when 0 was asked for). Raises RuntimeFault when the
    address cannot be had."""
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        words = (
            f"cannot listen on {host}:{port} for metrics: {error.strerror} (set --listen to another, or none)"
        )
        raise RuntimeFault(words, reason="AddressInUse") from error
    async with serving(create_app(agent), [listener]):
        yield int(listener.getsockname()[1])
