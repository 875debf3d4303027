"""A SPDY client for tests, on a socket that is connected."""

from __future__ import annotations

import base64
import os
import socket

from websockets.protocol import CLIENT, Protocol

from kubelite.streaming.spdy.frames import Data, Decoder, Encoder, Frame, RstStream


class Client:
    """A SPDY client on a socket, after the HTTP upgrade."""

    def __init__(self, connection: socket.socket, *, tunnel: bool) -> None:
        self._socket = connection
        self._encoder, self._decoder = Encoder(), Decoder()
        self._frames: list[Frame] = []
        self._messages = Protocol(CLIENT) if tunnel else None
        self.early = b""

    def send(self, *frames: Frame) -> None:
        self.send_bytes(b"".join(self._encoder.encode(frame) for frame in frames))

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(self._wrapped(data))

    def packed(self, *frames: Frame) -> bytes:
        """The bytes of frames, to be sent on the socket."""
        return self._wrapped(b"".join(self._encoder.encode(frame) for frame in frames))

    def _wrapped(self, data: bytes) -> bytes:
        if self._messages is None:
            return data
        self._messages.send_binary(data)
        return b"".join(self._messages.data_to_send())

    def next(self) -> Frame | None:
        """The next frame; None at the end."""
        while not self._frames:
            data, self.early = self.early or self._socket.recv(1 << 16), b""
            if not data:
                return None
            if self._messages is not None:
                self._messages.receive_data(data)
                events = self._messages.events_received()
                data = b"".join(bytes(one.data) for one in events if hasattr(one, "data"))
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    def data_of(self, number: int) -> bytes:
        """What the server sends on a stream, until it finishes that."""
        found = b""
        while True:
            frame = self.next()
            assert not isinstance(frame, RstStream | None) or getattr(frame, "stream", number) != number, (
                frame
            )
            if isinstance(frame, Data) and frame.stream == number:
                found += frame.data
                if frame.fin:
                    return found

    def close(self) -> None:
        self._socket.close()


def upgrade(connection: socket.socket, target: str, protocol: str, *, tunnel: bool = False) -> Client:
    """Request an upgrade to SPDY, or to a WebSocket that tunnels it."""
    lines = [
        f"{'GET' if tunnel else 'POST'} {target} HTTP/1.1",
        "Host: kubelite",
        "Connection: Upgrade",
    ]
    if tunnel:
        key = base64.b64encode(os.urandom(16)).decode()
        lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
        lines += [f"Sec-WebSocket-Protocol: SPDY/3.1+{protocol}"]
    else:
        lines += ["Upgrade: SPDY/3.1", f"X-Stream-Protocol-Version: {protocol}", "Content-Length: 0"]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = connection.recv(4096)
        assert data, answer
        answer += data
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    client = Client(connection, tunnel=tunnel)
    client.early = answer.partition(b"\r\n\r\n")[2]
    return client
