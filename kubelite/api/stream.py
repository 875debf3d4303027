"""A streamed HTTP answer that ends as soon as its client disconnects.

Starlette's own response does not end: with a server of ASGI spec 2.4, a generator with nothing to send (for example a
watch without changes) keeps waiting after the client has disconnected. `Stream` always listens for the disconnect
message.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Stream(Response):
    """Sends each chunk as soon as the generator yields it. The generator is closed in any case."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.chunks = chunks
        self.on_close = on_close  # called even if the generator never started
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers({"cache-control": "no-cache, private"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait((sending, leaving))
            await self.chunks.aclose()
            if self.on_close is not None:
                self.on_close()
        if not sending.cancelled():
            error = sending.exception()
            # OSError: the client disconnected during a write.
            if error is not None and not isinstance(error, OSError):
                raise error

    async def _send_all(self, send: Send) -> None:
        headers = [(key, value) for key, value in self.raw_headers if key != b"content-length"]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        async for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)  # let other tasks of the daemon run during a long log
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
