"""A cage for a peer, run as a script: namespaces that contain everything the peer creates, and end with it.

    cage.py CGROUP [PROGRAM …]     (CGROUP exists below the root of every hierarchy)

It moves itself into CGROUP and becomes PID 1 of new pid, mount, network, IPC, UTS and cgroup namespaces: /run, /dev/shm
and /var/lib/containers are empty, /sys/fs/cgroup shows CGROUP as the root; on a hybrid machine without the v2 mount
(crun and podman refuse one that has any controller left), so with exactly the v1 controllers that there are. When the
process that started it dies, or its standard input ends, the kernel ends everything in it.

Then it executes PROGRAM or, without one, does as it is told, a line of JSON an order, and answers each with a line. A
command's clock begins right before posix_spawn, so neither nsenter nor a shell is in anybody's time.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
ROOT = "/sys/fs/cgroup"

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    cgroup = sys.argv[1]
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the benchmark handles Ctrl-C and then ends the cages in order
    hierarchies = _join(cgroup)
    flags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    _must(libc.unshare(flags), "unshare")
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _mounts(hierarchies)
    os.spawnvp(os.P_WAIT, "ip", ["ip", "link", "set", "lo", "up"])
    if sys.argv[2:]:
        os.execvp(sys.argv[2], sys.argv[2:])
    for line in sys.stdin:
        print(json.dumps(_obey(json.loads(line))), flush=True)


def _join(cgroup: str) -> dict[str, str]:
    """Into the cgroup of every hierarchy. Returns v1 name → mount options, or "" → "" for cgroup2 alone."""
    if os.path.exists(f"{ROOT}/cgroup.controllers"):
        _write(f"{ROOT}/{cgroup}/cgroup.procs", "0")
        return {"": ""}
    found = {}
    for name in sorted(os.listdir(ROOT)):
        if (
            name != "unified"
            and os.path.isdir(f"{ROOT}/{name}/{cgroup}")
            and not os.path.islink(f"{ROOT}/{name}")
        ):
            if name == "cpuset":  # a new cpuset is empty, and an empty one accepts no process
                for file in ("cpuset.cpus", "cpuset.mems"):
                    with open(f"{ROOT}/cpuset/{file}", encoding="ascii") as source:
                        _write(f"{ROOT}/cpuset/{cgroup}/{file}", source.read().strip())
                _write(f"{ROOT}/cpuset/{cgroup}/cgroup.clone_children", "1")
            _write(f"{ROOT}/{name}/{cgroup}/cgroup.procs", "0")
            found[name] = "none,name=systemd" if name == "systemd" else name
    return found


def _mounts(hierarchies: dict[str, str]) -> None:
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    libc.umount2(
        b"/sys", MNT_DETACH
    )  # what is covered up only would still be in mountinfo, for engines to find
    _mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if "" in hierarchies:
        _mount("cgroup2", ROOT, "cgroup2", 0)
        os.makedirs(f"{ROOT}/peer", exist_ok=True)  # a cgroup with processes gives no controllers to others
        _write(f"{ROOT}/peer/cgroup.procs", "0")
        with open(f"{ROOT}/cgroup.controllers", encoding="ascii") as file:
            _write(f"{ROOT}/cgroup.subtree_control", " ".join(f"+{name}" for name in file.read().split()))
    else:
        _mount("tmpfs", ROOT, "tmpfs", 0, "mode=755")
        for name, options in hierarchies.items():
            os.mkdir(f"{ROOT}/{name}")
            _mount("cgroup", f"{ROOT}/{name}", "cgroup", 0, options)
    for place in ("/run", "/dev/shm", "/var/lib/containers"):
        if os.path.isdir(place):
            _mount(
                "tmpfs",
                place,
                "tmpfs",
                MS_NOSUID | MS_NODEV,
                "mode=755" if place != "/dev/shm" else "mode=1777",
            )


def _obey(order: dict[str, Any]) -> dict[str, Any]:
    """{"commands": [argv, …], "parallel": N, "input": FILE, "out": FILE, "stay": bool} → {"began", "ended": Unix ns,
    "codes": [exit code, …]}; with `stay` nothing is waited for. Orphans of whatever ran are reaped on the way."""
    todo: list[tuple[int, list[str]]] = list(enumerate(order["commands"]))
    running: dict[int, int] = {}
    codes: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    began = time.time_ns()
    while todo or running:
        while todo and len(running) < order["parallel"]:
            number, argv = todo.pop(0)
            running[_spawn(argv, order)] = number
        if order.get("stay"):
            break
        pid, status = os.waitpid(-1, 0)
        if pid in running:
            codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
    return {"began": began, "ended": time.time_ns(), "codes": [codes[number] for number in sorted(codes)]}


def _spawn(argv: list[str], order: dict[str, Any]) -> int:
    write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, order.get("input", "/dev/null"), os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, order["out"], write, 0o644),
        (os.POSIX_SPAWN_OPEN, 2, order.get("err", order["out"]), write, 0o644),
    ]
    return os.posix_spawnp(
        argv[0], argv, os.environ, file_actions=actions, setsigmask=[], setsigdef=[signal.SIGINT]
    )


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind, data)]
    _must(
        libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount {kind} on {target}"
    )


def _must(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


if __name__ == "__main__":
    main()
