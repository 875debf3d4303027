"""Pods on networks of CNI plugins: those of Debian's containernetworking-plugins, and one that misbehaves."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from runtime.cni.network import CniConfig, CniNetwork
from runtime.cni.requests import PodFacts
from runtime.errors import NetworkError
from runtime.network.plan import Bandwidth, PortMapping
from tests.kernel.netlab import Lab, Server, ask, lab

pytestmark = pytest.mark.kernel
DEBIANS = "/usr/lib/cni"

ODD = """#!/bin/sh
# Answers as the file beside it says: the first word is what it does, the second the command that it does it for.
read -r does command < "$(dirname "$0")/odd.does"
if [ "$CNI_COMMAND" = VERSION ]; then
    echo '{"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}'; exit
fi
echo "$CNI_COMMAND $(cat)" >> "$(dirname "$0")/odd.calls"
if [ "$command" = "$CNI_COMMAND" ]; then case $does in
    hangs) sleep 1000 & sleep 1000;;
    fails) echo '{"cniVersion": "1.1.0", "code": 11, "msg": "no more addresses", "details": "try later"}'; exit 1;;
    garbage) echo 'Segmentation fault'; exit;;
    floods) yes;;
esac; fi
if [ "$CNI_COMMAND" = ADD ]; then
    echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.66.0.9/24"}]}'
fi
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        yield made


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(*plugins: dict[str, Any], version: str = "1.0.0", **more: Any) -> Path:
        directory = tmp_path / "net.d"
        directory.mkdir(exist_ok=True)
        path = directory / "10-pods.conflist"
        path.write_text(json.dumps({"cniVersion": version, "name": "pods", "plugins": plugins} | more))
        return path

    return write


def network(
    tmp_path: Path, paths: tuple[str, ...], facts: PodFacts | None = None, seconds: float = 20.0
) -> CniNetwork:
    config = CniConfig(str(tmp_path / "net.d"), paths, str(tmp_path / "records"), seconds)
    return CniNetwork(config, lambda _uid: facts or PodFacts("default", "web"))


def needs_plugins(*kinds: str) -> None:
    if not all(os.path.exists(f"{DEBIANS}/{kind}") for kind in kinds):
        pytest.skip("needs containernetworking-plugins")


def bridge(tmp_path: Path) -> dict[str, Any]:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd66::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(tmp_path / "leases"),
    }
    asked = {"ips": True, "mac": True}
    return {"type": "bridge", "bridge": "cnitest0", "isGateway": True, "ipam": ipam, "capabilities": asked}


def leases(tmp_path: Path) -> set[str]:
    directory = tmp_path / "leases" / "pods"
    return {name for name in os.listdir(directory) if name[0].isdigit()} if directory.is_dir() else set()


def test_a_chain_of_debians_plugins(world: Lab, tmp_path: Path, write: Callable[..., Path]) -> None:
    needs_plugins("bridge", "host-local", "bandwidth", "tuning")
    bandwidth = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    write(bridge(tmp_path), {"type": "tuning", "sysctl": {"net.core.somaxconn": "77"}}, bandwidth)
    pod, other = world.namespace(), world.namespace()

    async def scenario() -> None:
        calls: list[str] = []
        config = CniConfig(str(tmp_path / "net.d"), (DEBIANS,), str(tmp_path / "records"))
        asked = {"a": PodFacts("default", "web", ips=("10.66.0.42/24",), mac="0a:58:00:00:00:07")}

        def step(_uid: str, call: str) -> AbstractContextManager[None]:
            calls.append(call)
            return nullcontext()

        node = CniNetwork(
            config,
            lambda uid: asked.get(uid, PodFacts()),
            step=step,
        )
        await node.look()
        assert node.not_ready == ""
        found = await node.add("a", pod.path, limit=Bandwidth(ingress=10**6))
        assert (found.ip, found.mac, found.warnings) == ("10.66.0.42", "0a:58:00:00:00:07", ())
        assert found.ip6.startswith("fd66::")
        assert "inet 10.66.0.42/24" in pod.sh("ip", "addr", "show", "eth0")
        assert calls == ["ADD bridge", "ADD tuning", "ADD bandwidth"]
        second = await node.add("b", other.path)
        other.sh("ping", "-c", "1", "-W", "3", found.ip)
        assert leases(tmp_path) == {found.ip, second.ip}
        assert await node.check("a") == []
        pod.sh("ip", "addr", "flush", "dev", "eth0")
        (problem,) = await node.check("a")
        assert 'plugin type="bridge" name="pods" failed (check)' in problem

        # a daemon that starts again has the results, and detaches a pod whose namespace is gone
        again = network(tmp_path, (DEBIANS,))
        assert {one.uid: one.ip for one in await again.list()} == {"a": found.ip, "b": second.ip}
        other.close()
        await again.delete("b")
        await again.delete("a")
        assert "eth0" not in pod.links()
        assert leases(tmp_path) == set() and await again.list() == []
        world.host.sh("ip", "link", "del", "cnitest0")

    world.play(scenario)


def test_host_ports_by_portmap(world: Lab, tmp_path: Path, write: Callable[..., Path]) -> None:
    needs_plugins("bridge", "host-local", "portmap")
    if not shutil.which("iptables"):
        pytest.skip("needs iptables")
    world.need_nat()
    pod = world.namespace()
    write(bridge(tmp_path), {"type": "portmap", "capabilities": {"portMappings": True}})

    async def scenario() -> None:
        node = network(tmp_path, (DEBIANS,))
        await node.add("a", pod.path, [PortMapping(8080, 80)])
        Server(pod, 80, says="through the host")
        assert ask(world.internet, "198.51.100.2", 8080) == "through the host"
        await node.delete("a")
        assert ask(world.internet, "198.51.100.2", 8080) is None
        write(bridge(tmp_path))
        await node.look()
        with pytest.raises(NetworkError, match="no plugin of network pods has the capability portMappings"):
            await node.add("a", pod.path, [PortMapping(8080, 80)])
        assert leases(tmp_path) == set()

    world.play(scenario)


def test_macvlan_and_ptp(world: Lab, tmp_path: Path, write: Callable[..., Path]) -> None:
    needs_plugins("macvlan", "ptp", "host-local")
    ipam = bridge(tmp_path)["ipam"]
    pod = world.namespace()

    async def scenario() -> None:
        node = network(tmp_path, (DEBIANS,))
        for plugin in ({"type": "ptp", "ipam": ipam}, {"type": "macvlan", "master": "uplink", "ipam": ipam}):
            write(plugin)
            await node.look()
            found = await node.add("a", pod.path)
            assert f"inet {found.ip}/" in pod.sh("ip", "addr", "show", "eth0")
            await node.delete("a")
            assert "eth0" not in pod.links() and leases(tmp_path) == set()

    world.play(scenario)


@pytest.fixture
def odd(tmp_path: Path) -> Callable[[str], list[str]]:
    """Set what the plugin `odd` does; return its calls so far."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "odd").write_text(ODD)
    (directory / "odd").chmod(0o755)

    def does(what: str) -> list[str]:
        (directory / "odd.does").write_text(f"{what}\n")
        calls = directory / "odd.calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return lines

    does("nothing never")
    return does


@pytest.mark.parametrize(
    "case",
    [
        ("fails", "no more addresses; try later"),
        ("garbage", "unexpected answer"),
        ("hangs", "it has not answered for 1 s, and was killed"),
        ("floods", "it writes more than 4 MiB"),
    ],
)
def test_a_plugin_that_misbehaves_is_named_and_undone(
    world: Lab,
    tmp_path: Path,
    write: Callable[..., Path],
    odd: Callable[[str], list[str]],
    case: tuple[str, str],
) -> None:
    does, words = case
    write({"type": "odd"}, version="1.1.0")
    pod = world.namespace()

    async def scenario() -> None:
        node = network(tmp_path, (str(tmp_path / "bin"),), seconds=1.0)
        await node.look()
        odd(f"{does} ADD")
        began = time.monotonic()
        with pytest.raises(NetworkError, match=words) as raised:
            await node.add("a", pod.path)
        assert 'plugin type="odd" name="pods" failed (add)' in str(raised.value)
        assert time.monotonic() - began < 5
        assert [call.split()[0] for call in odd("nothing never")] == ["ADD", "DEL"]
        assert await node.list() == [] and (await node.add("a", pod.path)).ip == "10.66.0.9"

        odd("fails DEL")
        with pytest.raises(NetworkError, match=r"failed \(delete\)"):
            await node.delete("a")
        assert len(await node.list()) == 1  # still to be detached
        odd("nothing never")
        assert (await node.repair()).repaired and await node.list() == []
        (call,) = odd("nothing never")
        assert "prevResult" in call and "10.66.0.9" in call

    world.play(scenario)


def test_a_killed_daemon_leaves_a_record_of_what_it_began(
    world: Lab, tmp_path: Path, write: Callable[..., Path], odd: Callable[[str], list[str]]
) -> None:
    write({"type": "odd"}, version="1.1.0")
    pod = world.namespace()

    async def scenario() -> None:
        node = network(tmp_path, (str(tmp_path / "bin"),))
        await node.look()
        await node.add("a", pod.path)
        record = tmp_path / "records" / "a.json"
        began = json.loads(record.read_text()) | {"result": None}
        record.write_text(json.dumps(began))  # as it is before the plugins have answered

        again = network(tmp_path, (str(tmp_path / "bin"),))
        assert [one.ip for one in await again.list()] == [""]
        await again.look()
        odd("nothing never")
        await again.add("a", pod.path)
        assert [call.split()[0] for call in odd("nothing never")] == ["DEL", "ADD"]
        await again.collect()
        (call,) = odd("nothing never")
        (valid,) = json.loads(call.removeprefix("GC "))["cni.dev/valid-attachments"]
        assert valid["ifname"] == "eth0" and valid["containerID"] != began["pod"]["container_id"]
        await again.teardown()
        assert await again.list() == []

    world.play(scenario)


def test_the_network_is_ready_when_there_is_a_conflist(
    world: Lab, tmp_path: Path, write: Callable[..., Path], odd: Callable[[str], list[str]]
) -> None:
    pod = world.namespace()

    async def scenario() -> None:
        changes: list[str] = []
        config = CniConfig(str(tmp_path / "net.d"), (str(tmp_path / "bin"),), str(tmp_path / "records"))
        node = CniNetwork(config, lambda _uid: PodFacts(), changed=lambda: changes.append("changed"))
        await node.look()
        assert node.not_ready == "network plugin is not ready: cni config uninitialized" and not changes
        with pytest.raises(NetworkError, match="cni config uninitialized"):
            await node.add("a", pod.path)
        written = write({"type": "odd"}, version="1.1.0")
        await node.look()
        assert (node.not_ready, changes) == ("", ["changed"])
        odd("fails STATUS")
        await node.look()
        assert "failed (status): no more addresses" in node.not_ready
        odd("nothing never")
        write({"type": "missing"})
        await node.look()
        assert 'failed to find plugin "missing" in path' in node.not_ready
        written.unlink()
        await node.look()
        assert "cni config uninitialized" in node.not_ready

    world.play(scenario)
