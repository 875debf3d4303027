"""Serves the API of the fake node from a thread, on a real unix socket and on a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kubelite.api.app import create_app
from kubelite.api.server import listen_unix, serving
from tests.unit.api.fake_node import FakeNode, pod_doc

T = TypeVar("T")

SO_RCVBUFFORCE = 33  # socket(7)


class Served:
    """`socket` and `port` are served; `run()` runs a coroutine in the server's loop."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = str(root / "k.sock")
        self.port = 0
        self.node: FakeNode
        self.loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._ready: Future[None] = Future()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.node = FakeNode(self.root)
        tcp = socket.create_server(("127.0.0.1", 0))
        tcp.setblocking(False)
        # What a client sends before it leaves reaches the kernel, whether the server reads it or not.
        with contextlib.suppress(PermissionError):
            tcp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self.port = tcp.getsockname()[1]
        async with serving(create_app(self.node), [listen_unix(self.socket), tcp]):
            self._ready.set_result(None)
            await self._stop.wait()
        await self.node.store.close()

    def _thread(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    @classmethod
    @contextlib.contextmanager
    def at(cls, root: Path) -> Iterator[Served]:
        served = cls(root)
        thread = threading.Thread(target=served._thread, daemon=True)
        thread.start()
        served._ready.result(10)
        try:
            yield served
        finally:
            served.loop.call_soon_threadsafe(served._stop.set)
            thread.join(10)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A served node with the pod `web`."""
    with Served.at(tmp_path) as found:
        found.run(found.node.store.create("Pod", pod_doc("web")))
        yield found
