"""What the node does about shims that it cannot work with: their files are gone or damaged, or they do not answer.

The kernel decides: which processes are in the shims' cgroup, which run directory a process holds open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Container, Iterable, Iterator, Mapping

from kubelite.node.cri.engine_settings import EngineSettings
from kubelite.node.cri.pod_network import PodNetwork
from kubelite.node.cri.shim_connection import RunningShim
from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault
from runtime.oci.termination import has_exited
from runtime.shim.client import ShimGone
from runtime.shim.state import LOG, SOCKET, occupied, parent_of, read_state, shim_alive

log = logging.getLogger(__name__)

KILL_SECONDS = 5.0  # for a killed shim to exit; its containers die with it
_DELETED = " (deleted)"


async def release_gone(network: PodNetwork, here: Container[str]) -> None:
    """Release what the network holds of pods that are not `here`. A failure is logged: CNI plugins may fail, and are
    tried again with the network's repairs."""

    async def release(uid: str) -> None:
        try:
            await network.delete(uid)
        except RuntimeFault as error:
            log.error("a pod that is gone cannot be detached from the network: %s", error, extra={"uid": uid})

    await asyncio.gather(*(release(held.uid) for held in await network.list() if held.uid not in here))


def end_unreachable(settings: EngineSettings) -> list[str]:
    """Kill the shims of this run directory that no daemon can reach any more, because their files were removed or
    damaged; and what is left of their pods. Returns the uids. Otherwise a second instance of each container would start
    beside the first, in one cgroup."""
    shims = f"{settings.run_dir}/shims"
    found = dict(_unreachable(shims, f"/{settings.cgroup_parent}/shims"))
    for pid, uid in found.items():
        _kill(pid)
        if occupied(f"{shims}/{uid}"):  # another shim of the pod, which can be reached, uses the cgroup
            continue
        for tier in ("", "/burstable", "/besteffort"):
            group = open_cgroup(f"/{settings.cgroup_parent}{tier}/pod{uid}")
            with contextlib.suppress(RuntimeFault):  # the next sandbox of the pod meets it again, and says so
                if group.exists():
                    group.remove()
    return sorted(set(found.values()))


async def rewrite_records(
    settings: EngineSettings, shims: Mapping[str, RunningShim], uids: Iterable[str]
) -> None:
    """Have the shims of these pods write their state.json again where it was removed or damaged. After a restart of the
    daemon, they could not be reached any more."""
    for uid in uids:
        shim = shims.get(uid)
        if shim is None or shim.client.closed or read_state(f"{settings.run_dir}/shims/{uid}") is not None:
            continue
        log.warning("the shim's state.json is lost and is written again", extra={"uid": uid})
        with contextlib.suppress(RuntimeFault):  # the pod's next look meets it again, and says so
            await shim.client.state()


def _unreachable(shims: str, cgroup: str) -> Iterator[tuple[int, str]]:
    """The pid and the pod's uid of each such shim. A shim's stderr is its log file in its run directory. Its children
    before they enter a container share it; they belong to a shim that can be reached if their parent is one."""
    directory = os.path.realpath(shims)
    for pid in open_cgroup(cgroup).pids():
        with contextlib.suppress(OSError):
            run_dir, _, name = os.readlink(f"/proc/{pid}/fd/2").removesuffix(_DELETED).rpartition("/")
            if name == LOG and os.path.dirname(run_dir) == directory and not _reachable(pid, run_dir):
                yield pid, os.path.basename(run_dir)


def _reachable(pid: int, run_dir: str) -> bool:
    record = read_state(run_dir)
    if record is None or not os.path.exists(f"{run_dir}/{SOCKET}"):
        return False
    return record.pid in (pid, parent_of(pid))


@contextlib.contextmanager
def killing_if_silent(uid: str, shim: RunningShim, *, really: bool = True) -> Iterator[None]:
    """Kill a shim that does not answer in time (it is stopped, or waits in the kernel), and raise ShimGone. Its
    containers die with it. Only for pods that are to end (`really`): a busy machine is no reason to end one."""
    try:
        yield
    except RuntimeFault as fault:
        if fault.reason != "ShimTimeout" or not really:
            raise
        log.error("killing a pod's shim, which does not answer: %s", fault, extra={"uid": uid})
        if shim_alive(shim.record):
            with contextlib.suppress(ProcessLookupError):
                os.kill(shim.record.pid, signal.SIGKILL)
        shim.client.close()
        raise ShimGone(f"the shim of pod {uid} did not answer, and was killed") from fault


def _kill(pid: int) -> None:
    """Send SIGKILL and wait up to KILL_SECONDS for the exit."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if not has_exited(descriptor, KILL_SECONDS):
            log.error("process %d does not exit after SIGKILL: it waits in the kernel", pid)
    finally:
        os.close(descriptor)
