"""gRPC to and from plugins over unix sockets, by grpclib, which speaks HTTP/2 with h2.

With h2, it costs the daemon 3 MB. grpcio would cost 10 MB, and has threads. Only a node with a plugin imports this.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.server import Server

from kubelite.plugins import wire

if TYPE_CHECKING:
    from grpclib._typing import IServable

R = TypeVar("R")
CONNECT_SECONDS = 10.0  # as kubelet waits (pkg/kubelet/cm/devicemanager/plugin/v1beta1/client.go)


class PluginError(Exception):
    """A plugin refused a call. The message is that of a Go client, which users know from kubelet."""


class PluginGone(PluginError):
    """A plugin does not answer, or its answer cannot be read."""


class Codec(CodecBase):
    """Messages as `kubelite.plugins.wire` writes and reads them."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return wire.encode(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return wire.decode(data, message_type)


def grpc_server(service: IServable) -> Server:
    return Server([service], codec=Codec())


class PluginChannel:
    """A connection to the service at the socket `name` in `directory`. It is made with the first call."""

    def __init__(self, directory: str, name: str) -> None:
        # A socket's address has at most 107 bytes, and a directory may be longer: the descriptor stands for it.
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._channel = Channel(path=f"/proc/self/fd/{self._directory}/{name}", codec=Codec())

    def close(self) -> None:
        self._channel.close()
        with contextlib.suppress(OSError):
            os.close(self._directory)

    async def connect(self) -> None:
        """Raises PluginGone."""
        with _as_plugin_errors():
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._channel.__connect__()

    async def call(self, method: str, request: object, response: type[R], seconds: float) -> R:
        """Call a method, for example `/v1beta1.DevicePlugin/Allocate`. Raises PluginError."""
        with _as_plugin_errors():
            async with asyncio.timeout(seconds):
                found = await UnaryUnaryMethod(self._channel, method, type(request), response)(request)
        assert isinstance(found, response)
        return found

    async def stream(self, method: str, request: object, response: type[R]) -> AsyncIterator[R]:
        """Yield the messages of a stream until the plugin ends it. Raises PluginError."""
        with _as_plugin_errors():
            opened = UnaryStreamMethod(self._channel, method, type(request), response).open()
            async with opened as stream:
                await stream.send_message(request, end=True)
                async for message in stream:
                    assert isinstance(message, response)
                    yield message


@contextlib.contextmanager
def _as_plugin_errors() -> Iterator[None]:
    try:
        yield
    except GRPCError as error:
        words = f"rpc error: code = {code_name(error.status)} desc = {error.message or ''}"
        raise (PluginGone if error.status is Status.UNAVAILABLE else PluginError)(words) from error
    except TimeoutError as error:
        words = "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
        raise PluginError(words) from error
    except (StreamTerminatedError, ProtocolError, wire.WireError, OSError) as error:
        raise PluginGone(f"rpc error: code = Unavailable desc = {error or type(error).__name__}") from error


def code_name(status: Status) -> str:
    """Return a status as Go writes it: DeadlineExceeded."""
    return "".join(part.capitalize() for part in status.name.split("_"))
