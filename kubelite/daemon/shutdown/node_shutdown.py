"""Graceful node shutdown: delay a machine shutdown until the pods have terminated. Pods of lower priority terminate
first, each group within its grace period (Kubernetes pkg/kubelet/nodeshutdown). As in kubelet, this is off unless
`shutdown_grace_period` or `shutdown_grace_period_by_pod_priority` is set.

A pod that a shutdown terminates becomes Failed with reason Terminated. When the node starts again, or the shutdown is
cancelled, the pod is recreated from its manifest, unless its restartPolicy is Never.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from kubelite.daemon.shutdown.logind import Logind, requested_delay, withdraw_delay
from kubelite.kube.objects import belongs_to_cluster, mark_deleting
from kubelite.node.decide.shutdown_order import SHUTDOWN_REASONS, Group, group_pods, shutdown_groups
from runtime.errors import RuntimeFault
from state.errors import StoreError

if TYPE_CHECKING:
    from kubelite.daemon.node_api import NodeAgent

log = logging.getLogger(__name__)
AGAIN = 5.0  # seconds before reconnecting to logind
POLL = 0.1  # seconds between checks of terminating pods


class ShutdownManager:
    """Delays machine shutdowns and terminates the pods. Call `run()`, which runs until it is cancelled."""

    def __init__(self, agent: NodeAgent) -> None:
        settings = agent.settings
        self._agent = agent
        self._groups = shutdown_groups(
            settings.shutdown_grace_period,
            settings.shutdown_grace_period_critical_pods,
            settings.shutdown_grace_period_by_pod_priority,
        )
        self._root = settings.root
        self._said = ""

    async def run(self) -> None:
        if not self._groups:
            try:
                await asyncio.to_thread(withdraw_delay, self._root)
            except (RuntimeFault, OSError) as error:
                log.warning("cannot undo the change to logind's settings: %s", error)
        while self._groups:
            try:
                logind, sentence = await asyncio.to_thread(self._connect)
            except (RuntimeFault, OSError) as error:
                self._report(f"cannot delay a machine shutdown: {error}")
                await asyncio.sleep(AGAIN)
                continue
            self._report(sentence)
            try:
                await self._watch(logind)
            except (RuntimeFault, OSError) as error:
                self._report(f"lost the connection to logind: {error}")
            finally:
                logind.close()
            await asyncio.sleep(AGAIN)

    def _report(self, sentence: str) -> None:
        if sentence and sentence != self._said:
            log.warning("%s", sentence)
            self._agent.node_event("NodeShutdownManager", sentence)
        self._said = sentence

    def _connect(self) -> tuple[Logind, str]:
        """Connect and take the delay lock. Return the connection and a warning ("": none). Runs in a thread. Raises
        RuntimeFault."""
        wanted, sentence = sum(group.seconds for group in self._groups), ""
        with contextlib.ExitStack() as undo:
            logind = Logind()
            undo.callback(logind.close)
            if logind.longest_delay() < wanted or requested_delay(self._root) not in (None, round(wanted)):
                logind.request_delay(wanted, self._root)
                if (now := logind.longest_delay()) < wanted:
                    most = f"at most {now:.0f} s (InhibitDelayMaxSec), not {wanted:.0f} s"
                    sentence = f"logind delays a shutdown for {most}"
            logind.hold()
            undo.pop_all()
        return logind, sentence

    async def _watch(self, logind: Logind) -> None:
        terminating: asyncio.Task[None] | None = None
        if logind.shutting_down():
            terminating = asyncio.create_task(self._terminate_pods(logind))
        try:
            while True:
                await _readable(logind.fileno())
                for begins in logind.take():
                    if terminating is not None:
                        terminating.cancel()
                        terminating = None
                    if begins:
                        terminating = asyncio.create_task(self._terminate_pods(logind))
                    else:
                        await self._shutdown_cancelled(logind)
        finally:
            if terminating is not None:
                terminating.cancel()

    async def _terminate_pods(self, logind: Logind) -> None:
        agent = self._agent
        log.warning("the machine shuts down: terminating its pods")
        agent.node_event("NodeShutdown", "Shutdown manager detected shutdown event", warning=False)
        agent.worker.shutting_down = True
        active = [p for p in agent.worker.scheduler.pods() if p.status.phase not in ("Succeeded", "Failed")]
        try:
            for group in group_pods(self._groups, active):
                await self._terminate_group(group)
            await agent.store.sync()  # write the pods' final status to disk before the machine shuts down
        finally:
            logind.release()
        log.warning("the pods have terminated: the machine can shut down")

    async def _terminate_group(self, group: Group) -> None:
        uids = {pod.metadata.uid or "" for pod in group.pods}
        log.info("%d pods of priority %d and above have %.0f s", len(uids), group.priority, group.seconds)
        for uid in uids:
            self._agent.worker.terminate_for_shutdown(uid, group.seconds)
        deadline = time.monotonic() + group.seconds
        while time.monotonic() < deadline and uids & set(self._agent.cri.running_sandboxes()):
            await asyncio.sleep(POLL)

    async def _shutdown_cancelled(self, logind: Logind) -> None:
        log.warning("the shutdown was cancelled: recreating the pods")
        self._agent.node_event(
            "NodeShutdown", "Shutdown manager detected shutdown cancellation", warning=False
        )
        self._agent.worker.shutting_down = False
        await asyncio.to_thread(logind.hold)
        await recreate_pods(self._agent)


async def recreate_pods(agent: NodeAgent) -> None:
    """Delete the pods that a shutdown terminated, so that they are recreated from their manifests."""
    for record in agent.store.list("Pod"):
        if terminated_by_shutdown(record.doc):
            with contextlib.suppress(StoreError):
                await agent.store.modify(record.uid, lambda doc: mark_deleting(doc, now=time.time(), grace=0))


def terminated_by_shutdown(doc: dict[str, Any]) -> bool:
    """Whether a shutdown terminated the pod of this document, and it must be recreated."""
    status = doc.get("status") or {}
    if belongs_to_cluster(doc):  # its end is the cluster's to know; what created the pod replaces it
        return False
    ended = status.get("phase") == "Failed" and status.get("reason") in SHUTDOWN_REASONS
    return ended and (doc.get("spec") or {}).get("restartPolicy") != "Never"


async def _readable(descriptor: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    copy = os.dup(descriptor)  # the original may be closed while the loop watches the copy
    loop.add_reader(copy, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(copy)
        os.close(copy)
