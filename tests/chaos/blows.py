"""Blows that leave every process alive: stopped processes, frozen cgroups, and a network that somebody changes.

Each takes the machine and the seeded generator and returns a `Blow`. What the node must mend by itself stays as it is.
`damage.py` has those on files, `shortages.py` those that take away what the daemon needs.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import lens
from tests.chaos.machine import Machine

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Blow:
    """What was done. `undo` takes back what only its cause can: the node does not thaw a cgroup that an administrator
    froze. `pods`: the uids of pods that the node may recreate or restart because of it. `no_start`: a daemon that is
    started before `undo` ends with an error."""

    what: str
    undo: Undo | None = None
    pods: frozenset[str] = frozenset()
    no_start: bool = False


Family = Callable[[Machine, random.Random], Blow]


def stop_helper(machine: Machine, rng: random.Random) -> Blow:
    """SIGSTOP a helper of the daemon, which must replace it."""
    helpers = sorted(lens.children(machine).items())
    if not helpers:
        return Blow("stop a helper: there is none")
    name, pid = rng.choice(helpers)
    done = lens.kill(pid, number=signal.SIGSTOP)
    return Blow(f"stop {name} {pid}" if done else f"stop {name}: it has exited")


def stop_shim(machine: Machine, rng: random.Random) -> Blow:
    """SIGSTOP a pod's shim until the quiet moment."""
    shims = sorted(lens.shims(machine).items())
    if not shims:
        return Blow("stop a shim: there is none")
    uid, pid = rng.choice(shims)
    if not lens.kill(pid, number=signal.SIGSTOP):
        return Blow(f"stop shim of {uid}: it has exited")

    def resume() -> None:
        lens.kill(pid, number=signal.SIGCONT)

    return Blow(f"stop shim {pid} of {uid}", resume)


def freeze_pod(machine: Machine, rng: random.Random) -> Blow:
    """Freeze the cgroup of a pod, or of one of its containers, until the quiet moment."""
    found = lens.instances(machine)
    if not found:
        return Blow("freeze a pod: there is none")
    one = rng.choice(found)
    whole = rng.random() < 0.5
    with contextlib.suppress(OSError):
        place = _freezer(one.pid)
        place = place.parent.parent / place.name if whole else place
        _freeze(place, True)
        words = f"freeze {'pod' if whole else 'container'} {one.pid}"
        return Blow(words, lambda: _freeze(place, False))
    return Blow(f"freeze {one.pod}: it has exited")


def _freezer(pid: int) -> Path:
    """The file that freezes the cgroup of a process: of the v1 controller, if there is one."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    found = {controllers: path for _, controllers, path in lines}
    if "freezer" in found:
        return Path(f"/sys/fs/cgroup/freezer{found['freezer']}/freezer.state")
    return Path(f"/sys/fs/cgroup{found['']}/cgroup.freeze")


def _freeze(file: Path, frozen: bool) -> None:
    """Freeze or thaw. A cgroup that is gone is neither."""
    words = ("FROZEN", "THAWED") if file.name == "freezer.state" else ("1", "0")
    with contextlib.suppress(FileNotFoundError):
        file.write_text(words[0] if frozen else words[1])


def change_network(machine: Machine, rng: random.Random) -> Blow:
    """Remove something of the node's network, which the node must restore."""
    ports = lens.interfaces(machine)
    moves: dict[str, list[str]] = {
        "flush the bridge's address": ["ip", "addr", "flush", "dev", machine.bridge],
        "set the bridge down": ["ip", "link", "set", machine.bridge, "down"],
        "ip_forward=0": ["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"],
        "flush nftables": ["nft", "flush", "ruleset"],
    }
    if ports:
        port = rng.choice(sorted(ports))
        moves[f"delete {port}"] = ["ip", "link", "del", port]
        moves[f"set {port} down"] = ["ip", "link", "set", port, "down"]
        moves[f"take {port} from the bridge"] = ["ip", "link", "set", port, "nomaster"]
    what = rng.choice(list(moves))
    done = _succeeds(machine.in_netns(*moves[what]))
    return Blow(what if done else f"{what}: it is not there")


def _succeeds(command: list[str]) -> bool:
    done = subprocess.run(command, capture_output=True, check=False, timeout=30)
    return done.returncode == 0


def change_pod_network(machine: Machine, rng: random.Random) -> Blow:
    """Remove the address or the routes of a pod, which the node must restore."""
    found = lens.instances(machine)
    if not found:
        return Blow("change a pod's network: there is none")
    one = rng.choice(found)
    command, what = rng.choice(
        [(["addr", "flush", "dev", "eth0"], "address"), (["route", "flush", "table", "main"], "routes")]
    )
    done = _succeeds(["nsenter", f"--net=/proc/{one.pid}/ns/net", "ip", *command])
    return Blow(f"flush {what} of {one.pod}" if done else f"flush {what} of {one.pod}: it has exited")


def change_sysctls(machine: Machine, rng: random.Random) -> Blow:
    """Turn off a sysctl of the node's network that pods need."""
    key, value = rng.choice(
        (
            (f"net/ipv4/conf/{machine.bridge}/forwarding", "0"),
            (f"net/ipv4/conf/{machine.bridge}/route_localnet", "0"),
            ("net/ipv4/conf/all/forwarding", "0"),
        )
    )
    done = _succeeds(machine.in_netns("sh", "-c", f"echo {value} > /proc/sys/{key}"))
    return Blow(f"{key}={value}" if done else f"{key}: it is not there")


FAMILIES: dict[str, Family] = {
    "stopped-helper": stop_helper,
    "stopped-shim": stop_shim,
    "frozen-cgroup": freeze_pod,
    "changed-network": change_network,
    "changed-pod-network": change_pod_network,
    "changed-sysctls": change_sysctls,
}
