"""`…/pods/NAME/exec`, `attach` and `portforward`: over WebSocket, or over SPDY/3.1."""

from __future__ import annotations

import functools

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from kubelite.api.errors import from_exception, status
from kubelite.api.kube.logs import container_status, pick_container
from kubelite.api.kube.routes import flag, node_of, pod_of
from kubelite.api.kube.streams import websocket
from kubelite.api.upgrade import Upgraded, chosen_protocol, has_body, upgrades
from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.json import Json
from kubelite.streaming.session import ExecSession, is_size
from runtime.errors import RuntimeFault, StartError


async def pod_exec(ws: WebSocket) -> None:
    protocol = websocket.choose_protocol(ws.scope.get("subprotocols", []))
    try:
        _known(protocol, "exec")
        session = await _exec(ws)
    except StartError as error:
        await ws.accept(subprotocol=protocol)
        await websocket.refuse(ws, str(error), tty=flag(ws, "tty"))
    except (ApiError, RuntimeFault) as error:
        await websocket.deny(ws, error)
    else:
        await websocket.serve(ws, session, str(protocol))


async def pod_attach(ws: WebSocket) -> None:
    protocol = websocket.choose_protocol(ws.scope.get("subprotocols", []))
    try:
        _known(protocol, "attach")
        session = await _attach(ws)
    except (ApiError, RuntimeFault) as error:
        await websocket.deny(ws, error)
    else:
        await websocket.serve(ws, session, str(protocol))


def _known(protocol: str | None, what: str) -> None:
    if protocol is None:
        offered = ", ".join(websocket.PROTOCOLS)
        raise bad_request(
            f"{what} supports only the WebSocket subprotocols {offered}; none of them was offered"
        )


async def _exec(connection: HTTPConnection) -> ExecSession:
    """Start the program of a request. Raises ApiError, RuntimeFault; StartError if it cannot be executed."""
    pod, container, command = _exec_target(connection)
    return await node_of(connection).exec(
        pod,
        container,
        command,
        stdin=flag(connection, "stdin"),
        tty=flag(connection, "tty"),
        width=size_of(connection, "width"),
        height=size_of(connection, "height"),
    )


def _exec_target(connection: HTTPConnection) -> tuple[Json, str, list[str]]:
    """Return pod, container and command of an exec request. Raises NotFound for an unknown pod, BadRequest for an
    invalid container or command."""
    pod = pod_of(connection)
    container = pick_container(pod, connection.query_params.get("container", ""))
    command = connection.query_params.getlist("command")
    if not command:
        raise bad_request("you must specify at least one command for the container")
    if "running" not in container_status(pod, container).get("state", {}):
        raise bad_request(f'container "{container}" in pod "{pod["metadata"]["name"]}" is not running')
    return pod, container, command


async def _attach(connection: HTTPConnection) -> ExecSession:
    pod = pod_of(connection)
    container = pick_container(pod, connection.query_params.get("container", ""))
    if "running" not in container_status(pod, container).get("state", {}):
        raise bad_request(f"container {container} not found in pod {pod['metadata']['name']}, or not running")
    session = await node_of(connection).attach(pod, container, stdin=flag(connection, "stdin"))
    if session.tty:
        await session.resize(size_of(connection, "width"), size_of(connection, "height"))
    return session


def size_of(connection: HTTPConnection, name: str) -> int:
    text = connection.query_params.get(name, "")
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    return size if is_size(size) else 0


async def exec_over_spdy(request: Request) -> Response:
    from kubelite.streaming import remote_command

    _exec_target(request)
    protocol = _spdy(request, "exec", remote_command.PROTOCOL)
    expected = _expected(request)
    try:
        session = await _exec(request)
    except StartError as error:
        words = str(error)
        return Upgraded(protocol, lambda connection: remote_command.refuse(connection, words, expected))
    return _serving(protocol, session, expected)


async def attach_over_spdy(request: Request) -> Response:
    from kubelite.streaming import remote_command

    pod_of(request)
    protocol = _spdy(request, "attach", remote_command.PROTOCOL)
    return _serving(protocol, await _attach(request), _expected(request))


def _serving(protocol: str, session: ExecSession, expected: frozenset[str]) -> Response:
    from kubelite.streaming import remote_command

    def describe(error: RuntimeFault) -> Json:
        return status(from_exception(error))

    return Upgraded(
        protocol,
        functools.partial(remote_command.serve, session=session, expected=expected, describe=describe),
        session.close,
    )


def _expected(request: Request) -> frozenset[str]:
    from kubelite.streaming.remote_command import streams_of

    given = {name: flag(request, name) for name in ("stdin", "stdout", "stderr", "tty")}
    if not (given["stdin"] or given["stdout"] or given["stderr"]):
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return streams_of(**given)


async def pod_portforward(request: Request) -> Response:
    from kubelite.streaming import port_forward

    pod, node = pod_of(request), node_of(request)
    protocol = _spdy(request, "port-forward", port_forward.PROTOCOL)
    dial = functools.partial(node.dial, pod)
    return Upgraded(protocol, lambda connection: port_forward.serve(connection, dial))


def _spdy(request: Request, what: str, known: str) -> str:
    """Return the protocol of a request to upgrade. Raises BadRequest for another request."""
    if not upgrades(request.scope):
        raise bad_request(f"{what} needs an upgrade of the connection: to a WebSocket, or to SPDY/3.1")
    if has_body(request.scope):
        raise bad_request("a request to upgrade the connection has no body")
    if (protocol := chosen_protocol(request, known)) is None:
        raise bad_request(f"{what} supports only the protocol {known}, which was not offered")
    return protocol


def routes() -> list[BaseRoute]:
    pod = "/api/v1/namespaces/{namespace}/pods/{name}"
    either = ["GET", "POST"]
    return [
        WebSocketRoute(f"{pod}/exec", pod_exec),
        Route(f"{pod}/exec", exec_over_spdy, methods=either),
        WebSocketRoute(f"{pod}/attach", pod_attach),
        Route(f"{pod}/attach", attach_over_spdy, methods=either),
        Route(f"{pod}/portforward", pod_portforward, methods=either),
    ]
