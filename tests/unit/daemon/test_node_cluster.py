"""What the node says about its membership in a cluster when something is wrong with it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubelite.cluster.membership import files
from kubelite.cluster.membership.files import Membership
from kubelite.daemon.cluster.node_cluster import NodeCluster
from kubelite.daemon.node_api import NodeAgent
from kubelite.kube.errors import ApiError
from state.store import Store
from tests.waiting import until_async

KUBECONFIG = """
clusters: [{{name: c, cluster: {{server: 'https://192.0.2.1:6443', certificate-authority-data: {authority}}}}}]
contexts: [{{name: here, context: {{cluster: c, user: u}}}}]
current-context: here
users: [{{name: u, user: {{token: t}}}}]
"""


@dataclass
class Agent:
    """As much of a node as its membership looks at before it begins."""

    root: str
    store: Store
    node_name: str = "here"
    events: list[tuple[str, str]] = field(default_factory=list)

    @property
    def settings(self) -> SimpleNamespace:
        return SimpleNamespace(root=self.root)

    def node_event(self, reason: str, message: str) -> None:
        self.events.append((reason, message))


@dataclass
class Member:
    """A cluster member whose `run()` raises an error."""

    membership: Membership
    heartbeat: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(seen=1.0, error=""))

    async def run(self) -> None:
        raise AssertionError("a mistake")


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    store = Store.open(str(tmp_path / "state.db"))
    yield Agent(str(tmp_path), store)
    await store.close()


@contextlib.asynccontextmanager
async def running(cluster: NodeCluster) -> AsyncIterator[None]:
    task = asyncio.create_task(cluster.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def made(agent: Agent) -> NodeCluster:
    return NodeCluster(cast(NodeAgent, agent))


async def test_a_ca_that_is_no_certificate_is_the_users_mistake(agent: Agent) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    text = KUBECONFIG.format(authority=base64.b64encode(pem).decode())
    with pytest.raises(ApiError, match="CA or the client certificate") as error:
        await made(agent).join({"kubeconfig": text})
    assert error.value.reason == "BadRequest"


async def test_a_membership_that_ended_is_told(agent: Agent) -> None:
    cluster, member = made(agent), Member(Membership("https://192.0.2.1:6443", "here", 1.0))
    cluster._begin(cast(Any, member))
    await until_async(lambda: agent.events)
    assert cluster.status()["error"].startswith("the membership has ended: AssertionError('a mistake')")
    assert agent.events == [("ClusterMembershipFailed", "T" + cluster.status()["error"][1:])]


async def test_a_membership_that_cannot_be_resumed_is_told(agent: Agent) -> None:
    files.write(agent.root, "membership.json", "{")
    cluster = made(agent)
    async with running(cluster):
        await until_async(lambda: agent.events)
        assert "leave it and join again" in cluster.status()["error"]
        await cluster.leave(force=False, seconds=1.0)
        assert cluster.status() == {"member": False}
