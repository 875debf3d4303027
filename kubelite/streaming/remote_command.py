"""The protocol v4.channel.k8s.io in SPDY streams: the input and output of a program (exec, attach).

Each stream's header `streamtype` says what it carries: stdin, stdout, stderr, resize ({"Width", "Height"} as JSON, one
after another), and error (one metav1.Status at the end). Source: Kubernetes
pkg/kubelet/../cri/streaming/remotecommand/httpstream.go, client-go tools/remotecommand/v4.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Collection
from typing import Any

from kubelite.kube.json import Json
from kubelite.streaming.descriptors import read_fd, write_fd
from kubelite.streaming.session import DRAIN_SECONDS, ExecSession, exit_status, is_size, not_started
from kubelite.streaming.spdy.frames import Reset
from kubelite.streaming.spdy.streams import Connection, Stream
from runtime.errors import RuntimeFault

PROTOCOL = "v4.channel.k8s.io"
OPENING = 30.0  # seconds for the client to open its streams (httpstream.go, streamCreationTimeout)
LINGER = 5.0  # seconds for the client to close the connection at the end
_MOST_RESIZE = 4096  # bytes of a resize that is not complete

#: Returns the Status of a failure.
Describe = Callable[[RuntimeFault], Json]


def streams_of(*, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> frozenset[str]:
    """Return the streams that a client opens. Source: remotecommand/httpstream.go, createStreams."""
    wanted = {"error": True, "stdin": stdin, "stdout": stdout, "stderr": stderr and not tty, "resize": tty}
    return frozenset(name for name, given in wanted.items() if given)


class _Streams:
    """The client's streams, and the task that receives what arrives on them."""

    def __init__(self, connection: Connection, expected: Collection[str]) -> None:
        self._connection = connection
        self._expected = frozenset(expected)
        self._complete = asyncio.Event()
        self.found: dict[str, Stream] = {}
        self.receiving = asyncio.ensure_future(self._receive())

    async def complete(self) -> bool:
        """Wait until the client has opened all of them. Return False if it leaves, or takes too long."""
        waiting = asyncio.ensure_future(self._complete.wait())
        done, _ = await asyncio.wait(
            (waiting, self.receiving), timeout=OPENING, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        return waiting in done

    async def _receive(self) -> None:
        async for stream in self._connection.opened():
            kind = stream.headers.get("streamtype", "")
            if kind not in self._expected or kind in self.found:
                await stream.reset(Reset.PROTOCOL_ERROR)
                continue
            self.found[kind] = stream
            if len(self.found) == len(self._expected):
                self._complete.set()

    async def end(self, outcome: Json) -> None:
        """Send the Status and the ends of all streams. Wait a moment for the client to leave: a connection that is
        closed with unread input is reset, and its last output lost."""
        for kind in ("stdin", "resize"):
            if (stream := self.found.get(kind)) is not None:
                stream.broken()  # what still arrives is dropped
        for kind in ("stdout", "stderr"):
            if (stream := self.found.get(kind)) is not None:
                await stream.finish()
        with contextlib.suppress(ConnectionError):
            await self.found["error"].write(json.dumps(outcome).encode())
        await self.found["error"].finish()
        await asyncio.wait((self.receiving,), timeout=LINGER)

    async def close(self) -> None:
        self.receiving.cancel()
        await asyncio.gather(self.receiving, return_exceptions=True)
        self._connection.close()


async def serve(
    connection: Connection, session: ExecSession, expected: Collection[str], describe: Describe
) -> None:
    """Copy bytes until the process ends or the client disconnects; then the session is closed."""
    streams = _Streams(connection, expected)
    ended = asyncio.ensure_future(session.wait())
    tasks: list[asyncio.Future[Any]] = [ended]
    try:
        if not await streams.complete():
            return
        for descriptor in (session.stdin, session.stdout, session.stderr):
            if descriptor is not None:
                os.set_blocking(descriptor, False)
        outputs = [
            asyncio.ensure_future(_pump(descriptor, streams.found[kind]))
            for kind, descriptor in (("stdout", session.stdout), ("stderr", session.stderr))
            if descriptor is not None and kind in streams.found
        ]
        tasks += outputs
        if (stdin := streams.found.get("stdin")) is not None:
            tasks.append(asyncio.ensure_future(_feed(stdin, session)))
        if (resizes := streams.found.get("resize")) is not None:
            tasks.append(asyncio.ensure_future(_resize(resizes, session)))
        await asyncio.wait((streams.receiving, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return  # the client disconnected; the session is killed below
        if outputs:
            await asyncio.wait(outputs, timeout=DRAIN_SECONDS)
        await streams.end(_outcome(ended, describe))
    finally:
        finished = ended.done() and not ended.cancelled()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.close(kill=not finished)
        await streams.close()


async def refuse(connection: Connection, sentence: str, expected: Collection[str]) -> None:
    """Report that the program cannot be executed: as text on stderr (with a terminal, on stdout), and by an exit
    code."""
    streams = _Streams(connection, expected)
    try:
        if await streams.complete():
            shown = streams.found.get("stderr") or streams.found.get("stdout")
            with contextlib.suppress(ConnectionError):
                if shown is not None:
                    await shown.write(
                        f"{sentence}\r\n".encode() if "resize" in expected else f"{sentence}\n".encode()
                    )
            await streams.end(not_started(sentence))
    finally:
        await streams.close()


def _outcome(ended: asyncio.Future[int], describe: Describe) -> Json:
    """Return the final Status. If the pod ended meanwhile, it is a failure without an exit code."""
    error = ended.exception()
    return describe(error) if isinstance(error, RuntimeFault) else exit_status(ended.result())


async def _pump(descriptor: int, stream: Stream) -> None:
    """Copy output until its end. A slow client blocks the process; output is not buffered."""
    with contextlib.suppress(ConnectionError):
        while data := await read_fd(descriptor):
            await stream.write(data)


async def _feed(stream: Stream, session: ExecSession) -> None:
    """Copy input. A process that does not read its input any more (EPIPE) loses it, as with a pipe."""
    while data := await stream.read():
        if session.stdin is not None:
            with contextlib.suppress(OSError):
                await write_fd(session.stdin, data)
    session.close_stdin()


async def _resize(stream: Stream, session: ExecSession) -> None:
    """Handle resizes; an invalid one ends that."""
    decoder, waiting = json.JSONDecoder(), ""
    while data := await stream.read():
        waiting = (waiting + data.decode("latin-1")).lstrip()
        while waiting:
            try:
                size, end = decoder.raw_decode(waiting)
            except ValueError:
                break
            except RecursionError:
                return
            waiting = waiting[end:].lstrip()
            try:
                width, height = int(size["Width"]), int(size["Height"])
            except (KeyError, TypeError, ValueError, OverflowError):
                return
            if is_size(width) and is_size(height):
                await session.resize(width, height)
        if len(waiting) > _MOST_RESIZE:
            return
