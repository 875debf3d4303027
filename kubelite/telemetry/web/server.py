"""The HTTP server on the node's TCP port, for Prometheus, load balancers and browsers: /metrics and its parts,
/stats/summary, health checks and the web pages. It is read-only; the API is only on the unix socket. Logs need a token
(access.py)."""

from __future__ import annotations

import contextlib
import gzip
import logging
import socket
from collections.abc import AsyncIterator
from typing import cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from kubelite.api.accepting import Begin, begin_plain
from kubelite.api.kube.logfiles import LogQuery
from kubelite.api.kube.logs import open_log, pick_container
from kubelite.api.node import NodeApi
from kubelite.api.server import serving
from kubelite.kube.errors import ApiError
from kubelite.settings import Settings
from kubelite.telemetry.metrics.pages import Pages
from kubelite.telemetry.node_view import NodeView
from kubelite.telemetry.web import access
from kubelite.telemetry.web.facts import question
from kubelite.telemetry.web.frame import HEADERS, TYPES, address, asset
from kubelite.telemetry.web.guard import Guarded, OwnNames, is_loopback
from kubelite.telemetry.web.scrape import accepts_gzip, scrape, stats_summary
from runtime.errors import RuntimeFault

logger = logging.getLogger(__name__)

TAIL = 1000  # number of a log's last lines that are shown


class _Site:
    """The handlers of all paths."""

    def __init__(self, agent: NodeView, pages: Pages) -> None:
        self._agent = agent
        self._pages = pages

    async def scrape(self, request: Request) -> Response:
        return await scrape(self._pages, request.path_params.get("page", ""), request)

    async def summary(self, request: Request) -> Response:
        return await stats_summary(self._pages, request)

    async def index(self, request: Request) -> Response:
        return _html(request, await self._pages.index(question(request.query_params)))

    async def asset(self, request: Request) -> Response:
        """Return a static file. If the address has the hash of the present content, the browser may cache the file."""
        name = request.url.path[1:]
        kept = str(request.url.query) == address(name).partition("?")[2]
        headers = {**HEADERS, "content-type": TYPES[name]}
        headers["cache-control"] = "max-age=31536000, immutable" if kept else "no-cache"
        return _compressed(request, asset(name), headers)

    async def pod(self, request: Request) -> Response:
        found = await self._pages.pod(request.path_params["namespace"], request.path_params["name"])
        if found is None:
            return PlainTextResponse("no such pod\n", 404)
        return _html(request, found)

    async def log(self, request: Request) -> Response:
        """Return the end of a container's log to a client that has the token."""
        try:
            access.check(self._agent.settings.web_token_file, request.headers.get("authorization", ""))
        except access.Denied as denied:
            if denied.__cause__ is not None:
                logger.warning("%s", denied.__cause__)
            headers = access.CHALLENGE if denied.code == 401 else None
            return PlainTextResponse(f"{denied}\n", denied.code, headers)
        where = request.path_params
        record = self._agent.store.get("Pod", where["namespace"], where["name"])
        if record is None:
            return PlainTextResponse("no such pod\n", 404)
        try:
            container = pick_container(record.doc, where["container"])
            text = open_log(
                cast(NodeApi, self._agent), record.doc, container, LogQuery(tail=TAIL), previous=False
            )
            body = b"".join([chunk async for chunk in text])
        except ApiError as error:
            return PlainTextResponse(f"{error}\n", error.code)
        return PlainTextResponse(body, headers=HEADERS)

    async def discovery(self, request: Request) -> Response:
        """Answer Prometheus' HTTP service discovery with one target: this node, at the requested address."""
        target = request.headers.get("host", "")
        labels = {"__meta_kubelite_node": self._agent.node_name}
        if request.url.scheme == "https":
            labels["__scheme__"] = "https"  # without it, Prometheus scrapes with its configured scheme
        return JSONResponse([{"targets": [target], "labels": labels}] if target else [])

    async def healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        ready, why = self._agent.ready()
        return PlainTextResponse("ok\n" if ready else f"{why}\n", 200 if ready else 503)


def create_app(agent: NodeView, pages: Pages) -> Starlette:
    site = _Site(agent, pages)
    return Starlette(
        routes=[
            Route("/", site.index),
            *(Route(f"/{name}", site.asset) for name in TYPES),
            Route("/pods/{namespace}/{name}", site.pod),
            Route("/pods/{namespace}/{name}/log/{container}", site.log),
            Route("/metrics", site.scrape),
            Route("/metrics/{page}", site.scrape),
            Route("/stats/summary", site.summary),
            Route("/sd", site.discovery),
            Route("/healthz", site.healthz),
            Route("/readyz", site.readyz),
            Route("/livez", site.healthz),
        ]
    )


def _html(request: Request, body: bytes) -> Response:
    return _compressed(request, body, {**HEADERS, "content-type": "text/html; charset=utf-8"})


def _compressed(request: Request, body: bytes, headers: dict[str, str]) -> Response:
    headers["vary"] = "accept-encoding"
    if accepts_gzip(request.headers.get("accept-encoding", "")):
        headers["content-encoding"] = "gzip"
        body = gzip.compress(body, 1)
    return Response(body, headers=headers)


@contextlib.asynccontextmanager
async def serve_metrics(agent: NodeView, pages: Pages, host: str, port: int) -> AsyncIterator[int]:
    """Serve until the block exits. Yield the port, which the kernel chooses if `port` is 0. Raises RuntimeFault if the
    address is not available or the TLS files cannot be used."""
    settings = agent.settings
    begin = _handshakes(settings) if settings.tls_cert_file else begin_plain
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        words = f"cannot listen on {host}:{port} for metrics: {error.strerror} (change --listen, or set it to none)"
        raise RuntimeFault(words, reason="AddressInUse") from error
    app: ASGIApp = create_app(agent, pages)
    if settings.metrics_token_file:
        app = access.Tokens(app, settings.metrics_token_file)
    if settings.client_ca_file:
        app = access.ClientCertificates(app)
    if is_loopback(host):
        app = OwnNames(app, {agent.node_name, socket.gethostname(), *settings.web_hosts.split(",")})
    async with serving(app, [listener], http=Guarded, begin=begin):
        yield int(listener.getsockname()[1])


def _handshakes(settings: Settings) -> Begin:
    from kubelite.telemetry.web.tls import Certificates, Files, Handshakes

    files = Files(settings.tls_cert_file, settings.tls_private_key_file, settings.client_ca_file)
    return Handshakes(Certificates(files)).begin
