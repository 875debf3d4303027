"""The messages of WebSocket subprotocols that carry a program's input and output. Pure.

The first byte of a message is its channel: 0 stdin, 1 stdout, 2 stderr, 3 error (once, at the end), 4 resize ({"Width",
"Height"}). The subprotocols differ:

    v5.channel.k8s.io           binary; the message [255, n] of a client closes channel n, which ends stdin
    v4.channel.k8s.io           binary; channel 3 is a metav1.Status
    v4.base64.channel.k8s.io    text; the channel is a digit, and the rest is in base64
    channel.k8s.io, or none     binary; channel 3 is the sentence of a failure, and empty after a success
    base64.channel.k8s.io       text, otherwise as channel.k8s.io

Source: apimachinery pkg/util/remotecommand/constants.go, client-go tools/remotecommand/websocket.go, and for the older
ones Kubernetes cri-streaming pkg/streaming/remotecommand/websocket.go (createWebSocketStreams).
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import NamedTuple

from kubelite.kube.json import Json

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_DIGIT = ord("0")


class Codec(NamedTuple):
    """What a subprotocol is like."""

    base64: bool = False
    status: bool = False  # whether channel 3 is a metav1.Status
    closes: bool = False  # whether a client can close a channel

    def encode(self, channel: int, data: bytes) -> bytes | str:
        if self.base64:
            return f"{channel}{base64.b64encode(data).decode()}"
        return bytes([channel]) + data

    def decode(self, message: bytes) -> tuple[int, bytes]:
        """Return channel and data of a message that is not empty. Raises ValueError."""
        if not self.base64:
            return message[0], message[1:]
        try:
            return message[0] - _DIGIT, base64.b64decode(message[1:], validate=True)
        except binascii.Error as error:
            raise ValueError("a message is not in base64") from error

    def outcome(self, status: Json) -> bytes:
        """Return what channel 3 says of a metav1.Status."""
        if self.status:
            return json.dumps(status).encode()
        return str(status.get("message") or "").encode()


CODECS = {
    "v5.channel.k8s.io": Codec(status=True, closes=True),
    "v4.channel.k8s.io": Codec(status=True),
    "v4.base64.channel.k8s.io": Codec(base64=True, status=True),
    "channel.k8s.io": Codec(),
    "base64.channel.k8s.io": Codec(base64=True),
    "": Codec(),  # of a client that offers none
}


def choose_protocol(offered: list[str]) -> str | None:
    """Return the first subprotocol offered that is known, "" if none is offered; None if it offers others."""
    return next((one for one in offered or [""] if one in CODECS), None)
