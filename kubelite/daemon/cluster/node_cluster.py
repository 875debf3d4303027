"""Joins the running node to a cluster, and takes it out again. A node that is no member imports nothing of
`kubelite.cluster` and has one task for it, which waits.

A node that is killed while it joins has not joined, until membership.json is written. One that is killed while it
leaves has left as soon as that file is gone: the next start ends what is left of the cluster's pods.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from typing import TYPE_CHECKING

from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.json import Json
from kubelite.kube.objects import belongs_to_cluster, mark_deleting
from manifests.names import dns_subdomain
from state.store import Record, Store

if TYPE_CHECKING:
    from kubelite.cluster.member import Member
    from kubelite.cluster.membership.discovery import Access
    from kubelite.daemon.node_api import NodeAgent

log = logging.getLogger(__name__)

REGISTERED = 60.0  # seconds for the node to be registered, after it has its certificate
_KINDS = ("ConfigMap", "Secret", "Service", "ServiceAccountToken")


class NodeCluster:
    """The node's membership, while the daemon runs."""

    def __init__(self, agent: NodeAgent) -> None:
        self._agent = agent
        self._root = agent.settings.root
        self._member: Member | None = None
        self._running: asyncio.Task[None] | None = None
        self._failure = ""  # why the node is no member though it has joined, "" if it is one
        self._changing = asyncio.Lock()

    async def run(self) -> None:
        """Be a member if the node has joined, until cancelled."""
        try:
            if os.path.exists(f"{self._root}/cluster/membership.json"):
                await self._resume()
            elif _pods(self._agent.store):
                await self._forget_pods()
            await asyncio.Event().wait()
        finally:
            await self._stop()

    async def _resume(self) -> None:
        from kubelite.cluster.membership import files

        try:
            membership = files.load(self._root)
            if membership is not None:
                self._begin(self._made(membership))
        except (OSError, ValueError) as error:
            self._failed(f"the node cannot be a member of its cluster: {error}; leave it and join again")

    def _made(self, membership: object) -> Member:
        from kubelite.cluster.member import Member
        from kubelite.cluster.membership.files import Membership

        assert isinstance(membership, Membership)
        agent = self._agent
        return Member(
            agent, agent.store, agent.events,
            root=self._root, membership=membership, content_changed=agent.worker.content_changed,
            settings=agent.settings, pages=agent.pages, port=agent.settings.cluster_port,
            mirrored=self._mirrored,
        )  # fmt: skip

    def _mirrored(self, number: int) -> None:
        self._agent.meters.mirror_pods = number

    def _begin(self, member: Member) -> None:
        self._member, self._failure = member, ""
        self._running = asyncio.create_task(member.run(), name="cluster")
        self._running.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the node's membership failed", exc_info=error)
            self._failed(f"the membership has ended: {error!r}; restart the daemon")

    def _failed(self, words: str) -> None:
        """Say why the node is no member of the cluster that it has joined. Its pods go on."""
        log.error("%s", words)
        self._failure = words
        self._agent.node_event("ClusterMembershipFailed", words[:1].upper() + words[1:])

    async def _stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._member = self._running = None
        self._mirrored(0)

    def status(self) -> Json:
        """Return {"member": whether the node has joined} and, if so, "server", "node", "joined" (Unix seconds),
        "seen": when the API server last took a sign of life (0: not yet), "error": why not the last time, or why the
        membership has ended. A node that has joined and could not resume the membership has "error" alone."""
        if (member := self._member) is None:
            return {"member": False, **({"error": self._failure} if self._failure else {})}
        found, beat = member.membership, member.heartbeat
        about = {"server": found.server, "node": found.node, "joined": found.joined}
        return {
            "member": True,
            **about,
            "seen": beat.seen,
            "error": self._failure or beat.error,
            "pods": len(_pods(self._agent.store)),
        }

    async def join(self, wanted: Json) -> Json:
        """Join the cluster of a join command {"line"} or a kubeconfig {"kubeconfig"}. Return the status, with "steps":
        sentences. Raises ApiError, RuntimeFault."""
        async with self._changing:
            if self._member is not None:
                raise ApiError(
                    "Conflict", f"the node is a member of {self._member.membership.server} already"
                )
            node = self._agent.node_name
            if dns_subdomain(node):
                words = f"the node's name {node!r} is no DNS name in lower case: change the setting node_name"
                raise bad_request(words)
            steps: list[str] = []
            await self._join(node, wanted, steps)
            return {**self.status(), "steps": steps}

    async def _join(self, node: str, wanted: Json, steps: list[str]) -> None:
        from kubelite.cluster.client import ClusterError
        from kubelite.cluster.membership import files, joining
        from kubelite.cluster.membership.discovery import JoinError

        def say(sentence: str) -> None:
            log.info("join: %s", sentence)
            steps.append(sentence)

        try:
            membership = await joining.join(self._root, node, await self._access(wanted, say), say)
            member = self._made(membership)
        except (JoinError, ClusterError) as error:
            raise bad_request(str(error)) from error
        except ssl.SSLError as error:
            words = f"the CA or the client certificate of the cluster cannot be read: {error}"
            raise bad_request(words) from error
        except OSError as error:
            raise ApiError(
                "InternalError", f"cannot keep the membership in {self._root}/cluster: {error}"
            ) from error
        try:
            async with asyncio.timeout(REGISTERED):
                await member.heartbeat.register()
        except (ClusterError, TimeoutError) as error:
            await member.client.close()
            files.forget(self._root)
            raise bad_request(f"the cluster does not register node {node}: {error}") from error
        self._begin(member)
        say(f"node {node} is registered")

    async def _access(self, wanted: Json, say: object) -> Access:
        from kubelite.cluster.membership import discovery, joining

        assert callable(say)
        if text := wanted.get("kubeconfig"):
            return discovery.parse_kubeconfig(str(text))
        return await joining.discover(discovery.parse_line(str(wanted.get("line") or "")), say)

    async def leave(self, *, force: bool, seconds: float) -> Json:
        """Evict the cluster's pods, delete the Node, and be a single node again. `force`: leave also if pods stay
        longer than `seconds`, or the API server does not answer. Return {"steps": sentences}. Raises ApiError."""
        from kubelite.cluster.client import ClusterError
        from kubelite.cluster.leaving import Leaving
        from kubelite.cluster.membership import files

        async with self._changing:
            member = self._member
            if member is None and not os.path.exists(f"{self._root}/cluster"):
                raise ApiError("NotFound", "the node is a member of no cluster")
            steps: list[str] = []
            if member is not None:
                leaving = Leaving(member, steps.append)
                try:
                    await leaving.drain(seconds)
                except (ClusterError, TimeoutError) as error:
                    if not force:
                        words = f"{error}; the node stays cordoned: try again, or leave with --force"
                        raise ApiError("Timeout", words) from error
                    steps.append(f"the cluster's pods are not drained: {error}")
                await self._stop_but_client(member)
                await leaving.unregister()
                await member.client.close()
            try:
                files.forget(self._root)
            except OSError as error:
                raise ApiError("InternalError", f"cannot remove {self._root}/cluster: {error}") from error
            self._failure = ""
            await self._forget_pods()
            steps.append("the node is a single node again")
            return {"steps": steps}

    async def _stop_but_client(self, member: Member) -> None:
        member.keep_client = True
        await self._stop()

    async def _forget_pods(self) -> None:
        """End what is left of the cluster's pods, and delete what they referred to."""
        from kubelite.node.spec.cluster_objects import cluster_kind

        store, now = self._agent.store, time.time()
        for record in _pods(store):
            await store.modify(record.uid, lambda doc: mark_deleting(doc, now=now))
        for kind in _KINDS:
            for record in store.list(cluster_kind(kind)):
                await store.delete(record.uid)


def _pods(store: Store) -> list[Record]:
    return [one for one in store.list("Pod") if belongs_to_cluster(one.doc)]


async def run_cluster(agent: NodeAgent) -> None:
    """Run the node's membership, if it has one, until cancelled."""
    agent.cluster = cluster = NodeCluster(agent)
    await cluster.run()
