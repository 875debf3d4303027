"""The node's server on port 10250, which the cluster's API server asks for logs and by which it reaches
containers, and which monitoring of the cluster scrapes.

Clients prove who they are by a certificate of the cluster's CA or a bearer token; the cluster says what they may do.
Paths and parameters are kubelet's (Kubernetes pkg/kubelet/server/server.go).
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kubelite.api.accepting import FewUpgrades
from kubelite.api.errors import from_exception, refuse, status
from kubelite.api.kube.logs import open_log, pick_container
from kubelite.api.kube.routes import flag, log_query, node_of
from kubelite.api.kube.streams.commands import Commands, Names, port_forwards
from kubelite.api.node import NodeApi
from kubelite.api.secure.connection import Secured
from kubelite.api.secure.users import AUTHENTICATED, KEY, User, user_of
from kubelite.api.server import serving
from kubelite.api.stream import Stream
from kubelite.cluster.authorization import Authorization, asked
from kubelite.cluster.client import ClusterError
from kubelite.cluster.decide.mirrors import has_mirror, mirror_name
from kubelite.cluster.membership import files
from kubelite.kube.errors import ApiError, not_found
from kubelite.kube.json import Json
from kubelite.telemetry.web.tls import Certificates, Files, Handshakes
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from kubelite.telemetry.web.scrape import Measured

log = logging.getLogger(__name__)

_BEARER = b"bearer "


class Authorized:
    """ASGI middleware that admits whom the cluster admits."""

    def __init__(self, app: ASGIApp, authorization: Authorization) -> None:
        self._app = app
        self._authorization = authorization

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            user = user_of(scope) or await self._bearer(scope)
            if user is None:
                raise ApiError("Unauthorized", "Unauthorized")
            wanted = asked(scope.get("method", "GET"), scope["path"])
            for one in wanted:
                if await self._authorization.may(user, one):
                    break
            else:
                subresources = " or ".join(one.subresource for one in wanted)
                what = f"verb={wanted[0].verb}, resource=nodes, subresource={subresources}"
                raise ApiError("Forbidden", f"Forbidden (user={user.name}, {what})")
        except ApiError as error:
            return await refuse(error, scope, receive, send)
        except ClusterError as error:
            words = f"the cluster's API server does not say who may ask: {error}"
            return await refuse(ApiError("ServiceUnavailable", words), scope, receive, send)
        await self._app({**scope, KEY: user}, receive, send)

    async def _bearer(self, scope: Scope) -> User | None:
        given = next((value for key, value in scope["headers"] if key == b"authorization"), b"")
        if given[: len(_BEARER)].lower() != _BEARER:
            return None
        found = await self._authorization.user_of(given[len(_BEARER) :].decode("latin-1").strip())
        return found._replace(groups=tuple(dict.fromkeys((*found.groups, AUTHENTICATED)))) if found else None


def _pod(connection: HTTPConnection) -> Json:
    """Return the pod that a path names, of the uid if it has one. Raises ApiError."""
    given = connection.path_params
    store, node = node_of(connection).store, node_of(connection).node_name
    record = store.get("Pod", given["namespace"], given["name"])
    if record is None and (own := given["name"].removesuffix(mirror_name("", node))) != given["name"]:
        record = store.get("Pod", given["namespace"], own)  # its mirror is named
        if record is not None and has_mirror(record.doc):
            return record.doc
    if record is None or given.get("uid", record.uid) != record.uid:
        raise not_found("pods", given["name"])
    return record.doc


def _container(connection: HTTPConnection) -> tuple[Json, str]:
    pod = _pod(connection)
    return pod, pick_container(pod, connection.path_params["container"])


class Reports(NamedTuple):
    """What the node tells about itself, made when somebody asks."""

    pages: Callable[[], Measured]
    configz: Callable[[], Json]


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


async def pods(request: Request) -> Response:
    items = [record.doc for record in node_of(request).store.list("Pod")]
    return JSONResponse({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})


async def container_logs(request: Request) -> Response:
    pod, container = _container(request)
    text = open_log(node_of(request), pod, container, log_query(request), previous=flag(request, "previous"))
    return Stream(text, media_type="text/plain")


def _reports(reports: Reports) -> list[BaseRoute]:
    async def metrics(request: Request) -> Response:
        from kubelite.telemetry.web.scrape import scrape

        # Kubelet's page has its own metrics; those of containers and objects are other pages here, too.
        return await scrape(reports.pages(), request.path_params.get("page", "agent"), request)

    async def summary(request: Request) -> Response:
        from kubelite.telemetry.web.scrape import stats_summary

        return await stats_summary(reports.pages(), request)

    async def configz(_: Request) -> Response:
        return JSONResponse(reports.configz())

    return [
        Route("/metrics", metrics),
        Route("/metrics/{page}", metrics),
        Route("/stats/summary", summary),
        Route("/configz", configz),
    ]


async def _on_error(_: Request, error: Exception) -> Response:
    failure = from_exception(error)
    return JSONResponse(status(failure), failure.code)


def application(node: NodeApi, reports: Reports, authorization: Authorization) -> ASGIApp:
    """Return the server's application."""
    pod = "{namespace}/{name}"
    place = f"{pod}/{{container}}"
    commands = Commands(_container, Names("input", "output", "error"))
    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            *(Route(f"/healthz/{check}", healthz) for check in ("ping", "log", "syncloop")),
            Route("/pods", pods),
            Route("/runningpods/", pods),
            Route(f"/containerLogs/{place}", container_logs),
            *_reports(reports),
            *commands.routes(f"/exec/{place}", f"/attach/{place}"),
            *commands.routes(f"/exec/{pod}/{{uid}}/{{container}}", f"/attach/{pod}/{{uid}}/{{container}}"),
            *port_forwards(f"/portForward/{pod}", _pod, "port"),
            *port_forwards(f"/portForward/{pod}/{{uid}}", _pod, "port"),
        ],
        middleware=[Middleware(FewUpgrades)],
        exception_handlers={ApiError: _on_error, RuntimeFault: _on_error},
    )
    app.state.node = node
    return Authorized(app, authorization)


@contextlib.asynccontextmanager
async def node_server(
    node: NodeApi, reports: Reports, authorization: Authorization, root: str, port: int
) -> AsyncIterator[None]:
    """Serve until the block exits. Raises RuntimeFault if the port is in use or the certificate cannot be used."""
    where = files.directory(root)
    certificates = Certificates(
        Files(f"{where}/serving.pem", client_ca=f"{where}/ca.crt"), "the node's server"
    )
    try:
        listener = socket.create_server(("", port))
    except OSError as error:
        words = f"cannot listen on port {port} for the cluster: {error.strerror}: is a kubelet running here?"
        raise RuntimeFault(words, reason="AddressInUse") from error
    with contextlib.closing(listener):
        handshakes = Handshakes(certificates)
        async with serving(
            application(node, reports, authorization), [listener], http=Secured, begin=handshakes.begin
        ):
            log.info("the node's server is open to the cluster", extra={"port": port})
            yield
