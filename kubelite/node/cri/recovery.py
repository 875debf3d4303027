"""What the node does when the kernel has something else than its files say: pods that lost their attachment to the
network, shims that nothing leads to any more, shims that do not answer.

The kernel decides: which processes are in the shims' cgroup, which run directory a process holds open.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from collections.abc import Iterator, Mapping
from typing import Any

from kubelite.node.cri.engine_settings import EngineSettings
from kubelite.node.cri.shim_connection import RunningShim
from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault
from runtime.network.plan import PortMapping
from runtime.shim.client import ShimGone
from runtime.shim.state import LOG, SOCKET, process_start, read_state

log = logging.getLogger(__name__)

KILL_SECONDS = 5.0  # for a killed shim to exit; its containers die with it
_DELETED = " (deleted)"


def published_ports(pod: Mapping[str, Any]) -> list[PortMapping]:
    """The host ports of a Pod object."""
    spec = pod["spec"]
    return [
        PortMapping(
            port["hostPort"], port["containerPort"], port.get("protocol") or "TCP", port.get("hostIP") or ""
        )
        for container in [*(spec.get("initContainers") or ()), *spec["containers"]]
        for port in container.get("ports") or ()
        if port.get("hostPort")
    ]


def end_unreachable(settings: EngineSettings) -> list[str]:
    """Kill the shims of this run directory that no daemon can reach any more, because their files were removed or
    damaged; and what is left of their pods. Returns the uids. Otherwise a second instance of each container would start
    beside the first, in one cgroup."""
    found = dict(_unreachable(f"{settings.run_dir}/shims", f"/{settings.cgroup_parent}/shims"))
    for pid, uid in found.items():
        _kill(pid)
        for tier in ("", "/burstable", "/besteffort"):
            group = open_cgroup(f"/{settings.cgroup_parent}{tier}/pod{uid}")
            with contextlib.suppress(RuntimeFault):  # the next sandbox of the pod meets it again, and says so
                if group.exists():
                    group.remove()
    return sorted(set(found.values()))


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
    return record.pid in (pid, _parent(pid))


def _parent(pid: int) -> int:
    """Field 4 of /proc/<pid>/stat."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


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
        if process_start(shim.record.pid) == shim.record.pid_start:
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
        if not select.select([descriptor], [], [], KILL_SECONDS)[0]:
            log.error("process %d does not exit after SIGKILL: it waits in the kernel", pid)
    finally:
        os.close(descriptor)
