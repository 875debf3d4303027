"""Limits of pods' bandwidth in the kernel: what a pod receives and sends in a second, what is repaired, and what is
left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.network.client import NetworkClient
from runtime.network.nft_messages import attribute
from runtime.network.node import Node
from runtime.network.plan import Bandwidth
from runtime.network.shaping import qdiscs
from tests.kernel.netlab import SOON, Lab, Netns, lab

pytestmark = pytest.mark.kernel
RATE = 40_000_000  # bits per second
SECONDS = 1.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        yield made


@pytest.fixture
def tc(world: Lab) -> str:
    if not (path := shutil.which("tc")):
        pytest.skip("needs iproute2")
    probe = "ip link add probe type ifb && tc qdisc add dev probe root tbf rate 1mbit burst 10kb latency 25ms"
    try:
        world.namespace().sh("sh", "-c", probe)
    except subprocess.CalledProcessError:
        pytest.skip("needs tbf and ifb in the kernel")
    return path


def received(sender: Netns, receiver: Netns, address: str) -> float:
    """Bits per second that a TCP connection carries."""
    with receiver.run(socket.socket) as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        ended = threading.Event()

        def send() -> None:
            with sender.run(socket.socket) as client:
                client.settimeout(SOON)
                client.connect((address, server.getsockname()[1]))
                while not ended.is_set():
                    try:
                        client.send(bytes(1 << 16))
                    except OSError:
                        return

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        connection, _ = server.accept()
        with connection:
            connection.settimeout(SOON)
            count, began = 0, time.monotonic()
            while (took := time.monotonic() - began) < SECONDS:
                count += len(connection.recv(1 << 20))
            ended.set()
        thread.join(SOON)
    return count * 8 / took


def test_a_pod_receives_and_sends_what_it_may(world: Lab, tc: str) -> None:
    async def scenario(node: NetworkClient) -> None:
        limited, free = world.namespace(), world.namespace()
        one = await node.add("limited", limited.path, limit=Bandwidth(ingress=RATE, egress=RATE // 2))
        other = await node.add("free", free.path)
        assert one.warnings == ()
        to_pod, from_pod = received(free, limited, one.ip), received(limited, free, other.ip)
        assert RATE / 2 < to_pod < 1.1 * RATE, f"{to_pod / RATE:.2f} of the rate"
        assert RATE / 4 < from_pod < 1.1 * RATE / 2, f"{from_pod / RATE * 2:.2f} of the rate"
        assert received(world.host, free, other.ip) > 2 * RATE, "others are not limited"
        assert f"rate {RATE // 1_000_000}Mbit" in world.host.sh(tc, "qdisc", "show", "dev", one.host_ifname)
        assert await node.audit() == []

    world.with_node(scenario)


def test_what_another_program_removes_is_restored(world: Lab, tc: str) -> None:
    async def scenario(node: NetworkClient) -> None:
        ns = world.namespace()
        pod = await node.add("pod", ns.path, limit=Bandwidth(ingress=RATE, egress=RATE))
        said = f"pod pod: {pod.host_ifname} does not limit the pod's bandwidth"
        (ifb,) = (
            name for name in world.host.links() if name[:7] == pod.host_ifname[:7] != name != pod.host_ifname
        )
        for damage in (
            (tc, "qdisc", "del", "dev", pod.host_ifname, "root"),
            (tc, "qdisc", "del", "dev", pod.host_ifname, "ingress"),
            (tc, "filter", "del", "dev", pod.host_ifname, "ingress"),
            (tc, "qdisc", "del", "dev", ifb, "root"),
            ("ip", "link", "del", ifb),
        ):
            world.host.sh(*damage)
            assert said in await node.audit()
            assert said in (await node.repair()).repaired and await node.audit() == []
        world.host.sh("ip", "link", "del", pod.host_ifname)  # the pod is attached again
        await node.repair()
        assert await node.audit() == []
        os.kill(node.helper_pid, signal.SIGKILL)
        assert await node.audit() == []
        await node.delete("pod")
        assert not {ifb, pod.host_ifname} & set(world.host.links())
        assert await node.audit() == []

    world.with_node(scenario)


def test_pods_without_a_limit_have_nothing_of_it(world: Lab, tc: str) -> None:
    async def scenario(node: NetworkClient) -> None:
        plain, one_way = world.namespace(), world.namespace()
        pod = await node.add("pod", plain.path)
        half = await node.add("half", one_way.path, limit=Bandwidth(ingress=1000))
        assert "tbf" not in world.host.sh(tc, "qdisc", "show", "dev", pod.host_ifname)
        assert "ingress" not in world.host.sh(tc, "qdisc", "show", "dev", half.host_ifname)
        assert "rate 1Kbit" in world.host.sh(tc, "qdisc", "show", "dev", half.host_ifname)
        assert "ifb" not in world.host.sh("ip", "-d", "link", "show")

    world.with_node(scenario)


@pytest.mark.parametrize("lacks", ["ifb", "u32", "tbf"])
def test_a_kernel_that_cannot_limit_is_not_repaired_again_and_again(
    world: Lab, tc: str, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    """The kernel answers for a kind of tomorrow as for one that it was built without. Nothing half done is left."""
    kind = lacks.encode() + b"\0"
    limit = Bandwidth(ingress=RATE, egress=RATE)

    def of_tomorrow(number: int, value: bytes) -> bytes:
        return attribute(number, b"of-tomorrow\0" if value == kind else value)

    def scenario() -> None:
        node = Node(world.config())
        try:
            pod = node.add("pod", namespace.path, ())
            with monkeypatch.context() as patched:
                patched.setattr(qdiscs, "attribute", of_tomorrow)
                (said,) = node.limit("pod", limit)
                assert "this kernel cannot limit bandwidth" in said
                assert "ingress" not in world.host.sh(tc, "qdisc", "show", "dev", pod.host_ifname)
                assert "ifb" not in world.host.sh("ip", "-d", "link", "show")
                done = node.repair()
                assert (list(done.repaired), list(done.failures)) == ([], [])
                assert (
                    list(done.left)
                    == node.audit()
                    == [f"pod pod: {pod.host_ifname} does not limit the pod's bandwidth"]
                )
                node = Node(world.config())  # the helper was restarted
                done = node.repair()
                assert (list(done.repaired), list(done.failures)) == ([], []) and len(done.left) == 1
            assert node.limit("pod", limit) == []  # a kernel that has been given the module
            assert node.audit() == []
        finally:
            node.teardown()

    namespace = world.namespace()
    world.host.run(scenario)
