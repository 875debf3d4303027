"""Non-blocking descriptors of pipes and terminals, read and written in the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable

CHUNK = 32 * 1024


async def read_fd(fd: int) -> bytes:
    """Read from a non-blocking descriptor. Return b"" at its end (a pty master reports EIO after the slave is
    closed)."""
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            await _ready(fd, writing=False)
        except OSError:
            return b""


async def write_fd(fd: int, data: bytes) -> None:
    """Write all of `data` to a non-blocking descriptor. Raises OSError if the reader is gone."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _ready(fd, writing=True)


def _ready(fd: int, *, writing: bool) -> Awaitable[None]:
    """Return a future that is done when the descriptor is ready. A pty master may have one for reading and one for
    writing."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    add(fd, ready)
    future.add_done_callback(lambda _: remove(fd))
    return future
