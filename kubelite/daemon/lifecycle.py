"""`kubelite serve`: the life of a node agent, from settings to the last signal.

    lock → forkserver and network helper, side by side → the rest of the program → what wiring.py says

Only what those first steps need is imported at the top: while the helpers come up, in processes of their own, this one
loads the agent. Each step's undo stands beside it on one exit stack, so that a start that fails half-way, and a stop,
run the same way back. Stopping ends the daemon alone: shims and containers live on, and the next start adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from kubelite.settings import Settings
from kubelite.telemetry.tracing import logs
from runtime.errors import RuntimeFault
from runtime.network.client import NetworkClient
from runtime.network.plan import NetworkConfig
from runtime.shim.warm.forkserver_client import Forkserver
from state.errors import StoreError

if TYPE_CHECKING:
    from kubelite.daemon.assembly import Launch
    from kubelite.daemon.node_api import Agent

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


class StartupError(Exception):
    """The node cannot start; the sentence says why."""


def serve(settings: Settings) -> int:
    """Run a node until SIGTERM or SIGINT. Returns the exit code."""
    environ = os.environ.get
    logs.set_up(environ("KUBELITE_LOG_LEVEL", "INFO"), environ("KUBELITE_LOG_FORMAT", "text"))
    gc.disable()  # until the node is ready: nothing of what is loaded is garbage
    try:
        asyncio.run(_serve(settings))
    except (StartupError, RuntimeFault, StoreError, OSError) as error:
        print(f"kubelite: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    life, starting = asyncio.current_task(), True

    def end() -> None:
        """A start that is under way is given up (it may wait for something that never comes); its undo is not."""
        if starting and not stop.is_set() and life is not None:
            life.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        async with node(settings):
            starting = False
            gc.freeze()  # what is there now stays: no collection walks over it again
            gc.enable()
            _give_back()
            log.info("kubelite is ready", extra={"node": settings.node_name, "socket": settings.socket})
            await stop.wait()
            log.info("kubelite stops; its pods live on")
    except asyncio.CancelledError:
        if not starting:
            raise
        log.info("kubelite stops before it was ready; its pods live on")


def _give_back() -> None:
    """To the kernel, what the start has allocated and freed: five megabytes, most of them of the models' schemas. The C
    library would keep it for a second start (malloc_trim(3); musl has none).

    And from now on all that is big, as soon as it is freed. Left alone, the size from which on memory is mapped and
    unmapped follows the biggest piece that was ever freed (mallopt(3)): the text of a metrics page then comes from the
    heap, which keeps what the unluckiest scrape wanted at once. With 500 pods that is 2 to 4 MB."""
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 128 << 10)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 20)
        libc.malloc_trim(0)


@contextlib.asynccontextmanager
async def node(settings: Settings) -> AsyncIterator[Agent]:
    """A whole running node."""
    if os.geteuid() != 0:
        raise StartupError("a node needs root: it makes namespaces, mounts and cgroups (try sudo)")
    started = time.time()
    async with contextlib.AsyncExitStack() as stack:
        _directories(settings)
        stack.enter_context(_locked(settings))
        launch = _launch(settings)
        stack.push_async_callback(_end, launch)
        await asyncio.sleep(
            0.002
        )  # both are on their way, and come up while this process loads the rest of itself
        from kubelite.daemon.assembly import running

        yield await stack.enter_async_context(running(settings, launch, started))


def _launch(settings: Settings) -> Launch:
    """Start the two warm processes, side by side."""
    forkserver = Forkserver(
        shim_cgroup=f"/{settings.cgroup_parent}/shims",
        on_warning=lambda sentence: log.warning("%s", sentence),
    )
    config = NetworkConfig(
        bridge=settings.bridge,
        pod_cidr=settings.pod_cidr,
        state_dir=f"{settings.run_dir}/network",
        node=settings.node_name,
    )

    async def ready() -> Forkserver:
        await forkserver.start()
        return forkserver

    return asyncio.gather(ready(), NetworkClient.start(config), return_exceptions=True)


async def _end(launch: Launch) -> None:
    """End those that came up."""
    with contextlib.suppress(asyncio.CancelledError):
        for one in await launch:
            if not isinstance(one, BaseException):
                await one.close()


def _directories(settings: Settings) -> None:
    try:
        for path, mode in (
            (settings.root, 0o711),
            (settings.run_dir, 0o711),
            (f"{settings.run_dir}/shims", 0o700),
            (f"{settings.run_dir}/network", 0o700),
            (f"{settings.root}/pods", 0o711),
            (f"{settings.log_dir}/pods", 0o755),
            (f"{settings.log_dir}/containers", 0o755),
        ):
            os.makedirs(path, mode=mode, exist_ok=True)
        if settings.manifests == "/etc/kubelite/manifests":
            os.makedirs(settings.manifests, exist_ok=True)
    except OSError as error:
        raise StartupError(f"cannot make {error.filename}: {os.strerror(error.errno or 0)}") from error


@contextlib.contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """One daemon a root and a run directory: the second refuses, naming the first."""
    with contextlib.ExitStack() as stack:
        for directory in dict.fromkeys((settings.root, settings.run_dir)):
            path = f"{directory}/kubelite.pid"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            os.fchmod(descriptor, 0o600)  # whoever may read it may lock it, and keep the node from starting
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                    raise
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise StartupError(f"another kubelite (pid {holder}) already uses {directory}") from None
            with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
                text = f"{os.getpid()}\n".encode()
                os.ftruncate(descriptor, os.pwrite(descriptor, text, 0))
        yield
