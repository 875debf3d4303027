"""Connections to ports of a pod over a WebSocket, in the subprotocols of client libraries:

    v4.channel.k8s.io, or none    binary; the first byte of a message is its channel
    v4.base64.channel.k8s.io      text; the channel is a digit, and the rest is in base64

The query names the ports. The node connects to each port once. The i-th port, counted from 0, has two channels: 2·i for
data, and 2·i + 1 for the message of a failed connection. In each channel, the node's first message is the port as two
bytes, little-endian. kubectl does not use this protocol: it tunnels SPDY (kubelite/api/upgrade.py).

Source: Kubernetes cri-streaming pkg/streaming/portforward/websocket.go (NewV4Options, websocketStreamHandler).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Sequence

from starlette.websockets import WebSocket, WebSocketDisconnect

from kubelite.api.kube.streams.channels import CODECS, Codec
from kubelite.api.kube.streams.websocket import messages, send
from kubelite.api.upgrade import DEPARTURE, TUNNEL
from kubelite.kube.errors import bad_request
from kubelite.streaming.departure import Departure
from kubelite.streaming.port_forward import CHUNK, PROTOCOL, Dial, hang_up, reason
from runtime.errors import RuntimeFault

PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")
MOST_PORTS = 5  # in base64 a channel is one digit, so 10 channels; the other subprotocols have the same limit


def ports_of(given: Sequence[str], name: str) -> list[int]:
    """Return the ports that the values of a query parameter name, separated by commas. Raises BadRequest."""
    if not given:
        raise bad_request(f'query parameter "{name}" is required: the ports of the pod, separated by commas')
    texts = [text for value in given for text in value.split(",")]
    for text in texts:
        if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
            raise bad_request(f'unable to parse "{text}" as a port: ports are numbers from 1 to 65535')
    if len(texts) > MOST_PORTS:
        raise bad_request(f"a connection forwards at most {MOST_PORTS} ports, not {len(texts)}")
    return [int(text) for text in texts]


def choose_protocol(offered: Sequence[str]) -> str:
    """Return the first subprotocol offered that is known, "" if none is offered. Raises BadRequest."""
    for one in offered or [""]:
        if one in PROTOCOLS:
            return one
    known = ", ".join(name for name in PROTOCOLS if name)
    raise bad_request(
        f"port-forward supports only the WebSocket subprotocols {known} and {TUNNEL}{PROTOCOL}; "
        "none of them was offered"
    )


async def serve(ws: WebSocket, protocol: str, ports: Sequence[int], dial: Dial) -> None:
    """Accept the WebSocket, and forward until the pod has closed all connections or the client leaves."""
    await ws.accept(subprotocol=protocol or None)
    codec = CODECS[protocol]
    forwards = [_Forward(ws, codec, 2 * number, port) for number, port in enumerate(ports)]
    departure: Departure = ws.scope[DEPARTURE]
    gone = asyncio.ensure_future(departure.left.wait())
    incoming = asyncio.ensure_future(_receive(ws, codec, forwards))
    outgoing = [asyncio.ensure_future(one.run(dial)) for one in forwards]
    ended = asyncio.gather(*outgoing)
    tasks = [gone, incoming, *outgoing]
    try:
        await asyncio.wait((gone, incoming, ended), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            with contextlib.suppress(WebSocketDisconnect):
                await ws.close()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, ended, return_exceptions=True)


class _Forward:
    """The forwarding of one port. `run` connects to the pod and sends its data to the client; `put` sends the client's
    data to the pod."""

    def __init__(self, ws: WebSocket, codec: Codec, channel: int, port: int) -> None:
        self._send = functools.partial(send, ws, codec)
        self._channel = channel
        self._port = port
        self._pod: asyncio.Future[socket.socket | None] = asyncio.get_running_loop().create_future()
        self._writing = asyncio.Lock()

    async def run(self, dial: Dial) -> None:
        """Forward until the pod closes its end."""
        with contextlib.suppress(WebSocketDisconnect):
            for channel in (self._channel, self._channel + 1):
                await self._send(channel, self._port.to_bytes(2, "little"))
            try:
                pod = await dial(self._port)
            except (OSError, RuntimeFault) as failure:
                self._pod.set_result(None)
                words = f"cannot connect to port {self._port} of the pod: {reason(failure)}"
                await self._send(self._channel + 1, words.encode())
                return
            with pod:
                self._pod.set_result(pod)
                try:
                    await self._copy(pod)
                finally:
                    hang_up(pod)
                    async with self._writing:  # the loop must not wait for a descriptor that is closed
                        pod.close()

    async def put(self, data: bytes) -> None:
        """Wait for the connection to the pod, and send it the client's data. Data for a closed connection is
        discarded."""
        pod = await asyncio.shield(self._pod)
        async with self._writing:
            if pod is not None and pod.fileno() >= 0:
                with contextlib.suppress(OSError):
                    await asyncio.get_running_loop().sock_sendall(pod, data)

    async def _copy(self, pod: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while chunk := await loop.sock_recv(pod, CHUNK):
                await self._send(self._channel, chunk)


async def _receive(ws: WebSocket, codec: Codec, forwards: Sequence[_Forward]) -> None:
    """Pass the client's data to the forwards, until `messages` ends. Nothing is buffered: while one pod does not read,
    no further message is received, for other ports either."""
    async for channel, body in messages(ws, codec):
        number, is_error = divmod(channel, 2)
        if body and not is_error and 0 <= number < len(forwards):
            await forwards[number].put(body)
