"""The node's periodic tasks: find changes that events missed, and remove orphaned pods."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING

from kubelite.telemetry.sampling.volume_stats import logs_of, running_volumes
from runtime.errors import RuntimeFault
from state.errors import StoreError

if TYPE_CHECKING:
    from kubelite.daemon.node_api import NodeAgent
    from kubelite.kube.workqueue import WorkQueue
    from kubelite.node.cri.local import LocalCri
    from kubelite.node.model.node_config import NodeConfig
    from state.store import Store

log = logging.getLogger(__name__)

REMOVE_AGAIN, REMOVE_LAST = 10.0, 300.0  # seconds before a failed removal is retried: at first, and at last
INSIDE = 20  # pods whose network namespace is checked in one round; the next round checks other pods
#: Seconds for which watchers can resume; kube-apiserver has etcd compact after as many (--etcd-compaction-interval).
RETAINED = 300.0
TURNS = 3  # rounds in which each pod is queued once: by default a minute, as kubelet's --sync-frequency


async def remove_orphans(agent: NodeAgent, unclaimed: dict[str, tuple[str, str]], *, first: bool) -> None:
    """Remove the sandboxes, directories and records of unknown pods, now and whenever there are some: pods that were
    deleted while the daemon was down, whose state file was lost, or whose files could not be removed. Wait until every
    manifest is read: a missing directory or an invalid file may define these pods. `first`: the store has no record of
    the manifest directory. Then an empty directory may define them, too: without the state file, an unmounted directory
    looks like an emptied one."""
    if first and unclaimed and not agent.sources.states():
        log.warning("unknown pods are running; they are left alone until a manifest exists")
    while not agent.sources.complete or (first and unclaimed and not agent.sources.states()):
        await asyncio.sleep(1.0)
    unclaimed.clear()
    pause = REMOVE_AGAIN
    while True:
        strays = _strays(agent)
        for uid in strays:
            if agent.store.get_uid(uid) is not None:
                continue
            log.warning("removing the leftovers of an unknown pod", extra={"uid": uid})
            if uid in agent.cri.running_sandboxes():
                agent.meters.orphans.add()
            try:
                await agent.cri.stop_sandbox(uid)
                await agent.cri.remove_pod(uid)
            except (RuntimeFault, StoreError, OSError) as error:
                log.error("cannot remove the leftovers, will retry: %s", error, extra={"uid": uid})
        await asyncio.sleep(pause if strays else agent.settings.relist_seconds)
        pause = min(2 * pause, REMOVE_LAST) if strays else REMOVE_AGAIN


def _strays(agent: NodeAgent) -> set[str]:
    found = {*agent.cri.running_sandboxes(), *agent.store.pods_with_containers()}
    for directory in (f"{agent.settings.root}/pods", f"{agent.settings.run_dir}/shims"):
        if os.path.isdir(directory):
            found.update(os.listdir(directory))
    return {uid for uid in found if agent.store.get_uid(uid) is None}


async def relist(agent: NodeAgent, queue: WorkQueue[str]) -> None:
    """Find changes that events missed. Each round checks the network and a third of the pods."""
    turn = 0
    told: frozenset[str] = frozenset()  # damage that the last round could not repair
    versions: deque[tuple[float, int]] = deque()  # when they were seen, and the newest resourceVersions
    while True:
        await asyncio.sleep(agent.settings.relist_seconds)
        began = time.perf_counter()
        uids = [record.uid for record in agent.store.list("Pod")[turn::TURNS]]
        for uid in uids:
            queue.add(uid)
        turn = (turn + 1) % TURNS
        _forget_changes(agent.store, versions, began)
        agent.meters.relisted(time.perf_counter() - began)
        try:
            await agent.cri.rewrite_records(uids)
            told = await _repair_network(agent, told)
            await agent.events.expire()
            await agent.history.prune(seconds=agent.settings.history_time, size=agent.settings.history_size)
        except (
            RuntimeFault,
            StoreError,
            OSError,
        ) as error:  # for example, a full disk: the next round may succeed
            log.error("periodic maintenance failed: %s", error)


def _forget_changes(store: Store, versions: deque[tuple[float, int]], now: float) -> None:
    """Forget the changes that are older than `RETAINED`. Each holds the whole object as it was."""
    versions.append((now, store.resource_version))
    while versions[0][0] <= now - RETAINED:
        store.forget_changes(versions.popleft()[1])


async def _repair_network(agent: NodeAgent, told: frozenset[str]) -> frozenset[str]:
    """Repair the network (flushed rules, a removed bridge, a pod's interface). Return the damage that remains. Damage
    in `told`, the last round's result, is not logged again."""
    result = await agent.network.repair(inside=INSIDE)
    for sentence in [*result.repaired, *await agent.cri.attach_lost()]:
        log.warning("network repaired: %s", sentence)
    left = frozenset((*result.left, *result.failures))
    for sentence in sorted(left - told):
        log.error("network damaged, and not repaired: %s", sentence)
    return left


def writable_layers(cri: LocalCri) -> dict[str, str]:
    """Map the writable layer's directory of each running container to the container's cgroup."""
    return {
        f"{container['bundle']}/upper": str(container["cgroup"])
        for record in cri.running_sandboxes().values()
        for container in record.containers
        if container["status"] == "running"
    }


def measured_directories(store: Store, cri: LocalCri, config: NodeConfig) -> dict[str, str]:
    """Map each directory that is measured in the background to a cgroup: a writable layer to its container's, a volume
    or log directory to ""."""
    running = cri.running_sandboxes()
    places = [volume.path for volume in running_volumes(running, store, config)]
    places += [log.path for log in logs_of(running, store)]
    return {**writable_layers(cri), **dict.fromkeys(places, "")}
