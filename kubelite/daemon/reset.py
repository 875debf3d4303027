"""`kubelite reset`: stop the daemon, terminate every pod (drain.py), and remove the node's network, cgroups and state.
Images, manifests, registry logins, the audit log and the data of volumes and claims remain. It works with or without a
running daemon and can be repeated after an interruption.

Reset holds the daemon's lock while it works. Otherwise a service manager could restart the daemon, which would start
the pods again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

from kubelite.daemon.dns import dns_directory, end_dns
from kubelite.daemon.lifecycle import (
    StartupError,
    cgroup_locked,
    lock_holder,
    locked,
    network_config,
)
from kubelite.daemon.plugins.sockets import discard
from kubelite.node.cri.pod_network import PodNetwork
from kubelite.node.storage import block_devices
from kubelite.node.storage.container_volumes import let_go
from kubelite.node.storage.mounts import unmount_below
from kubelite.settings import Settings
from runtime.cgroups import Cgroup, open_cgroup
from runtime.errors import NetworkError, RuntimeFault
from runtime.network.client import NetworkClient
from runtime.removal import remove_tree
from runtime.shim.client import ShimClient, ShimGone, read_state, reap_dead

STOP_SECONDS = 15.0
AT_ONCE = 16  # pods that are killed in parallel
_REMOVED_BRIDGE, _DETACHED = (
    "removed bridge {}, addresses and rules",
    "detached the pods from their CNI network",
)
HELPER_SECONDS = 3.0  # seconds that the daemon's helper processes have to end

Say = Callable[[str], None]


async def reset(settings: Settings, say: Say, *, now: bool = False, timeout: float | None = None) -> None:
    """Reset the node. Each pod has its grace period, but at most `timeout` seconds; with `now`, pods are killed. `say`
    receives a message for each step. Raises RuntimeFault if a process does not end, StartupError if another daemon has
    started meanwhile."""
    await _end_daemon(settings, say)
    with locked(*filter(os.path.isdir, (settings.root, settings.run_dir))):
        await _end_pods_and_network(settings, say, now=now, timeout=timeout)
        await _remove_cgroups(settings, say)
        _remove_files(settings, say)


async def _end_pods_and_network(settings: Settings, say: Say, *, now: bool, timeout: float | None) -> None:
    shims = f"{settings.run_dir}/shims"
    async with contextlib.AsyncExitStack() as stack:
        network = await _network(settings, stack)
        if network is not None and not now and os.path.isdir(shims) and os.listdir(shims):
            from kubelite.daemon.drain import drain

            await drain(settings, network, timeout=timeout, say=say)
        await _kill_pods(shims, say)
        if await end_dns(settings):
            say("ended the DNS server")
        if network is not None and settings.network == "cni":
            await _detach(network, say)
        elif network is not None:
            await network.teardown()
            say(_REMOVED_BRIDGE.format(settings.bridge))
    await _remove_other_network(settings, say)


async def _remove_other_network(settings: Settings, say: Say) -> None:
    """Remove what an earlier value of the setting `network` has left."""
    if settings.network == "bridge" and os.path.isdir(f"{settings.root}/cni"):
        from kubelite.daemon.cni.node_cni import cni_network

        await _detach(cni_network(settings, None), say)
    if settings.network == "cni" and os.path.exists(f"{settings.run_dir}/network/node"):
        network = await NetworkClient.start(network_config(settings))
        try:
            await network.teardown()
        finally:
            await network.close()
        say(_REMOVED_BRIDGE.format(settings.bridge))


async def _detach(network: PodNetwork, say: Say) -> None:
    """Detach the pods from their CNI network. Plugins can fail for good, for example if they are no longer installed:
    the rest of the node is removed all the same."""
    try:
        await network.teardown()
    except NetworkError as error:
        say(f"could not detach all pods: {error}; what the plugins keep of them stays")
    else:
        say(_DETACHED)


async def _network(settings: Settings, stack: contextlib.AsyncExitStack) -> PodNetwork | None:
    """Return what gives the node's pods their network; None if the node has not run."""
    if settings.network == "cni":
        from kubelite.daemon.cni.node_cni import cni_network

        return cni_network(settings, None)
    if not os.path.isdir(f"{settings.run_dir}/network"):
        return None
    network = await NetworkClient.start(network_config(settings))
    stack.push_async_callback(network.close)
    return network


def _remove_files(settings: Settings, say: Say) -> None:
    pods = f"{settings.root}/pods"
    unmount_below(pods)  # memory volumes and the pods' shared /dev/shm
    for name in block_devices.let_go(settings.root, ()):
        say(f"unmounted volume {name}")
    for path in let_go(settings.root, ()):
        say(f"detached the loop device over {path}")
    uids = os.listdir(pods) if os.path.isdir(pods) else []
    _remove_logs(settings, set(uids))
    for uid in uids:
        with contextlib.suppress(OSError):
            remove_tree(f"{pods}/{uid}")
    for path in (
        f"{settings.run_dir}/shims",
        f"{settings.run_dir}/network",
        f"{settings.root}/cni",
        f"{settings.run_dir}/traces",
        dns_directory(settings),
    ):
        shutil.rmtree(path, ignore_errors=True)
    if settings.plugin_dir:
        discard(settings.plugin_dir)
    # every pod has ended and the manifests hold the desired state; the next start must not see old restart counts
    state = [f"{settings.root}/state.db{suffix}" for suffix in ("", "-wal", "-shm", ".reserve")]
    # keep the lock files: a daemon that starts now may hold one, and a lock on a deleted file excludes nobody
    for path in (settings.socket, *state):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


async def _remove_cgroups(settings: Settings, say: Say) -> None:
    """Remove the node's cgroups. All its pods have ended, so any process left below the parent is another node's."""
    group = open_cgroup(f"/{settings.cgroup_parent}")
    if not group.exists():
        return
    try:
        with cgroup_locked(settings.cgroup_parent):
            await _remove_cgroup(group, say)
    except StartupError as error:
        say(f"left cgroup {group.path} alone: {error}")


async def _remove_cgroup(group: Cgroup, say: Say) -> None:
    until = time.monotonic() + HELPER_SECONDS
    while (pids := group.pids()) and time.monotonic() < until:
        await asyncio.sleep(0.01)  # the forkserver and its spare shim end shortly after the daemon
    if pids:
        say(f"left cgroup {group.path} alone: processes {pids} in it are not this node's")
    else:
        group.remove()


async def _end_daemon(settings: Settings, say: Say) -> None:
    """End the process that holds the lock, if any. A process of a systemd service is stopped by systemd, which would
    restart it otherwise."""
    pid = _holder(f"{settings.run_dir}/kubelite.pid")
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            unit = await _unit_of(pid)
            if unit:
                await _systemctl("stop", "--no-block", unit)
            else:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            ended, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], STOP_SECONDS)
            if not ended:
                raise RuntimeFault(
                    f"the daemon (pid {pid}) does not stop; run kill -9 {pid}, then reset again"
                )
        finally:
            os.close(descriptor)
        say(
            f"stopped {unit}; start it again with: systemctl start {unit}"
            if unit
            else f"ended the daemon (pid {pid})"
        )


async def _unit_of(pid: int) -> str:
    """Return the systemd service whose main process is `pid`; "" if there is none."""
    for unit in _services(pid):
        if await _systemctl("show", "--property=MainPID", "--value", unit) == str(pid):
            return unit
    return ""


def _services(pid: int) -> list[str]:
    """Return the names of the systemd services in the cgroup paths of a process."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            names = {os.path.basename(line.strip()) for line in file}
    except OSError:  # it has just ended
        return []
    return sorted(name for name in names if name.endswith(".service"))


async def _systemctl(*arguments: str) -> str:
    """Run systemctl and return its output; "" without systemd. Raises RuntimeFault if it fails or takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            "systemctl", *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        return ""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise RuntimeFault(f"systemctl {' '.join(arguments)} does not end") from None
    if process.returncode and arguments[0] != "show":
        raise RuntimeFault(f"systemctl {' '.join(arguments)}: {err.decode(errors='replace').strip()}")
    return out.decode(errors="replace").strip()


def _holder(path: str) -> int | None:
    """Return the pid in the lock file if a process holds the lock."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return lock_holder(os.path.dirname(path))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(descriptor, 32) or 0) or None
    finally:
        os.close(descriptor)
    return None


async def _kill_pods(shims: str, say: Say) -> None:
    """Kill the running pods, `AT_ONCE` in parallel: most of the time passes while the kernel removes namespaces."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def end(uid: str) -> None:
        record = read_state(f"{shims}/{uid}")
        where = record.annotations if record is not None else {}
        async with turns:
            await _end_pod(f"{shims}/{uid}")
        if where.get("name"):
            say(f"killed pod {where.get('namespace')}/{where['name']}")

    uids = sorted(os.listdir(shims)) if os.path.isdir(shims) else []
    results = await asyncio.gather(*map(end, uids), return_exceptions=True)
    for result in results:  # raise an error only after an attempt for every pod
        if isinstance(result, BaseException):
            raise result


async def _end_pod(run_dir: str) -> None:
    try:
        client = await ShimClient.connect(run_dir)
    except ShimGone:
        if os.path.isdir(run_dir):
            await reap_dead(run_dir)
            shutil.rmtree(run_dir, ignore_errors=True)
        return
    with contextlib.suppress(ShimGone):
        await client.shutdown(force=True)
    client.close()


def _remove_logs(settings: Settings, uids: set[str]) -> None:
    """Remove the logs of this node's pods and the links to them. Another kubelet may also use /var/log/pods."""
    pods, links = f"{settings.log_dir}/pods", f"{settings.log_dir}/containers"
    for name in os.listdir(pods) if os.path.isdir(pods) else ():
        if name.rpartition("_")[2] in uids:  # <namespace>_<pod>_<uid>
            with contextlib.suppress(OSError):
                remove_tree(f"{pods}/{name}")
    for name in os.listdir(links) if os.path.isdir(links) else ():
        path = os.path.join(links, name)
        if os.path.islink(path) and _pod_of_log(os.readlink(path)) in uids:
            os.unlink(path)
    for directory in (pods, links):
        with contextlib.suppress(OSError):
            os.rmdir(directory)  # fails unless it is empty


def _pod_of_log(path: str) -> str:
    """Return the uid in …/<namespace>_<pod>_<uid>/<container>/<n>.log."""
    directory = os.path.basename(os.path.dirname(os.path.dirname(path)))
    return directory.rpartition("_")[2]
