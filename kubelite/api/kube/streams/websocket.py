"""A program's input and output over WebSocket, in the messages that channels.py describes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import deque
from collections.abc import AsyncIterator

from starlette.websockets import WebSocket, WebSocketDisconnect

from kubelite.api.errors import failure, from_exception, status
from kubelite.api.kube.streams.channels import CLOSE, CODECS, ERROR, RESIZE, STDERR, STDIN, STDOUT, Codec
from kubelite.api.upgrade import DEPARTURE
from kubelite.kube.json import Json
from kubelite.streaming.departure import Departure
from kubelite.streaming.descriptors import read_fd, write_fd
from kubelite.streaming.session import DRAIN_SECONDS, ExecSession, exit_status, is_size, not_started
from runtime.errors import RuntimeFault

INVALID_PAYLOAD = 1007  # RFC 6455, section 7.4.1

#: Bytes that wait for the process. Then no further message is taken, and the client blocks.
MOST_INPUT = 64 << 10


_PIECE = 16 << 10


class _Input:
    """The client's input that waits for the process. None is its end; what comes after it is dropped."""

    def __init__(self) -> None:
        self._waiting: deque[bytes | None] = deque()
        self._size = 0
        self._ended = False
        self._changed = asyncio.Condition()

    async def put(self, data: bytes | None) -> None:
        if self._ended:
            return
        self._ended = data is None
        pieces = [None] if data is None else [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]
        for piece in pieces:
            async with self._changed:
                await self._changed.wait_for(lambda: self._size < MOST_INPUT)
                self._waiting.append(piece)
                self._size += len(piece or b"")
                self._changed.notify_all()

    async def get(self) -> bytes | None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting)
            data = self._waiting.popleft()
            self._size -= len(data or b"")
            self._changed.notify_all()
            return data


async def serve(ws: WebSocket, session: ExecSession, protocol: str) -> None:
    """Accept the WebSocket, and copy bytes between it and the session until the process ends or the client
    disconnects. The session is closed in any case."""
    try:
        await ws.accept(subprotocol=protocol or None)
        await _copy(ws, session, CODECS[protocol])
    finally:
        await session.close()


async def _copy(ws: WebSocket, session: ExecSession, codec: Codec) -> None:
    for end in (session.stdin, session.stdout, session.stderr):
        if end is not None:
            os.set_blocking(end, False)
    pumps = [
        asyncio.create_task(_pump(ws, fd, codec, channel))
        for fd, channel in ((session.stdout, STDOUT), (session.stderr, STDERR))
        if fd is not None
    ]
    input_ = _Input()
    feeding = asyncio.create_task(_feed(session, input_))
    incoming = asyncio.create_task(_receive(ws, session, codec, input_))
    ended = asyncio.create_task(_wait(session))
    departure: Departure = ws.scope[DEPARTURE]
    gone = asyncio.create_task(departure.left.wait())
    tasks = [*pumps, feeding, incoming, ended, gone]
    try:
        await asyncio.wait((incoming, ended, gone), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return  # the client disconnected; the session is killed below
        if pumps:
            await asyncio.wait(pumps, timeout=DRAIN_SECONDS)
        with contextlib.suppress(WebSocketDisconnect):
            await send(ws, codec, ERROR, codec.outcome(_outcome(ended)))
            await ws.close()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.close(kill=not ended.done() or ended.cancelled())


async def deny(ws: WebSocket, error: Exception) -> None:
    """Refuse the upgrade to a WebSocket with a Status over HTTP."""
    await ws.send_denial_response(failure(from_exception(error)))


async def refuse(ws: WebSocket, sentence: str, protocol: str, *, tty: bool) -> None:
    """Accept the WebSocket, and report that the program cannot be executed: as text on stderr (with a tty, on stdout),
    and by a shell's exit code (POSIX: 126, 127)."""
    codec = CODECS[protocol]
    await ws.accept(subprotocol=protocol or None)
    with contextlib.suppress(WebSocketDisconnect):
        end = "\r\n" if tty else "\n"
        await send(ws, codec, STDOUT if tty else STDERR, (sentence + end).encode())
        await send(ws, codec, ERROR, codec.outcome(not_started(sentence)))
        await ws.close()


async def _wait(session: ExecSession) -> int:
    return await session.wait()


def _outcome(ended: asyncio.Task[int]) -> Json:
    """Return the final Status. If the pod ended meanwhile, it is a failure without an exit code."""
    error = ended.exception()
    if isinstance(error, RuntimeFault):
        return status(from_exception(error))
    return exit_status(ended.result())


async def messages(ws: WebSocket, codec: Codec) -> AsyncIterator[tuple[int, bytes]]:
    """Yield the channel and the data of each message until the client leaves. Close the WebSocket, and end, after an
    invalid message."""
    while (message := await ws.receive())["type"] != "websocket.disconnect":
        data: bytes = message.get("bytes") or (message.get("text") or "").encode()
        if not data:
            continue
        try:
            decoded = codec.decode(data)
        except ValueError:
            with contextlib.suppress(WebSocketDisconnect):
                await ws.close(INVALID_PAYLOAD)
            return
        yield decoded


async def _pump(ws: WebSocket, fd: int, codec: Codec, channel: int) -> None:
    """Copy output to its channel until end of file. A slow client blocks the process; output is not buffered."""
    with contextlib.suppress(WebSocketDisconnect):
        while data := await read_fd(fd):
            await send(ws, codec, channel, data)


async def _receive(ws: WebSocket, session: ExecSession, codec: Codec, input_: _Input) -> None:
    """Handle input, resizes and closes from the client, until `messages` ends."""
    async for channel, body in messages(ws, codec):
        if channel == STDIN and body:
            await input_.put(body)
        elif channel == RESIZE:
            await _resize(session, body)
        elif channel == CLOSE and codec.closes and body[:1] == bytes([STDIN]):
            await input_.put(None)


async def _feed(session: ExecSession, input_: _Input) -> None:
    """Write the client's input to the process; None closes its stdin. Never returns."""
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


async def send(ws: WebSocket, codec: Codec, channel: int, data: bytes) -> None:
    """Send a message of a channel. Raises WebSocketDisconnect."""
    message = codec.encode(channel, data)
    if isinstance(message, str):
        await ws.send_text(message)
    else:
        await ws.send_bytes(message)
