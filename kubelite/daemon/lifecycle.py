"""`kubelite serve`: the lifecycle of the daemon, from settings to the last signal.

    lock → forkserver → network helper, a fork of it; meanwhile: import the rest of the program → assembly.py

The top of this module imports only what the first steps need. The helpers start in their own processes while this
process imports the rest. Each step registers its cleanup on one exit stack, so a failed start and a stop undo the same
steps.
Stopping ends only the daemon: shims and containers keep running, and the next start adopts them.
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
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from kubelite.kube.background import TaskFailed
from kubelite.settings import Settings, SettingsError
from kubelite.telemetry.tracing import logs
from runtime.errors import RuntimeFault
from runtime.network.client import NetworkClient
from runtime.network.plan import NetworkConfig
from runtime.shim.warm.forkserver_client import Forkserver
from runtime.tree import make_directories
from state.errors import StoreError

if TYPE_CHECKING:
    from kubelite.daemon.assembly import Launch
    from kubelite.daemon.node_api import NodeAgent
    from kubelite.daemon.notify import Notifier

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


class StartupError(Exception):
    """The node cannot start. The message says why."""


def serve(settings: Settings, read: Callable[[], Settings] | None = None) -> int:
    """Run a node until SIGTERM or SIGINT. Return the exit code: 1 if the node cannot start, or if a task stops it with
    an error that nobody expects. On SIGHUP, the daemon calls `read` and applies the new settings, unless it runs in a
    terminal: there, SIGHUP means that the terminal is gone."""
    environ = os.environ.get
    logs.set_up(environ("KUBELITE_LOG_LEVEL", "INFO"), environ("KUBELITE_LOG_FORMAT", "text"))
    gc.disable()  # until the node is ready: startup creates almost no garbage
    try:
        asyncio.run(_serve(settings, None if os.isatty(0) else read))
    except (StartupError, TaskFailed, RuntimeFault, StoreError, OSError) as error:
        print(f"kubelite: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _serve(settings: Settings, read: Callable[[], Settings] | None = None) -> None:
    stop, notifier = asyncio.Event(), _notifier()
    life, starting = asyncio.current_task(), True

    def end() -> None:
        """Stop the node. Cancel a start in progress, which may wait forever. A second signal does not cancel the
        cleanup."""
        if starting and not stop.is_set() and life is not None:
            life.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        async with node(settings) as agent:
            starting = False
            gc.freeze()  # these objects live until exit, so collections need not visit them
            gc.enable()
            _give_back()
            log.info("kubelite is ready", extra={"node": settings.node_name, "socket": settings.socket})
            async with _told(notifier, agent, read):
                await stop.wait()
            log.info("kubelite stops; its pods keep running")
    except asyncio.CancelledError:
        if not starting:
            raise
        log.info("kubelite stops before it is ready; its pods keep running")


def _notifier() -> Notifier | None:
    """Return a notifier if systemd has set NOTIFY_SOCKET."""
    if "NOTIFY_SOCKET" not in os.environ:
        return None
    from kubelite.daemon.notify import Notifier

    return Notifier.take(os.environ, os.getpid())


@contextlib.asynccontextmanager
async def _told(
    notifier: Notifier | None, agent: NodeAgent, read: Callable[[], Settings] | None
) -> AsyncIterator[None]:
    """Tell systemd that the node is ready and, when the block exits, that it stops. Reload the settings on SIGHUP."""

    def status() -> str:
        return f"{len(agent.store.list('Pod'))} pods, {len(agent.cri.running_sandboxes())} running"

    def reload() -> None:
        if notifier is not None:
            notifier.reloading()
        words = _reload(agent, read) if read is not None else ""
        if notifier is not None:
            notifier.ready(words)

    loop = asyncio.get_running_loop()
    pings = None
    if notifier is not None:
        notifier.ready(status())
        pings = asyncio.ensure_future(notifier.run(status))
    if read is not None:
        loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        if read is not None:
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a late reload must not end a node that is stopping
        if notifier is not None:
            notifier.stopping()
        if pings is not None:
            pings.cancel()
            await asyncio.gather(pings, return_exceptions=True)


def _reload(agent: NodeAgent, read: Callable[[], Settings]) -> str:
    """Read the settings again and apply those that can change at run time. Log the result and return it as a sentence.
    If a setting is invalid, nothing changes."""
    from kubelite.daemon.reload import plan_reload

    try:
        plan = plan_reload(agent.settings, read())
    except SettingsError as error:
        log.error("settings not read again: %s", error)
        return f"settings not read again: {error}"
    agent.settings = plan.settings
    for renew in agent.on_reload:
        renew(plan.settings)
    (log.warning if plan.restart else log.info)("%s", plan.words())
    return plan.words()


def _give_back() -> None:
    """Give the memory that startup freed back to the kernel: five megabytes, mostly from the models' schemas. The C
    library would keep it (malloc_trim(3); musl has no such function).

    Also make the C library give large blocks back as soon as they are freed. By default, the mmap threshold grows to
    the largest block ever freed (mallopt(3)). The text of a metrics page would then be allocated on the heap, which
    keeps the size of the largest scrape: 2 to 4 MB with 500 pods."""
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 128 << 10)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 20)
        libc.malloc_trim(0)


@contextlib.asynccontextmanager
async def node(settings: Settings) -> AsyncIterator[NodeAgent]:
    """Run a complete node until the block exits."""
    if os.geteuid() != 0:
        raise StartupError("a node needs root to create namespaces, mounts and cgroups (try sudo)")
    started = time.time()
    async with contextlib.AsyncExitStack() as stack:
        _directories(settings)
        stack.enter_context(locked(settings.root, settings.run_dir))
        stack.enter_context(cgroup_locked(settings.cgroup_parent))
        _check_network(settings)
        launch = _launch(settings)
        stack.push_async_callback(_end, launch)
        await asyncio.sleep(
            0.002
        )  # let both helpers launch, so that they start while this process imports the rest
        from kubelite.daemon.assembly import running

        yield await stack.enter_async_context(running(settings, launch, started))


def _check_network(settings: Settings) -> None:
    """Raises StartupError if pods have a network that the settings no longer name: nothing would release it."""
    cni = settings.network == "cni"
    left = f"{settings.run_dir}/network/leases" if cni else f"{settings.root}/cni"
    # What is not .json, a full disk has left of a record that was never whole.
    if os.path.isdir(left) and any(cni or name.endswith(".json") for name in os.listdir(left)):
        raise StartupError(
            f"the setting network has changed to {settings.network} while pods have their network from "
            f"{'the bridge' if cni else 'CNI plugins'}: run kubelite reset first"
        )


def network_config(settings: Settings) -> NetworkConfig:
    return NetworkConfig(
        bridge=settings.bridge,
        pod_cidr=settings.pod_networks[0],
        pod_cidr6=settings.pod_networks[1],
        state_dir=f"{settings.run_dir}/network",
        node=settings.node_name,
        routed=settings.pod_routing,
    )


def _launch(settings: Settings) -> Launch:
    """Start the forkserver and, as a fork of it, the network helper."""
    forkserver = Forkserver(
        shim_cgroup=f"/{settings.cgroup_parent}/shims",
        on_warning=lambda sentence: log.warning("%s", sentence),
    )
    starting = asyncio.ensure_future(forkserver.start())

    async def ready() -> Forkserver:
        await starting
        return forkserver

    async def fork(program: dict[str, Any], connection: socket.socket) -> int:
        await asyncio.shield(starting)
        return await forkserver.fork(program, connection)

    async def network() -> NetworkClient | None:
        return (
            await NetworkClient.start(network_config(settings), fork)
            if settings.network == "bridge"
            else None
        )

    return asyncio.gather(ready(), network(), return_exceptions=True)


async def _end(launch: Launch) -> None:
    """Close the helpers that started."""
    with contextlib.suppress(asyncio.CancelledError):
        for one in await launch:
            if one is not None and not isinstance(one, BaseException):
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
            make_directories(path, mode)
        if settings.manifests == "/etc/kubelite/manifests":
            make_directories(settings.manifests)
    except OSError as error:
        raise StartupError(f"cannot create {error.filename}: {os.strerror(error.errno or 0)}") from error


@contextlib.contextmanager
def locked(*directories: str) -> Iterator[None]:
    """Lock each directory for this daemon until the block exits. Raises StartupError, which names the holder's pid.

    Both the directory itself and its file kubelite.pid are locked. The file can be removed, and a new file would have
    no lock. An older version locks only the file."""
    with contextlib.ExitStack() as stack:
        for directory in dict.fromkeys(directories):
            own = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, own)
            # a user who can open the directory or the file can lock it and block the node's start
            if (mode := os.fstat(own).st_mode) & 0o044:
                os.fchmod(own, mode & 0o7733)
            path = f"{directory}/kubelite.pid"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            os.fchmod(descriptor, 0o600)
            for one in (descriptor, own):
                try:
                    fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                        holder = lock_holder(directory) or "unknown"
                        raise StartupError(
                            f"another kubelite (pid {holder}) already uses {directory}"
                        ) from None
                    if one == descriptor:  # NFS, for one, locks files only
                        raise
            with contextlib.suppress(OSError):  # on a full disk, the lock still holds
                text = f"{os.getpid()}\n".encode()
                os.ftruncate(descriptor, os.pwrite(descriptor, text, 0))
        yield


@contextlib.contextmanager
def cgroup_locked(parent: str) -> Iterator[None]:
    """Lock the node's cgroups for this daemon until the block exits. Two nodes would remove each other's pods, as
    cgroups that belong to none. Raises StartupError, which names the holder's pid.

    The lock is on the cgroup of the shims, in one hierarchy, because users must not be able to open it (see `locked`)
    and may list the others."""
    from runtime.cgroups.layout import layout

    where = layout()
    hierarchy = where.v1.get("freezer") or next(iter(where.v1.values()), None) or where.unified
    directory = f"{hierarchy}/{parent}/shims"
    try:
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o711)
        own = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartupError(f"cannot create cgroup {directory}: {os.strerror(error.errno or 0)}") from error
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, own)
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = lock_holder(directory) or "unknown"
            words = f"another kubelite (pid {holder}) already uses cgroup /{parent}"
            raise StartupError(f"{words}: give each node its own with --cgroup-parent") from None
        yield


def lock_holder(directory: str) -> int | None:
    """Return the pid of the daemon that holds the lock of a directory: as kubelite.pid says, or if that file was
    removed, as the kernel says (proc_locks(5))."""
    with (
        contextlib.suppress(OSError, ValueError),
        open(f"{directory}/kubelite.pid", encoding="ascii") as file,
    ):
        return int(file.read(32))
    with contextlib.suppress(OSError, ValueError):
        found = os.stat(directory)
        place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        with open("/proc/locks", encoding="ascii") as locks:
            for fields in map(str.split, locks):
                if fields[1] == "FLOCK" and place in fields and (pid := int(fields[4])) > 0:
                    return pid
    return None
