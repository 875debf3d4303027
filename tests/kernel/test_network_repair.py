"""Audit and repair of the network; nodes with the same name; hanging helpers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import NetworkError
from runtime.network import client as network_client
from runtime.network.client import NetworkClient
from runtime.network.plan import NetworkConfig, PortMapping
from tests.kernel.netlab import HOST, INTERNET, Lab, Netns, Server, ask, lab
from tests.waiting import until

pytestmark = pytest.mark.kernel


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        yield made


def _damage(world: Lab, pod: Netns, how: str, ifname: str) -> str:
    """Damage the network. Return what the audit must report."""
    match how:
        case "veth":
            world.host.sh("ip", "link", "del", ifname)
            return f"interface {ifname} is missing"
        case "pod's address":
            pod.sh("ip", "addr", "flush", "dev", "eth0")
            return "eth0 does not have the address 10.77.0.2"
        case "pod's route":
            pod.sh("ip", "route", "flush", "default")
            return "no default route"
        case "pod's interface":
            pod.sh("ip", "link", "del", "eth0")
            return f"interface {ifname} is missing"
        case "bridge's address":
            world.host.sh("ip", "addr", "flush", "dev", "br-lab")
            return "bridge br-lab does not have the address 10.77.0.1/24"
        case "bridge":
            world.host.sh("ip", "link", "del", "br-lab")
            return "bridge br-lab is missing or down"
        case "forwarding of the bridge":
            world.host.run(lambda: Path("/proc/sys/net/ipv4/conf/br-lab/forwarding").write_text("0"))
            return "net.ipv4.conf.br-lab.forwarding is 0"
    world.host.run(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("0"))
    return "net.ipv4.ip_forward is 0"


@pytest.mark.parametrize(
    "how",
    [
        "veth",
        "pod's address",
        "pod's route",
        "pod's interface",
        "bridge's address",
        "bridge",
        "forwarding",
        "forwarding of the bridge",
    ],
)
def test_damage_is_found_and_repaired(world: Lab, how: str) -> None:
    """After the repair a packet passes again, to the pod's old address."""
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        made = await node.add("pod", pod.path, [PortMapping(8080, 80)])
        expected = _damage(world, pod, how, made.host_ifname)
        assert any(expected in sentence for sentence in await node.audit()), await node.audit()
        mended = await node.repair()
        assert any(expected in sentence for sentence in mended.repaired), mended
        assert not mended.left and not mended.failures
        assert await node.audit() == []
        assert [(a.ip, a.host_ifname) for a in await node.list()] == [(made.ip, made.host_ifname)]
        with Server(pod, 80):
            assert ask(world.host, made.ip, 80) == "10.77.0.1"
            if world.nat:
                assert ask(world.internet, HOST, 8080) == INTERNET
        assert not (await node.repair()).repaired

    world.with_node(scenario)


def test_what_cannot_be_repaired_is_not_called_repaired(world: Lab) -> None:
    """The namespace has another eth0, so the pod cannot be attached again. Its lease and the finding remain until it
    can."""
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        made = await node.add("pod", pod.path)
        world.host.sh("ip", "link", "del", made.host_ifname)
        pod.sh("ip", "link", "add", "eth0", "type", "bridge")
        for _ in range(2):
            mended = await node.repair()
            assert not mended.repaired and "is missing" in mended.left[0]
            assert "already has an interface eth0" in mended.failures[0]
        pod.sh("ip", "link", "del", "eth0")
        assert not (await node.repair()).left
        assert await node.check("pod") == []
        assert (await node.list())[0].ip == made.ip

    world.with_node(scenario)


def test_a_route_of_the_pod_s_own_is_left_alone(world: Lab) -> None:
    """As from a VPN that takes over the default route."""
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        await node.add("pod", pod.path)
        pod.sh("ip", "link", "add", "tun0", "type", "bridge")
        pod.sh("ip", "addr", "add", "10.9.0.2/24", "dev", "tun0")
        pod.sh("ip", "link", "set", "tun0", "up")
        pod.sh("ip", "route", "replace", "default", "via", "10.9.0.1", "dev", "tun0")
        assert await node.audit() == []
        assert "10.9.0.1" in pod.sh("ip", "route", "show", "default")

    world.with_node(scenario)


def test_the_standing_repair_enters_other_pods_each_time(world: Lab) -> None:
    pods = [world.namespace() for _ in range(5)]

    async def scenario(node: NetworkClient) -> None:
        for number, pod in enumerate(pods):
            await node.add(f"pod-{number}", pod.path)
        for pod in pods:
            pod.sh("ip", "route", "flush", "default")
        found = [len((await node.repair(inside=2)).repaired) for _ in range(3)]
        assert sum(found) == 5 and max(found) == 2, found
        assert await node.audit() == []

    world.with_node(scenario)


def test_two_nodes_with_one_name_leave_each_other_alone(world: Lab, tmp_path: Path) -> None:
    """The name is the machine's by default. Each start, audit and teardown touches only what is the node's own."""
    ours, theirs = world.namespace(), world.namespace()
    first_config = replace(world.config(), node="machine")
    second_config = NetworkConfig("br-second", "10.78.0.0/24", str(tmp_path / "second"), "machine")

    async def scenario() -> None:
        first = await NetworkClient.start(first_config)
        await first.add("pod", ours.path, [PortMapping(8080, 80)])
        second = await NetworkClient.start(second_config)
        await second.add("pod", theirs.path, [PortMapping(8081, 80)])
        third_config = NetworkConfig("br-third", "10.79.0.0/24", str(tmp_path / "third"), "machine")
        again = await NetworkClient.start(third_config)
        for node in (first, second, again):
            assert await node.audit() == []
            assert not (await node.repair()).repaired
        await again.teardown()
        await second.teardown()
        assert await first.audit() == [] and await first.check("pod") == []
        with Server(ours, 80):
            assert ask(world.internet, HOST, 8080) == (INTERNET if world.nat else None)
        await first.teardown()
        for node in (first, second, again):
            await node.close()

    world.play(scenario)
    assert [name for name in world.host.links() if name.startswith(("kl", "br"))] == []


def test_a_node_of_an_older_version_keeps_its_names(world: Lab) -> None:
    """Up to 0.2 everything was named after the node alone, and a record said so. The bridge says it too."""
    pod = world.namespace()
    state = Path(world.config().state_dir)

    async def scenario() -> None:
        state.mkdir(parents=True)
        (state / "node").write_text("lab")
        old = await NetworkClient.start(world.config())
        made = await old.add("pod", pod.path)
        await old.close()
        new = await NetworkClient.start(world.config())
        assert await new.check("pod") == [] and (await new.list())[0].host_ifname == made.host_ifname
        await new.close()
        shutil.rmtree(state)  # with the record
        last = await NetworkClient.start(world.config())
        assert (state / "node").read_text() == "lab"
        assert (await last.add("pod", pod.path, had=made.ip)).ip == made.ip
        await last.teardown()
        await last.close()

    world.play(scenario)


def test_a_pod_whose_lease_is_lost_keeps_its_address(world: Lab) -> None:
    pods = [world.namespace() for _ in range(3)]

    async def scenario() -> None:
        first = await NetworkClient.start(world.config())
        made = [
            await first.add(f"pod-{n}", pod.path, [PortMapping(8080 + n, 80)]) for n, pod in enumerate(pods)
        ]
        await first.close()
        shutil.rmtree(world.config().state_dir)
        second = await NetworkClient.start(world.config())
        assert await second.list() == []
        assert (await second.add("pod-2", pods[2].path, [PortMapping(8082, 80)], had=made[2].ip)).ip == made[
            2
        ].ip
        assert (await second.add("pod-0", pods[0].path, had="10.77.0.255")).ip == "10.77.0.5"
        assert (await second.add("pod-1", pods[1].path, had=made[2].ip)).ip == "10.77.0.6"
        assert await second.audit() == []
        with Server(pods[2], 80):
            assert ask(world.internet, HOST, 8082) == (INTERNET if world.nat else None)
        await second.teardown()
        await second.close()

    world.play(scenario)


def test_an_unexpected_error_fails_one_request_and_not_the_helper(world: Lab) -> None:
    """A request that lacks a field, or has one too many, stands for a bug."""

    async def scenario(node: NetworkClient) -> None:
        pod, pid = world.namespace(), node.helper_pid
        with pytest.raises(NetworkError, match=r"failed in check \(KeyError: 'uid'\)"):
            await node._request("check")
        with pytest.raises(NetworkError, match=r"failed in delete \(TypeError: "):
            await node._request("delete", uid=[])
        with pytest.raises(NetworkError, match=r"failed in limit \(TypeError: "):
            await node._request("limit", uid="pod", bandwidth={"sideways": 1})
        await node.add("pod", pod.path)
        assert await node.audit() == [] and node.helper_pid == pid

    world.with_node(scenario)


def test_a_stopped_helper_is_replaced(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_client, "QUIET", 0.5)
    pods = [world.namespace() for _ in range(3)]

    async def scenario(node: NetworkClient) -> None:
        made = await node.add("pod-0", pods[0].path)
        stopped = node.helper_pid
        os.kill(stopped, signal.SIGSTOP)
        others = await asyncio.gather(*(node.add(f"pod-{n}", pods[n].path) for n in (1, 2)))
        assert node.helper_pid != stopped and not Path(f"/proc/{stopped}").exists()
        assert {a.ip for a in await node.list()} == {made.ip, *(a.ip for a in others)}
        assert await node.audit() == []

    world.with_node(scenario)


def test_a_helper_that_was_idle_has_its_full_time_for_the_next_request(
    world: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time without an answer counts from the first request that waits, not from the last answer before."""
    monkeypatch.setattr(network_client, "QUIET", 2.0)

    async def scenario(node: NetworkClient) -> None:
        await node.list()
        await asyncio.sleep(1.8)
        helper = node.helper_pid
        os.kill(helper, signal.SIGSTOP)
        waiting = asyncio.create_task(node.list())
        await asyncio.sleep(0.7)
        os.kill(helper, signal.SIGCONT)
        await waiting
        assert node.helper_pid == helper

    world.with_node(scenario)


def test_a_helper_that_hangs_in_its_set_up_is_an_error(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds the lock of its directory."""
    monkeypatch.setattr(network_client, "SET_UP", 0.5)
    state = Path(world.config().state_dir)
    state.mkdir(parents=True)

    async def scenario() -> None:
        with (state / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(NetworkError, match="did not set up the node in 0 s"):
                await NetworkClient.start(world.config())
        children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
        assert not any("kubelite-net" in _names(path.read_text()) for path in children)

    world.play(scenario)


def _names(pids: str) -> set[str]:
    found = set()
    for pid in pids.split():
        with contextlib.suppress(OSError):
            found.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return found


def test_a_stopped_helper_ends_with_its_daemon(world: Lab) -> None:
    """Otherwise it would hold the lock of the state directory forever."""
    pid = 0

    async def scenario() -> None:
        nonlocal pid
        node = await NetworkClient.start(world.config())
        await node.teardown()
        pid = node.helper_pid
        os.kill(pid, signal.SIGSTOP)

    with contextlib.suppress(RuntimeError):
        world.play(scenario)  # the thread that started the helper ends here, as a killed daemon's would
    until(lambda: Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z")
    os.waitpid(pid, 0)
