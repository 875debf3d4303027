"""The node's standing jobs: to find what events missed, and to end what belongs to nobody."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

from kubelite.telemetry.sampling.volume_stats import logs_of
from runtime.errors import RuntimeFault
from state.errors import StoreError

if TYPE_CHECKING:
    from kubelite.daemon.node_api import Agent
    from kubelite.daemon.workqueue import WorkQueue
    from kubelite.node.cri.local import LocalCri

log = logging.getLogger(__name__)

BURY_AGAIN = 10.0  # seconds until what could not be buried is tried again
TURNS = 3  # rounds in which each pod is looked at once: a minute, as kubelet's --sync-frequency


async def bury_orphans(agent: Agent, unclaimed: dict[str, tuple[str, str]], *, first: bool) -> None:
    """Sandboxes, directories and records of pods that are not known (removed while the daemon was away, a state file
    that was lost) are ended, once the manifests have been read, every one of them: a directory that is not there, or a
    file that is broken, may be what knows them. So may one that is empty, when nothing is on record of it (`first`):
    with the state file, what tells an unmounted directory from an emptied one was lost."""
    if first and unclaimed and not agent.sources.states():
        log.warning("pods run that nothing is known of; they are left alone until there is a manifest")
    while not agent.sources.complete or (first and unclaimed and not agent.sources.states()):
        await asyncio.sleep(1.0)
    unclaimed.clear()
    while strays := _strays(agent):
        for uid in strays:
            if agent.store.get_uid(uid) is not None:
                continue
            log.warning("ending what is left of a pod that is not known", extra={"uid": uid})
            if uid in agent.cri.living():
                agent.meters.orphans.add()
            try:
                await agent.cri.stop_sandbox(uid)
                await agent.cri.remove_pod(uid)
            except (RuntimeFault, StoreError, OSError) as error:
                log.error("it will be tried again: %s", error, extra={"uid": uid})
        await asyncio.sleep(BURY_AGAIN)


def _strays(agent: Agent) -> set[str]:
    found = {*agent.cri.living(), *agent.store.pods_with_containers()}
    for directory in (f"{agent.settings.root}/pods", f"{agent.settings.run_dir}/shims"):
        if os.path.isdir(directory):
            found.update(os.listdir(directory))
    return {uid for uid in found if agent.store.get_uid(uid) is None}


async def relist(agent: Agent, queue: WorkQueue[str]) -> None:
    """What events missed is found here: of the network in each round, of the pods in turns."""
    turn = 0
    while True:
        await asyncio.sleep(agent.settings.relist_seconds)
        began = time.perf_counter()
        for record in agent.store.list("Pod")[turn::TURNS]:
            queue.add(record.uid)
        turn = (turn + 1) % TURNS
        agent.meters.relisted(time.perf_counter() - began)
        try:
            # a flushed rule set, a bridge that somebody removed
            for sentence in await agent.network.repair():
                log.warning("network mended: %s", sentence)
            await agent.events.expire()
            await agent.history.prune(seconds=agent.settings.history_time, size=agent.settings.history_size)
        except (RuntimeFault, StoreError, OSError) as error:  # a full disk, say: the next round may go better
            log.error("the node is not in order: %s", error)


def writable_layers(cri: LocalCri) -> dict[str, str]:
    """The directory of every running container's writable layer, with its cgroup."""
    return {
        f"{container['bundle']}/upper": str(container["cgroup"])
        for record in cri.living().values()
        for container in record.containers
        if container["status"] == "running"
    }


def measured_directories(agent: Agent) -> dict[str, str]:
    """What is measured in the background: writable layers with their cgroups, volumes and logs with none."""
    places = [volume.path for volume in agent.volumes()]
    places += [log.path for log in logs_of(agent.cri.living(), agent.store)]
    return {**writable_layers(agent.cri), **dict.fromkeys(places, "")}
