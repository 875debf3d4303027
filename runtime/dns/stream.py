"""DNS over TCP (RFC 7766): queries and answers with a length of two bytes before each."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeAlias

IDLE = 10.0  # seconds until a silent connection is closed
MOST, MOST_OF_ONE = 512, 64  # connections, and those of one client
PIPELINED = 16  # queries of one connection that are answered at once

Handle: TypeAlias = Callable[[bytes, str, str, float], Awaitable[bytes | None]]


async def serve_stream(sock: socket.socket, handle: Handle) -> asyncio.Server:
    """Answer on a listening socket."""
    clients: Counter[str] = Counter()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        client = peer[0] if peer else ""
        if clients.total() >= MOST or clients[client] >= MOST_OF_ONE:
            writer.close()
            return
        clients[client] += 1
        try:
            await _converse(reader, writer, client, handle)
        finally:
            clients[client] -= 1
            if not clients[client]:
                del clients[client]
            writer.close()

    return await asyncio.start_server(connected, sock=sock, limit=1 << 17)


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str, handle: Handle
) -> None:
    """Read queries until the client closes or is silent. Answers go out as they come, in any order (RFC 7766, 7)."""
    room = asyncio.Semaphore(PIPELINED)

    async def answer(query: bytes) -> None:
        try:
            wire = await handle(query, client, "tcp", time.monotonic())
            if wire is not None and not writer.is_closing():
                writer.write(len(wire).to_bytes(2) + wire)
                async with asyncio.timeout(IDLE):
                    await writer.drain()
        except (OSError, TimeoutError):
            writer.close()
        finally:
            room.release()

    async with asyncio.TaskGroup() as tasks:
        while not writer.is_closing():
            try:
                async with asyncio.timeout(IDLE):
                    size = int.from_bytes(await reader.readexactly(2))
                    query = await reader.readexactly(size)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                return
            await room.acquire()
            tasks.create_task(answer(query))
