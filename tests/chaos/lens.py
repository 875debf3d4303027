"""The real state, from the kernel, the disk and the API, without the product's own code.

The tests' containers are recognized by the environment variables `CHAOS_POD`, `CHAOS_CONTAINER` and `CHAOS_GENERATION`
of process 1 of a pid namespace. So a second instance is found even if the node has no record of it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.e2e.node import Node

_UID = re.compile(r"/pod([0-9a-f-]{36})/")


class Unreachable(Exception):
    """The daemon does not answer: it was killed or has just started."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(node: Node, path: str, method: str = "GET") -> Any:
    """The JSON response of the node's API. Raises Unreachable if no daemon answers."""
    connection = _Unix(str(node.run_dir / "kubelite.sock"))
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(str(error)) from error
    finally:
        connection.close()


def pods(node: Node) -> dict[str, dict[str, Any]]:
    """Every pod object, by name."""
    return {item["metadata"]["name"]: item for item in ask(node, "/api/v1/pods")["items"]}


def doctor(node: Node) -> list[str]:
    """The errors that doctor finds."""
    found = ask(node, "/kubelite/v1/doctor")["findings"]
    return [f"{one['check']}: {one['message']}" for one in found if one["level"] == "error"]


# -- processes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Instance:
    """The first process of a container, identified by pid and start time."""

    pod: str
    container: str
    generation: int
    pid: int
    start: int
    uid: str


@dataclass(frozen=True, slots=True)
class Process:
    """A process in the node's cgroups."""

    pid: int
    name: str
    uid: str  # of the pod in whose cgroup it is, "" = none


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _started(pid: int) -> tuple[str, int]:
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return fields[0].decode(), int(fields[19])


def processes(node: Node) -> Iterator[Process]:
    """All running processes in the node's cgroups."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            groups = _read(f"/proc/{entry}/cgroup").decode()
            if f"/{node.cgroup_parent}/" not in groups or _started(int(entry))[0] in "ZX":
                continue
            found = _UID.search(groups)
            name = _read(f"/proc/{entry}/comm").decode().strip()
            yield Process(int(entry), name, found.group(1) if found else "")


def instances(node: Node) -> list[Instance]:
    """Every container that is executing its program, sorted."""
    found = []
    for process in processes(node):
        if not process.uid:
            continue
        with contextlib.suppress(OSError, KeyError, ValueError, IndexError):
            status = _read(f"/proc/{process.pid}/status").decode()
            spaces = re.search(r"^NSpid:\s+(.*)$", status, re.MULTILINE)
            if spaces is None or spaces.group(1).split()[-1] != "1":
                continue
            pairs = _read(f"/proc/{process.pid}/environ").decode().split("\0")
            env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
            found.append(
                Instance(
                    env["CHAOS_POD"],
                    env["CHAOS_CONTAINER"],
                    int(env["CHAOS_GENERATION"]),
                    process.pid,
                    _started(process.pid)[1],
                    process.uid,
                )
            )
    return sorted(found)


def shims(node: Node) -> dict[str, int]:
    """Pod uid → pid of the shim with this uid in its process title."""
    found = {}
    for process in processes(node):
        with contextlib.suppress(OSError):
            words = _read(f"/proc/{process.pid}/cmdline").rstrip(b"\0").decode().split()
            if process.name == "kubelite-shim" and len(words) == 2:
                found[words[1]] = process.pid
    return found


def children(node: Node) -> dict[str, int]:
    """The daemon's own helpers: name → pid."""
    found = {}
    if node.daemon is not None:
        with contextlib.suppress(OSError):
            for pid in _read(f"/proc/{node.daemon.pid}/task/{node.daemon.pid}/children").split():
                found[_read(f"/proc/{int(pid)}/comm").decode().strip()] = int(pid)
    return found


def kill(pid: int, start: int | None = None, number: int = signal.SIGKILL) -> bool:
    """Signal a process, but not a later one with the same pid. Return False if it has exited."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        state, since = _started(pid)
        if state in "ZX" or start not in (None, since):
            return False
        signal.pidfd_send_signal(descriptor, number)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


# -- the rest of the machine ------------------------------------------------------------------------------------


def interfaces(node: Node) -> list[str]:
    """The bridge's ports in the node's network namespace."""
    done = subprocess.run(
        node.in_netns("ip", "-json", "link", "show", "master", node.bridge),
        capture_output=True,
        check=False,
        text=True,
    )
    return [link["ifname"] for link in json.loads(done.stdout or "[]")] if done.returncode == 0 else []


def network(node: Node, docs: dict[str, dict[str, Any]], found: list[Instance]) -> list[str]:
    """What is wrong with the network according to the kernel: the bridge, forwarding, and each pod's address and
    routes."""
    faults = []
    bridge = _json(node.in_netns("ip", "-json", "addr", "show", "dev", node.bridge))
    if not bridge or "UP" not in bridge[0]["flags"]:
        faults.append(f"bridge {node.bridge} is not up")
    elif not _addresses(bridge[0]):
        faults.append(f"bridge {node.bridge} has no address")
    for key, wanted in (
        ("ip_forward", b"1"),
        (f"conf/{node.bridge}/forwarding", b"1"),
        (f"conf/{node.bridge}/route_localnet", b"1"),
    ):
        command = node.in_netns("cat", f"/proc/sys/net/ipv4/{key}")
        if subprocess.run(command, capture_output=True, check=False).stdout.strip() != wanted:
            faults.append(f"net/ipv4/{key} is not {wanted.decode()}")
    for one in {i.pod: i for i in found if i.pod in docs}.values():
        enter = ["nsenter", f"--net=/proc/{one.pid}/ns/net", "ip", "-json"]
        links, routes = (
            _json([*enter, "addr", "show", "dev", "eth0"]),
            _json([*enter, "route", "show", "default"]),
        )
        if not links or docs[one.pod]["status"].get("podIP") not in _addresses(links[0]):
            faults.append(f"pod {one.pod} does not have its address")
        if not routes:
            faults.append(f"pod {one.pod} has no default route")
    return faults


def _json(command: list[str]) -> list[dict[str, Any]]:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]") if done.returncode == 0 else []
    return [one for one in found if one]


def _addresses(link: dict[str, Any]) -> set[str]:
    return {one["local"] for one in link["addr_info"] if one["family"] == "inet"}


def cgroups(node: Node) -> set[str]:
    """The uids that have a cgroup, in any hierarchy."""
    found: set[str] = set()
    for top in node.cgroup_tops():
        found.update(path.name[3:] for path in (*top.glob("pod*"), *top.glob("*/pod*")))
    return found


def directories(node: Node) -> set[str]:
    """The uids that have a directory of any kind."""
    found = {path.name for path in (node.run_dir / "shims").glob("*")}
    found.update(path.name for path in (node.root / "pods").glob("*"))
    found.update(path.name.rpartition("_")[2] for path in (node.log_dir / "pods").glob("*"))
    return found


def log_lines(node: Node, name: str, uid: str, container: str) -> dict[int, list[str]]:
    """Attempt → the text of its log's lines, rotated files first."""
    directory = node.log_dir / "pods" / f"default_{name}_{uid}" / container
    found: dict[int, list[str]] = {}
    for path in sorted(directory.glob("*.log*"), key=lambda p: (p.suffix == ".log", p.name)):
        lines = found.setdefault(int(path.name.partition(".")[0]), [])
        for line in path.read_text(errors="replace").splitlines():
            parts = line.split(" ", 3)
            lines.append(parts[3] if len(parts) == 4 else f"torn: {line!r}")
    return found


def out_of_order(lines: list[str]) -> str:
    """The first position at which lines are not 0, 1, 2 …, or ""."""
    for index, line in enumerate(lines):
        if line != str(index):
            return f"line {index} is {line!r} (of {len(lines)})"
    return ""
