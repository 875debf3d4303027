"""Attach to a running container: its stdin and output as an `ExecSession`.

Each session has its own connection to the pod's shim. The shim sends the output from now on; earlier output is in the
log. When the client leaves, the container keeps running. Only a container with `stdinOnce` gets end of input.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from kubelite.kube.json import Json
from runtime.errors import NotFoundError, StateError
from runtime.shim.client import ShimClient, ShimGone
from runtime.shim.protocol import EVENT_EXIT


class Attached:
    """One client that is attached to a container."""

    def __init__(self, client: ShimClient, container_id: str, exit_code: asyncio.Future[int]) -> None:
        self._client = client
        self._id = container_id
        self._exit = exit_code
        self.tty = False
        self.stdin: int | None = None
        self.stdout: int | None = None
        self.stderr: int | None = None

    @classmethod
    async def open(cls, run_dir: str, container_id: str, *, stdin: bool, once: bool, tty: bool) -> Attached:
        """Attach. `once`: the container has `stdinOnce`. Raises StateError if the container does not run, NotFoundError
        if the pod has no sandbox."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def ended(record: Json) -> None:
            if record.get("id") == container_id and not done.done():
                done.set_result(int(record["exit_code"]))

        def on_event(event: Json) -> None:
            if event.get("event") == EVENT_EXIT:
                ended(event["container"])

        def on_close() -> None:
            if not done.done():
                done.set_exception(NotFoundError("the sandbox ended while its output was followed"))
                done.exception()

        client = await ShimClient.connect(run_dir, on_event=on_event, on_close=on_close)
        session = cls(client, container_id, done)
        session.tty = tty
        try:
            await client.subscribe()
            session.stdout, *rest = [*await client.tap(container_id), None]
            session.stderr = rest[0] if len(rest) > 1 else None
            if stdin:
                session.stdin = next(iter(await client.attach(container_id, once=once)), None)
                if session.stdin is None:
                    raise StateError("the container has no stdin: its manifest does not ask for one")
        except BaseException:
            await session.close()
            raise
        return session

    async def resize(self, width: int, height: int) -> None:
        if self.tty and not self._exit.done():
            with contextlib.suppress(NotFoundError, ShimGone):
                await self._client.resize(self._id, width, height)

    def close_stdin(self) -> None:
        """Close the client's end of stdin. The container sees end of input if it has `stdinOnce`."""
        if not self.tty and self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    async def wait(self) -> int:
        return await asyncio.shield(self._exit)

    async def close(self, *, kill: bool = True) -> None:
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd is not None:
                os.close(fd)
        self.stdin = self.stdout = self.stderr = None
        self._client.close()
