"""config-linux.md, "Network Devices": an interface moves into the container with its addresses, and back afterwards."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Bundle, Done, Runtime
from tests.waiting import until

if not Path("/usr/sbin/ip").exists() and not Path("/usr/bin/ip").exists() and not Path("/sbin/ip").exists():
    pytest.skip("needs iproute2", allow_module_level=True)


class Machine(Runtime):
    """The same runtime in a network namespace that serves as the machine's."""

    netns = ""
    permanent = frozenset({"192.0.2.7"})

    def command(self, *args: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.netns}", *super().command(*args)]

    def ip(self, *args: str) -> str:
        command = ["nsenter", f"--net=/run/netns/{self.netns}", "ip", *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def link(self, name: str) -> dict[str, Any] | None:
        found: list[dict[str, Any]] = json.loads(self.ip("-j", "address", "show"))
        return next((link for link in found if link["ifname"] == name), None)


@pytest.fixture
def machine(runtime: Runtime, bundle: Bundle) -> Iterator[Machine]:
    """With `d0`: up, a permanent address of each family, and a link-local one; and `d1`, down."""
    if runtime.name in ("runc", "crun"):
        pytest.skip("runc 1.1 does not know netDevices, which came with 1.3; nor does crun 1.21")
    made = Machine(runtime.path, runtime.root, runtime.made)
    made.netns = f"klt-{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", made.netns], check=True)
    try:
        for name in ("d0", "d1"):
            made.ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
            made.ip("link", "set", f"{name}-peer", "up")
        made.ip("link", "set", "d0", "mtu", "1404", "address", "02:00:00:00:00:07", "up")
        made.ip("address", "add", "192.0.2.7/24", "dev", "d0")
        if Path("/proc/net/if_inet6").exists():
            made.ip("address", "add", "2001:db8::7/64", "dev", "d0", "nodad")
            made.permanent = frozenset({"192.0.2.7", "2001:db8::7"})
        made.ip("address", "add", "192.0.2.8/24", "dev", "d0", "valid_lft", "1000", "preferred_lft", "1000")
        bundle.runtime = made
        yield made
    finally:
        for container_id in made.made:
            made("delete", "--force", container_id)
        subprocess.run(["ip", "netns", "delete", made.netns], check=True)


def inside(pid: int) -> dict[str, dict[str, Any]]:
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-j", "address", "show"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {link["ifname"]: link for link in found}


def addresses(link: dict[str, Any]) -> set[str]:
    return {a["local"] for a in link["addr_info"] if a["scope"] == "global"}


def test_moved_renamed_and_up_with_its_permanent_addresses(machine: Machine, bundle: Bundle) -> None:
    bundle.linux["netDevices"] = {"d0": {"name": "eth0"}, "d1": {}}
    links = inside(bundle.start("sleep", "60"))
    assert set(links) == {"lo", "eth0", "d1"}
    moved = links["eth0"]
    assert (moved["mtu"], moved["address"]) == (1404, "02:00:00:00:00:07")
    assert addresses(moved) == machine.permanent
    assert all("UP" in links[name]["flags"] for name in ("lo", "eth0", "d1"))
    assert machine.link("d0") is None


def test_the_kernel_chooses_a_name(machine: Machine, bundle: Bundle) -> None:
    bundle.linux["netDevices"] = {"d0": {"name": "net%d"}, "d1": {"name": "net%d"}}
    assert set(inside(bundle.start("sleep", "60"))) == {"lo", "net0", "net1"}


def test_joined_network_namespace(machine: Machine, bundle: Bundle) -> None:
    """The joined namespace belongs to another process: the interface stays in it after the container is deleted."""
    other = f"{machine.netns}x"
    subprocess.run(["ip", "netns", "add", other], check=True)
    try:
        bundle.namespaces(network=f"/run/netns/{other}")
        bundle.linux["netDevices"] = {"d0": {}}
        bundle.run("true", check=True)
        shown = subprocess.run(
            ["ip", "-n", other, "-j", "address"], check=True, capture_output=True, text=True
        )
        assert {link["ifname"] for link in json.loads(shown.stdout)} >= {"lo", "d0"}
    finally:
        subprocess.run(["ip", "netns", "delete", other], check=True)


def refused(bundle: Bundle) -> Done:
    done = bundle.create("true", check=False)
    assert done.code != 0
    assert not any(bundle.runtime.root.iterdir())
    return done


def test_a_failed_create_returns_the_interface_unchanged(machine: Machine, bundle: Bundle) -> None:
    before = machine.link("d0")
    bundle.linux["netDevices"] = {"d0": {"name": "eth0"}, "nowhere": {}}
    assert "nowhere" in refused(bundle).err
    del bundle.linux["netDevices"]["nowhere"]
    refused_later = bundle.create("no-such-program", check=False)
    assert refused_later.code != 0
    until(lambda: machine.link("d0") is not None)
    after = machine.link("d0")
    assert before is not None
    assert after is not None
    assert (after["mtu"], after["address"]) == (before["mtu"], before["address"])
    assert addresses(after) == machine.permanent
    assert "UP" in after["flags"]


@pytest.mark.parametrize(
    ("devices", "said"),
    [({"d0": {"name": "lo"}}, "lo"), ({"lo": {"name": "x"}}, "lo"), ({"d0": {"name": "a/b"}}, "a/b")],
)
def test_interfaces_that_cannot_be_moved(
    machine: Machine, bundle: Bundle, devices: dict[str, Any], said: str
) -> None:
    bundle.linux["netDevices"] = devices
    assert said in refused(bundle).err
    assert machine.link("d0") is not None


def test_without_a_network_namespace_of_its_own(machine: Machine, bundle: Bundle) -> None:
    bundle.namespaces(network=None)
    bundle.linux["netDevices"] = {"d0": {}}
    assert "network namespace" in refused(bundle).err
