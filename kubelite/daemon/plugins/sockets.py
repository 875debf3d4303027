"""Sockets at which plugins and monitoring agents find the node. gRPC is imported with the first connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from grpclib._typing import IServable
    from grpclib.server import Server

log = logging.getLogger(__name__)

NAME = "kubelet.sock"
DIRECTORIES = ("device-plugins", "pod-resources")


def listen(directory: str, *, clear: bool = False) -> socket.socket:
    """Return a listening socket in the directory. `clear`: remove the sockets that plugins left there, which tells
    those that still run to register again (Kubernetes pkg/kubelet/cm/devicemanager/plugin/v1beta1/server.go). Raises
    OSError, and RuntimeFault if another process listens."""
    os.makedirs(directory, mode=0o750, exist_ok=True)
    with _address(directory) as address:
        if _answers(address):
            raise RuntimeFault(f"another process, a kubelet perhaps, listens at {directory}/{NAME}")
        for entry in os.scandir(directory):
            if (clear or entry.name == NAME) and stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                os.unlink(entry.path)
        listening = socket.socket(socket.AF_UNIX)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(64)
        return listening


@contextlib.contextmanager
def _address(directory: str) -> Iterator[str]:
    """Yield the address of the node's socket. It may have at most 107 bytes, and the directory's path may be longer."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{place}/{NAME}"
    finally:
        os.close(place)


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def discard(plugin_dir: str) -> None:
    """Remove the sockets that a killed daemon left below the directory, and the directories if nothing else is in them.
    The sockets of another process stay."""
    for name in DIRECTORIES:
        directory = f"{plugin_dir}/{name}"
        with contextlib.suppress(OSError), _address(directory) as address:
            if not _answers(address):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(address)
                os.rmdir(directory)
    with contextlib.suppress(OSError):
        os.rmdir(plugin_dir)


class LazyServer:
    """A socket whose service is made when the first client connects. `failed(why)` is called if it cannot be."""

    def __init__(
        self, directory: str, service: Callable[[], IServable], failed: Callable[[str], None]
    ) -> None:
        self._directory = directory
        self._service = service
        self._failed = failed
        self._listening: socket.socket | None = None
        self._opening: asyncio.Task[None] | None = None
        self._server: Server | None = None

    async def start(self, *, clear: bool = False) -> bool:
        """Listen. Return whether that works."""
        try:
            self._listening = await asyncio.to_thread(listen, self._directory, clear=clear)
        except (OSError, RuntimeFault) as error:
            self._failed(str(error))
            return False
        asyncio.get_running_loop().add_reader(self._listening, self._open, self._listening)
        return True

    def _open(self, listening: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(listening)
        self._opening = asyncio.create_task(self._serve(listening), name="grpc-server")

    async def _serve(self, listening: socket.socket) -> None:
        try:
            from kubelite.plugins.calls import grpc_server

            self._server = grpc_server(self._service())
        except ImportError as error:  # the extra of the Python package is not installed
            self._failed(f"{error}; install kubelite[plugins]")
            listening.close()
            return
        await self._server.start(sock=listening)

    async def close(self) -> None:
        """Stop listening, and remove the socket. Calls under way are cancelled."""
        if self._listening is None:
            return
        with contextlib.suppress(OSError):
            os.unlink(f"{self._directory}/{NAME}")
        asyncio.get_running_loop().remove_reader(self._listening)
        if self._opening is not None:
            await self._opening
        if self._server is not None:
            self._server.close()  # and not wait_closed, which waits for clients to disconnect
        self._listening.close()
