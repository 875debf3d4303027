"""The API listens on the address of the pod network's bridge, a real one in a network namespace of its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.api.app import create_app
from kubelite.api.secure import port as api_port
from kubelite.api.secure.port import ApiPort
from kubelite.settings import Settings
from tests.kernel.netlab import Netns
from tests.unit.api.fake_node import FakeNode
from tests.waiting import until_async

pytestmark = pytest.mark.kernel

BRIDGE, GATEWAY, POD, PORT = "apibridge", "10.88.0.1", "10.88.0.5", 6443


@pytest.fixture
def host() -> Iterator[Netns]:
    if not shutil.which("ip"):
        pytest.skip("needs iproute2")
    with contextlib.closing(Netns()) as made:
        made.sh("ip", "link", "set", "lo", "up")
        yield made


@pytest.fixture
def pod(host: Netns) -> Iterator[Netns]:
    with contextlib.closing(Netns()) as made:
        peer = ("peer", "name", "eth0", "netns", made.path)
        host.sh("ip", "link", "add", "veth", "type", "veth", *peer)
        made.sh("ip", "addr", "add", f"{POD}/16", "dev", "eth0")
        made.sh("ip", "link", "set", "eth0", "up")
        yield made


def add_bridge(host: Netns) -> None:
    host.sh("ip", "link", "add", BRIDGE, "type", "bridge")
    host.sh("ip", "addr", "add", f"{GATEWAY}/16", "dev", BRIDGE)
    for device in (BRIDGE, "veth"):
        host.sh("ip", "link", "set", device, "up")
    host.sh("ip", "link", "set", "veth", "master", BRIDGE)


def answers(client: Netns) -> bool:
    """Whether the port takes a connection of the client."""

    def connect() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((GATEWAY, PORT), 0.3):
            return True
        return False

    return client.run(connect)


def test_a_bridge_that_is_made_anew(
    host: Netns, pod: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_port, "LOOK_AT_BRIDGE", 0.1)
    add_bridge(host)
    said: list[str] = []
    settings = Settings(root=str(tmp_path), node_name="here", bridge=BRIDGE)

    async def run() -> None:
        node = FakeNode(tmp_path)
        port = ApiPort(settings, create_app(node), node, lambda app: app, said.append)
        found = await port.open_to_pods("10.96.0.1")
        assert (found.address, found.number) == (GATEWAY, PORT)
        assert answers(pod) and answers(host)
        for _ in range(2):
            host.sh("ip", "link", "del", BRIDGE)
            await asyncio.sleep(0.3)  # some looks at a missing bridge
            add_bridge(host)
            await until_async(lambda: answers(pod), "the API to answer the pod again")
            assert answers(host)
        assert await port.open_to_pods("10.96.0.1") == found
        await port.close()
        assert not answers(pod)
        await node.store.close()

    host.run(lambda: asyncio.run(run()))
    assert said == []
