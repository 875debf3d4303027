"""One grpc.health.v1.Health/Check call, as kubelet's gRPC probe makes it (Kubernetes pkg/probe/grpc).

HTTP/2 comes from the h2 library. It is imported with the first such probe, because most nodes have none.
"""

from __future__ import annotations

import asyncio
import os
import struct
from typing import Any
from urllib.parse import unquote

from kubelite.node.probing import exchange

AGENT = "kube-probe/1.36"
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
UNIMPLEMENTED = "12"
_CODES = {
    "4": "DeadlineExceeded",
    "5": "NotFound",
    "13": "Internal",
    "14": "Unavailable",
    "16": "Unauthenticated",
}


async def check(host: str, port: int, service: str, timeout: float) -> tuple[bool, str]:
    """Whether the service is healthy, and kubelet's message."""
    where, connected = exchange.address(host, port), False
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            connected = True
            try:
                return _verdict(await _ask(reader, writer, where, service))
            finally:
                writer.transport.abort()
    except TimeoutError:
        if connected:
            return False, f"timeout: health rpc did not complete within {timeout:g}s"
        return (
            False,
            f'timeout: failed to connect service "{where}" within {timeout:g}s: context deadline exceeded',
        )
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error.strerror or error)
        words = f"transport: Error while dialing: dial tcp {where}: connect: {reason}"
        return False, f'error: health rpc probe failed: connection error: desc = "{words}"'


def _request(service: str) -> bytes:
    """A HealthCheckRequest in its gRPC frame: one string field, number 1."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\x00" + struct.pack(">I", len(message)) + message


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, service: str
) -> tuple[dict[str, str], bytes]:
    """The response's headers and trailers together, and its body."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import ProtocolError

    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    stream = connection.get_next_available_stream_id()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", where),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", AGENT),
    ]
    connection.send_headers(stream, headers)
    connection.send_data(stream, _request(service), end_stream=True)
    answer: dict[str, str] = {}
    body = bytearray()
    ended = False
    while not ended:
        writer.write(connection.data_to_send())
        chunk = await reader.read(16 * 1024)
        if not chunk:
            raise ConnectionResetError(0, "error reading server preface: EOF")
        try:
            events: list[Any] = connection.receive_data(chunk)
        except ProtocolError as error:
            raise ConnectionResetError(0, f"error reading server preface: {error}") from error
        for event in events:
            ended = _take(event, connection, answer, body) or ended
    return answer, bytes(body)


def _take(event: Any, connection: Any, answer: dict[str, str], body: bytearray) -> bool:
    """Store the content of an event. Return whether it is the last one."""
    from h2 import events

    if isinstance(event, events.ResponseReceived | events.TrailersReceived):
        answer.update({str(name): str(value) for name, value in event.headers or ()})
    elif isinstance(event, events.DataReceived):
        if len(body) < 64 * 1024:
            body += event.data or b""
        connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
    elif isinstance(event, events.StreamReset | events.ConnectionTerminated):
        answer.setdefault("grpc-status", "14")
        answer.setdefault("grpc-message", "stream terminated by the server")
        return True
    return isinstance(event, events.StreamEnded)


def _verdict(answer: tuple[dict[str, str], bytes]) -> tuple[bool, str]:
    headers, body = answer
    status, message = headers.get("grpc-status", ""), unquote(headers.get("grpc-message", ""))
    if not status and headers.get(":status") != "200":
        message = f"unexpected HTTP status code received from server: {headers.get(':status')}"
    if status == UNIMPLEMENTED:
        words = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        return False, f"{words}: {message}"
    if status != "0":
        return False, f"error: health rpc probe failed: {message or _CODES.get(status, f'code {status}')}"
    found = serving_status(body)
    if found != 1:
        word = STATUSES[found] if found < len(STATUSES) else str(found)
        return False, f'service unhealthy (responded with "{word}")'
    return True, "service healthy"


def serving_status(body: bytes) -> int:
    """The status in a HealthCheckResponse in its gRPC frame: one enum field, number 1; 0 (UNKNOWN) if it is missing."""
    message = body[5:]
    if message[:1] != b"\x08":
        return 0
    number = 0
    for shift, byte in enumerate(message[1:6]):
        number |= (byte & 0x7F) << (7 * shift)
        if not byte & 0x80:
            break
    return number
