"""Programs in containers and connections to pods, over WebSocket or SPDY/3.1: the handlers that the API and the node's
port for a cluster share. The two differ in how a path names a container, and in how parameters are called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from kubelite.api.errors import from_exception, status
from kubelite.api.kube.logs import container_status
from kubelite.api.kube.routes import flag, node_of
from kubelite.api.kube.streams import websocket
from kubelite.api.kube.streams.channels import CODECS, choose_protocol
from kubelite.api.upgrade import Upgraded, chosen_protocol, has_body, upgrades
from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.json import Json
from kubelite.streaming.session import ExecSession, is_size
from runtime.errors import RuntimeFault, StartError

METHODS = ["GET", "POST"]

#: Returns the pod of a request. Raises ApiError.
FindPod = Callable[[HTTPConnection], Json]
#: Returns the pod and the container of a request. Raises ApiError.
Find = Callable[[HTTPConnection], tuple[Json, str]]


class Names(NamedTuple):
    """The names of the query parameters with which a client chooses its streams."""

    stdin: str
    stdout: str
    stderr: str


class Commands:
    """The handlers of exec and attach."""

    def __init__(self, find: Find, names: Names) -> None:
        self._find = find
        self._names = names

    def routes(self, exec_path: str, attach_path: str) -> list[BaseRoute]:
        return [
            WebSocketRoute(exec_path, self.exec),
            Route(exec_path, self.exec_over_spdy, methods=METHODS),
            WebSocketRoute(attach_path, self.attach),
            Route(attach_path, self.attach_over_spdy, methods=METHODS),
        ]

    async def exec(self, ws: WebSocket) -> None:
        try:
            protocol = _subprotocol(ws, "exec")
            session = await self._exec(ws)
        except StartError as error:
            await websocket.refuse(ws, str(error), protocol, tty=flag(ws, "tty"))
        except (ApiError, RuntimeFault) as error:
            await websocket.deny(ws, error)
        else:
            await websocket.serve(ws, session, protocol)

    async def attach(self, ws: WebSocket) -> None:
        try:
            protocol = _subprotocol(ws, "attach")
            session = await self._attach(ws)
        except (ApiError, RuntimeFault) as error:
            await websocket.deny(ws, error)
        else:
            await websocket.serve(ws, session, protocol)

    async def exec_over_spdy(self, request: Request) -> Response:
        from kubelite.streaming import remote_command

        self._exec_target(request)
        protocol = upgrade_protocol(request, "exec", remote_command.PROTOCOL)
        expected = self._expected(request)
        try:
            session = await self._exec(request)
        except StartError as error:
            words = str(error)
            return Upgraded(protocol, lambda connection: remote_command.refuse(connection, words, expected))
        return _serving(protocol, session, expected)

    async def attach_over_spdy(self, request: Request) -> Response:
        from kubelite.streaming import remote_command

        self._find(request)
        protocol = upgrade_protocol(request, "attach", remote_command.PROTOCOL)
        expected = self._expected(request)
        return _serving(protocol, await self._attach(request), expected)

    async def _exec(self, connection: HTTPConnection) -> ExecSession:
        """Start the program of a request. Raises ApiError, RuntimeFault; StartError if it cannot be executed."""
        pod, container, command = self._exec_target(connection)
        return await node_of(connection).exec(
            pod,
            container,
            command,
            stdin=flag(connection, self._names.stdin),
            tty=flag(connection, "tty"),
            width=_size_of(connection, "width"),
            height=_size_of(connection, "height"),
        )

    def _exec_target(self, connection: HTTPConnection) -> tuple[Json, str, list[str]]:
        """Return pod, container and command of an exec request. Raises NotFound for an unknown pod, BadRequest for an
        invalid container or command."""
        pod, container = self._find(connection)
        command = connection.query_params.getlist("command")
        if not command:
            raise bad_request("you must specify at least one command for the container")
        if "running" not in container_status(pod, container).get("state", {}):
            raise bad_request(f'container "{container}" in pod "{pod["metadata"]["name"]}" is not running')
        return pod, container, command

    async def _attach(self, connection: HTTPConnection) -> ExecSession:
        pod, container = self._find(connection)
        if "running" not in container_status(pod, container).get("state", {}):
            words = f"container {container} not found in pod {pod['metadata']['name']}, or not running"
            raise bad_request(words)
        stdin = flag(connection, self._names.stdin)
        session = await node_of(connection).attach(pod, container, stdin=stdin)
        if session.tty:
            await session.resize(_size_of(connection, "width"), _size_of(connection, "height"))
        return session

    def _expected(self, request: Request) -> frozenset[str]:
        from kubelite.streaming.remote_command import streams_of

        stdin, stdout, stderr = (flag(request, name) for name in self._names)
        if not (stdin or stdout or stderr):
            raise bad_request(f"you must specify at least 1 of {', '.join(self._names)}")
        return streams_of(stdin=stdin, stdout=stdout, stderr=stderr, tty=flag(request, "tty"))


def _subprotocol(ws: WebSocket, what: str) -> str:
    if (protocol := choose_protocol(ws.scope.get("subprotocols", []))) is None:
        known = ", ".join(name for name in CODECS if name)
        raise bad_request(
            f"{what} supports only the WebSocket subprotocols {known}; none of them was offered"
        )
    return protocol


def _size_of(connection: HTTPConnection, name: str) -> int:
    text = connection.query_params.get(name, "")
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    return size if is_size(size) else 0


def _serving(protocol: str, session: ExecSession, expected: frozenset[str]) -> Response:
    from kubelite.streaming import remote_command

    def describe(error: RuntimeFault) -> Json:
        return status(from_exception(error))

    return Upgraded(
        protocol,
        functools.partial(remote_command.serve, session=session, expected=expected, describe=describe),
        session.close,
    )


def port_forwards(path: str, find: FindPod, ports: str) -> list[BaseRoute]:
    """Return the routes of port-forward. `ports`: the query parameter that names the ports if the client does not use
    SPDY."""

    async def forward(request: Request) -> Response:
        from kubelite.streaming import port_forward

        pod, node = find(request), node_of(request)
        protocol = upgrade_protocol(request, "port-forward", port_forward.PROTOCOL)
        dial = functools.partial(node.dial, pod)
        return Upgraded(protocol, lambda connection: port_forward.serve(connection, dial))

    async def forward_in_channels(ws: WebSocket) -> None:
        from kubelite.api.kube.streams import port_channels

        try:
            pod = find(ws)
            wanted = port_channels.ports_of(ws.query_params.getlist(ports), ports)
            protocol = port_channels.choose_protocol(ws.scope.get("subprotocols", []))
        except ApiError as error:
            await websocket.deny(ws, error)
        else:
            await port_channels.serve(ws, protocol, wanted, functools.partial(node_of(ws).dial, pod))

    return [WebSocketRoute(path, forward_in_channels), Route(path, forward, methods=METHODS)]


def upgrade_protocol(request: Request, what: str, known: str) -> str:
    """Return the protocol of a request to upgrade. Raises BadRequest for another request."""
    if not upgrades(request.scope):
        raise bad_request(f"{what} needs an upgrade of the connection: to a WebSocket, or to SPDY/3.1")
    if has_body(request.scope):
        raise bad_request("a request to upgrade the connection has no body")
    if (protocol := chosen_protocol(request, known)) is None:
        raise bad_request(f"{what} supports only the protocol {known}, which was not offered")
    return protocol
