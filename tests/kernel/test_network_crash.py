"""Leftovers of a killed helper or daemon, and how the next helper takes over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import NetworkError
from runtime.network.client import NetworkClient
from runtime.network.node import Node
from runtime.network.plan import PortMapping
from tests.kernel.netlab import HOST, INTERNET, Lab, Server, ask, lab

pytestmark = pytest.mark.kernel


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        yield made


def test_the_next_daemon_adopts_pods_and_their_connections(world: Lab) -> None:
    world.need_nat()
    pod = world.namespace()

    async def scenario() -> None:
        first = await NetworkClient.start(world.config())
        made = await first.add("pod", pod.path, [PortMapping(8080, 80)])
        server = pod.run(lambda: socket.create_server(("0.0.0.0", 80)))
        client = world.internet.run(lambda: socket.create_connection((HOST, 8080), timeout=3))
        connection, _ = server.accept()
        with server, client, connection:
            await first.close()
            second = await NetworkClient.start(world.config())
            assert await second.list() == [made]
            assert await second.check("pod") == [] and await second.audit() == []
            client.sendall(b"still")
            assert connection.recv(10) == b"still"
            other = world.namespace()
            with pytest.raises(NetworkError, match="already published by pod pod"):
                await second.add("other", other.path, [PortMapping(8080, 80)])
            assert (await second.add("other", other.path)).ip != made.ip
        with Server(pod, 80):
            assert ask(world.internet, HOST, 8080) == INTERNET
        await second.teardown()
        await second.close()

    world.play(scenario)


def test_a_killed_helper_is_replaced_unnoticed(world: Lab) -> None:
    pod, other = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        made = await node.add("pod", pod.path, [PortMapping(8080, 80)])
        os.kill(node.helper_pid, signal.SIGKILL)
        assert await node.list() == [replace(made, warnings=())]
        assert (await node.add("other", other.path)).ip == "10.77.0.3"
        with Server(pod, 80):
            assert ask(world.internet, HOST, 8080) == (INTERNET if world.nat else None)
        assert await node.audit() == []

    world.with_node(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_killed_in_the_middle_of_adds_and_deletes(world: Lab, seed: int) -> None:
    """kill -9 at random moments. Every call still succeeds, and nothing is left over."""
    chance = random.Random(seed)
    pods = [world.namespace() for _ in range(12)]

    async def kill_some(node: NetworkClient) -> None:
        for _ in range(2):
            await asyncio.sleep(chance.uniform(0.0005, 0.02))
            with contextlib.suppress(ProcessLookupError):
                os.kill(node.helper_pid, signal.SIGKILL)
            await asyncio.sleep(0.25)

    async def scenario(node: NetworkClient) -> None:
        adds = [node.add(f"pod-{n}", pod.path, [PortMapping(9000 + n, 80)]) for n, pod in enumerate(pods)]
        *made, _ = await asyncio.gather(*adds, kill_some(node))
        assert len({a.ip for a in made if a is not None}) == 12
        assert await node.audit() == []
        for number in range(12):
            assert await node.check(f"pod-{number}") == []
        with Server(pods[7], 80):
            assert ask(world.internet, HOST, 9007) == (INTERNET if world.nat else None)
        await asyncio.gather(*(node.delete(f"pod-{n}") for n in range(12)), kill_some(node))
        assert await node.audit() == [] and await node.list() == []
        assert [name for name in world.host.links() if name.startswith("kl")] == []

    world.with_node(scenario)


def test_an_add_that_never_finished_is_rolled_back(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop right before each step of an add, as after kill -9, without any clean-up. Then start a new helper."""

    class Killed(BaseException):
        pass

    for step in ("_make_veth", "_configure_inside", *(["_publish"] if world.nat else [])):
        pod = world.namespace()
        with monkeypatch.context() as patch:

            def die(*_: object) -> None:
                raise Killed

            patch.setattr(Node, step, die)
            patch.setattr(contextlib.ExitStack, "__exit__", lambda *_: None)  # a dead process undoes nothing

            def half(ns: str = pod.path) -> None:
                node = Node(world.config())
                try:
                    node.add("pod", ns, [PortMapping(8080, 80)])
                finally:
                    node._ports.release_all()  # the kernel closes the sockets of a dead process

            with pytest.raises(Killed):
                world.host.run(half)
        leases = Path(world.config().state_dir, "leases")
        assert os.listdir(leases) == ["pod.part"]

        async def start(leases: Path = leases) -> None:
            node = await NetworkClient.start(world.config())
            assert await node.list() == [] and await node.audit() == []
            assert list(leases.iterdir()) == []
            await node.add("pod", world.namespace().path, [PortMapping(8080, 80)])
            await node.delete("pod")
            await node.teardown()
            await node.close()

        world.play(start)
        assert pod.links() == ["lo"]


def test_leftovers_of_an_earlier_life_go(world: Lab) -> None:
    pod = world.namespace()

    async def scenario() -> None:
        first = await NetworkClient.start(world.config())
        made = await first.add("pod", pod.path, [PortMapping(8080, 80)])
        await first.close()
        leases = Path(first.config.state_dir, "leases")
        (leases / "pod.json").unlink()  # an interface and a port without a lease
        (leases / "torn.part").write_text('{"uid": "to')
        (leases / "half.json.tmp").write_text('{"uid"')
        (leases / "broken.json").write_text('{"uid"')
        second = await NetworkClient.start(world.config())
        assert made.host_ifname not in world.host.links()
        assert await second.audit() == [] and await second.list() == []
        assert any("broken.json is damaged and was set aside" in warning for warning in second.warnings)
        assert sorted(os.listdir(leases)) == ["broken.json.damaged"]
        await second.teardown()
        await second.close()

    world.play(scenario)


def test_a_helper_that_can_not_start_again_is_an_error_not_a_hang(world: Lab) -> None:
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        os.kill(node.helper_pid, signal.SIGKILL)
        world.host.sh("ip", "link", "del", node.config.bridge)
        world.host.sh("ip", "addr", "add", "10.77.0.9/24", "dev", "uplink")
        with pytest.raises(NetworkError, match="overlaps"):
            await node.add("pod", pod.path)
        world.host.sh("ip", "addr", "del", "10.77.0.9/24", "dev", "uplink")
        assert (await node.add("pod", pod.path)).ip == "10.77.0.2"

    world.with_node(scenario)


def test_the_helper_ends_with_its_daemon(world: Lab) -> None:
    async def scenario() -> int:
        node = await NetworkClient.start(world.config())
        await node.teardown()
        pid = node.helper_pid
        await node.close()
        with pytest.raises(NetworkError, match="closed"):
            await node.list()
        return pid

    pid = world.play(scenario)
    assert not Path(f"/proc/{pid}").exists()


def test_a_cancelled_call_does_not_disturb_the_next(world: Lab) -> None:
    pods = [world.namespace() for _ in range(4)]

    async def scenario(node: NetworkClient) -> None:
        adds = [asyncio.create_task(node.add(f"pod-{n}", pod.path)) for n, pod in enumerate(pods)]
        await asyncio.sleep(0)
        adds[1].cancel()
        made = await asyncio.gather(*adds, return_exceptions=True)
        assert isinstance(made[1], asyncio.CancelledError)
        assert len(await node.list()) in (3, 4)
        await node.delete("pod-1")  # as the caller does after a cancelled add
        assert sorted(a.uid for a in await node.list()) == ["pod-0", "pod-2", "pod-3"]
        assert await node.audit() == []

    world.with_node(scenario)


def test_failing_adds_beside_deletes_do_not_mix_up_their_answers(world: Lab) -> None:
    """An add that is rolled back deletes an interface while the other thread deletes interfaces as well."""
    good = [world.namespace() for _ in range(10)]
    bad = [world.namespace() for _ in range(10)]
    for ns in bad:
        ns.sh("ip", "link", "add", "eth0", "type", "bridge")

    async def scenario(node: NetworkClient) -> None:
        for number, ns in enumerate(good):
            await node.add(f"good-{number}", ns.path)
        calls: list[Coroutine[Any, Any, object]] = []
        for number in range(10):
            calls.append(node.delete(f"good-{number}"))
            calls.append(node.add(f"bad-{number}", bad[number].path))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[0::2] == [None] * 10
        assert all("already has an interface eth0" in str(error) for error in results[1::2]), results[1::2]
        assert await node.list() == [] and await node.audit() == []

    world.with_node(scenario)
