"""A streamed HTTP answer that ends at once when its client goes away.

Starlette's own leaves a generator that has nothing to send (a quiet watch, a quiet log) hanging after the client is
gone, where the ASGI server speaks spec 2.4; here the disconnect message is always listened for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Stream(Response):
    """Sends what the generator yields as it comes; the generator is closed in every case."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.chunks = chunks
        self.on_close = on_close  # runs even when the generator never began
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
            if error is not None and not isinstance(
                error, OSError
            ):  # OSError: the client went away while we wrote
                raise error

    async def _send_all(self, send: Send) -> None:
        headers = [(key, value) for key, value in self.raw_headers if key != b"content-length"]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        async for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)  # a long log must not keep the daemon from everything else
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
