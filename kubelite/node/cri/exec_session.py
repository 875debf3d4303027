"""An exec session of the API: the descriptors, terminal size and exit code of a command in a container."""

from __future__ import annotations

import asyncio
import contextlib
import os

from kubelite.kube.json import Json
from runtime.errors import NotFoundError
from runtime.shim.client import ExecSession as ShimExec
from runtime.shim.client import ShimClient, ShimGone
from runtime.shim.protocol import EVENT_EXEC_EXIT, ExecRequest


class Session:
    """A command in a container. It has its own connection to the shim: when that closes, the shim closes the process's
    tty."""

    def __init__(self, client: ShimClient, exit_code: asyncio.Future[int]) -> None:
        self._client = client
        self._exit = exit_code
        self._exec: ShimExec | None = None
        self._container = ""
        self.tty = False
        self.stdin: int | None = None
        self.stdout: int | None = None
        self.stderr: int | None = None

    @classmethod
    async def open(cls, run_dir: str, request: ExecRequest) -> Session:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_event(event: Json) -> None:
            mine = event.get("event") == EVENT_EXEC_EXIT and event.get("exec_id") == request.exec_id
            if mine and not done.done():
                done.set_result(int(event["exit_code"]))

        def on_close() -> None:
            if not done.done():
                done.set_exception(NotFoundError("the sandbox ended while the command ran"))
                done.exception()

        client = await ShimClient.connect(run_dir, on_event=on_event, on_close=on_close)
        session = cls(client, done)
        try:
            found = await client.exec(request)
        except BaseException:
            client.close()
            raise
        session._exec, session._container, session.tty = found, request.container_id, request.tty
        if request.tty:
            session.stdin = session.stdout = found.master
        else:
            session.stdin, session.stdout, session.stderr = (
                fd if fd >= 0 else None for fd in (found.stdin, found.stdout, found.stderr)
            )
        return session

    async def resize(self, width: int, height: int) -> None:
        if self._exec is not None and self.tty and not self._exit.done():
            with contextlib.suppress(NotFoundError, ShimGone):
                await self._client.resize(self._exec.exec_id, width, height)

    def close_stdin(self) -> None:
        """Close stdin of a process without a terminal. Input from a terminal ends with an end-of-file character
        instead."""
        if self._exec is not None and not self.tty and self.stdin is not None:
            os.close(self.stdin)
            self.stdin, self._exec.stdin = None, -1

    async def wait(self) -> int:
        return await asyncio.shield(self._exit)

    async def close(self, *, kill: bool = True) -> None:
        found, self._exec = self._exec, None
        if found is None:
            return
        if kill and not self._exit.done():
            _kill_group(found.pid)
        found.close()
        self._client.close()


def _kill_group(pid: int) -> None:
    """End the process of a client that has left: SIGHUP, as from a terminal that hangs up, then SIGKILL."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            import signal

            signal.pidfd_send_signal(descriptor, signal.SIGHUP)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
