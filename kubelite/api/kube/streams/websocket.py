"""A program's input and output over WebSocket: the subprotocols v5.channel.k8s.io and v4.channel.k8s.io.

Messages are binary; the first byte is the channel: 0 stdin, 1 stdout, 2 stderr, 3 error (one metav1.Status at the end),
4 resize ({"Width", "Height"}). In v5, the message [255, n] closes channel n; clients end stdin with it. Source:
apimachinery pkg/util/remotecommand/constants.go, client-go tools/remotecommand/websocket.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from kubelite.api.errors import from_exception, status
from kubelite.kube.json import Json
from kubelite.streaming.descriptors import read_fd, write_fd
from kubelite.streaming.session import DRAIN_SECONDS, ExecSession, exit_status, is_size, not_started
from runtime.errors import RuntimeFault

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255

# Limit of input messages that wait for the process. At the limit, nothing more is read from the client, which blocks.
_INPUT_MESSAGES = 64


def choose_protocol(offered: list[str]) -> str | None:
    return next((p for p in PROTOCOLS if p in offered), None)


async def serve(ws: WebSocket, session: ExecSession, protocol: str) -> None:
    """Accept the WebSocket, and copy bytes between it and the session until the process ends or the client
    disconnects. The session is closed in any case."""
    try:
        await ws.accept(subprotocol=protocol)
        await _copy(ws, session, protocol)
    finally:
        await session.close()


async def _copy(ws: WebSocket, session: ExecSession, protocol: str) -> None:
    for end in (session.stdin, session.stdout, session.stderr):
        if end is not None:
            os.set_blocking(end, False)
    pumps = [
        asyncio.create_task(_pump(ws, fd, channel))
        for fd, channel in ((session.stdout, STDOUT), (session.stderr, STDERR))
        if fd is not None
    ]
    input_: asyncio.Queue[bytes | None] = asyncio.Queue(_INPUT_MESSAGES)
    feeding = asyncio.create_task(_feed(session, input_))
    incoming = asyncio.create_task(_receive(ws, session, protocol, input_))
    ended = asyncio.create_task(_wait(session))
    tasks = [*pumps, feeding, incoming, ended]
    try:
        await asyncio.wait((incoming, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return  # the client disconnected; the session is killed below
        if pumps:
            await asyncio.wait(pumps, timeout=DRAIN_SECONDS)
        with contextlib.suppress(WebSocketDisconnect):
            await _send(ws, ERROR, json.dumps(_outcome(ended)).encode())
            await ws.close()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.close(kill=not ended.done() or ended.cancelled())


async def deny(ws: WebSocket, error: Exception) -> None:
    """Refuse the upgrade to a WebSocket with a Status over HTTP."""
    failure = from_exception(error)
    await ws.send_denial_response(JSONResponse(status(failure), failure.code))


async def refuse(ws: WebSocket, sentence: str, *, tty: bool) -> None:
    """Report that the program cannot be executed: as text on stderr (with a tty, on stdout), and by a shell's exit code
    (POSIX: 126, 127)."""
    with contextlib.suppress(WebSocketDisconnect):
        end = "\r\n" if tty else "\n"
        await _send(ws, STDOUT if tty else STDERR, (sentence + end).encode())
        await _send(ws, ERROR, json.dumps(not_started(sentence)).encode())
        await ws.close()


async def _wait(session: ExecSession) -> int:
    return await session.wait()


def _outcome(ended: asyncio.Task[int]) -> Json:
    """Return the final Status. If the pod ended meanwhile, it is a failure without an exit code."""
    error = ended.exception()
    if isinstance(error, RuntimeFault):
        return status(from_exception(error))
    return exit_status(ended.result())


async def _pump(ws: WebSocket, fd: int, channel: int) -> None:
    """Copy output to its channel until end of file. A slow client blocks the process; output is not buffered."""
    with contextlib.suppress(WebSocketDisconnect):
        while data := await read_fd(fd):
            await _send(ws, channel, data)


async def _receive(
    ws: WebSocket, session: ExecSession, protocol: str, input_: asyncio.Queue[bytes | None]
) -> None:
    """Handle input, resizes and closes from the client; return when it disconnects."""
    while True:
        message = await ws.receive()
        if message["type"] == "websocket.disconnect":
            return
        data: bytes = message.get("bytes") or (message.get("text") or "").encode()
        if not data:
            continue
        channel, body = data[0], data[1:]
        if channel == STDIN and body:
            await input_.put(body)
        elif channel == RESIZE:
            await _resize(session, body)
        elif channel == CLOSE and protocol == PROTOCOLS[0] and body[:1] == bytes([STDIN]):
            await input_.put(None)


async def _feed(session: ExecSession, input_: asyncio.Queue[bytes | None]) -> None:
    """Write the client's input to the process; None closes its stdin. Never returns: later input is discarded."""
    while True:
        data = await input_.get()
        if data is None:
            session.close_stdin()
        elif session.stdin is not None:
            # EPIPE: the process no longer reads its stdin; the input is lost, as with a pipe.
            with contextlib.suppress(OSError):
                await write_fd(session.stdin, data)


async def _resize(session: ExecSession, body: bytes) -> None:
    try:
        size = json.loads(body)
        width, height = int(size["Width"]), int(size["Height"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return  # ignore an invalid resize
    if is_size(width) and is_size(height):
        await session.resize(width, height)


async def _send(ws: WebSocket, channel: int, data: bytes) -> None:
    await ws.send_bytes(bytes([channel]) + data)
