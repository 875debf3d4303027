"""Station 9: one start, from the manifest's rename to execve, compared with what strace sees; and the closing table."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

from kubelite.cli.output.trace_formats import short
from kubelite.cli.tour import kernel
from kubelite.cli.tour.guide import MANIFEST, NAMESPACE, Guide, Missing, container, pod

INTRODUCTION = """
Everything so far happens in one start: a file is renamed into a directory, and milliseconds later a program runs in
namespaces, limits and a root of its own. kubelite notes the time of each step, and the calls where it makes them.
strace, which sees every call that a process makes, is the witness that the notes are true.
"""

#: Calls that change something for the container. The trace and strace both count them.
COMPARED = (
    "mount", "move_mount", "open_tree", "fsmount", "pivot_root", "umount2", "mknodat", "symlinkat", "setsid", "unshare",
    "keyctl", "setgroups", "setresgid", "setresuid", "capset", "seccomp", "execve",
)  # fmt: skip
#: Steps of the shim, not of the container's init.
PARENTS = ("config.json", "cgroup made", "clone3", "start")
#: Docker's part, ours, the kernel's primitive, and the file in this repository.
PARTS = (
    ("docker (command)", "kubelite", "a Unix socket", "kubelite/cli/main.py"),
    ("dockerd", "daemon", "epoll, inotify", "kubelite/daemon/lifecycle.py"),
    ("dockerd: what is desired", "manifest directory", "inotify, rename", "kubelite/sources/directory.py"),
    ("dockerd: restart policy", "a pure decision", "none", "kubelite/node/decide/decision.py"),
    ("containerd: images", "image store", "rename, fsync", "runtime/images/store/store.py"),
    ("containerd: pull", "image worker", "sockets, sha256", "runtime/images/pull.py"),
    ("overlay2 (snapshotter)", "unpacked layers", "overlayfs", "runtime/oci/rootfs/rootfs.py"),
    ("containerd-shim", "shim", "clone3, pidfd, waitid", "runtime/shim/shim.py"),
    ("runc", "the engine's init", "namespaces, pivot_root, execve", "runtime/oci/init.py"),
    ("runc: cgroups", "cgroup v1 and v2", "cgroup files, bpf", "runtime/cgroups/v2.py"),
    ("runc: seccomp", "default profile", "seccomp", "runtime/security/seccomp_default.py"),
    ("runc: capabilities", "capability sets", "capset, prctl", "runtime/security/capabilities.py"),
    ("runc: devices and /dev", "mount plan", "mknodat, mount, open_tree", "runtime/oci/rootfs/operations.py"),
    ("docker exec", "exec in the shim", "setns, clone3", "runtime/shim/exec.py"),
    ("docker logs (json-file)", "CRI logs", "pipes", "runtime/shim/logs.py"),
    ("libnetwork: bridge", "network helper", "veth, bridge, netlink", "runtime/network/bridge.py"),
    ("docker-proxy, iptables", "one map", "nftables, conntrack", "runtime/network/nat.py"),
    ("docker volume", "claims and volumes", "bind mounts", "runtime/oci/rootfs/binds.py"),
    ("docker stats", "readers", "cgroup files", "runtime/cgroups/reading/reader.py"),
    ("buildkit", "builder", "fsmount, overlayfs", "runtime/builder/solver.py"),
)


def visit(guide: Guide) -> None:
    guide.image()
    _start(guide)
    with guide.optional("the comparison with strace"):
        guide.needs(strace="strace")
        _witness(guide)
    guide.step("Docker's parts, ours, and the kernel's")
    guide.table(("Docker", "here", "kernel primitive", "file in the repository"), PARTS)


def _start(guide: Guide) -> None:
    guide.step("From the manifest to execve")
    guide.apply(pod("start", container("app")))
    shown = guide.run(f"kubelite trace start -n {NAMESPACE}", lines=20)
    guide.say(
        "The first step is the rename of the manifest into the directory, the last the execve of the program. create "
        "is all that the shim and the container's init do before; -o wide shows its steps with their system calls."
    )
    guide.check("the trace begins with the manifest and ends with the start", _in_order(shown))
    guide.run(f"kubelite why start -n {NAMESPACE}")
    guide.say("kubelite why tells what the node saw, what it decided, and why.")
    steps = _steps(guide, "start")
    rows = [
        (short(step["step"]), f"{step['took'] * 1000:.2f} ms", step["call"])
        for step in steps
        if step.get("call")
    ]
    guide.table(("step", "took", "system calls"), rows)
    guide.check("every step of the init names the calls that it made", all(call for _, _, call in rows))
    guide.delete()


def _in_order(shown: str) -> bool:
    places = [shown.find(word) for word in ("manifest changed", "recorded", "shim", "create", " start\n")]
    lines = shown.splitlines()
    return -1 not in places[:4] and places[:4] == sorted(places[:4]) and lines[-1].split()[-1] == "start"


def _steps(guide: Guide, name: str) -> list[Any]:
    found: list[Any] = json.loads(guide.ask(f"kubelite trace {name} -n {NAMESPACE} -o json"))["steps"]
    return found


def _witness(guide: Guide) -> None:
    guide.step("What strace sees")
    guide.write(MANIFEST, json.dumps(pod("witness", container("app")), indent=2))
    daemon, pids = _forkservers(guide)
    out, renames = f"{guide.directory}/strace.out", f"{guide.directory}/renames.out"
    with _traced(guide, [daemon], renames, "-e trace=/^rename"), _traced(guide, pids, out):
        guide.run(f"kubelite apply -f {MANIFEST}", lines=6)
        guide.until(lambda: guide.phase("witness") == "Running", "the pod to run")
        pid = guide.inspect("witness")["containers"][0]["pid"]
    renamed = guide.run(f"grep {MANIFEST} renames.out", fails=True)
    guide.check(
        "the start began with a rename(2) into the manifest directory",
        re.search(r"rename\w*\(.* = 0", renamed),
    )
    seen = _calls(out, pid)
    noted: Counter[str] = Counter()
    for step in _steps(guide, "witness"):
        if step.get("call") and step["step"] not in PARENTS:
            noted += _counts(step["call"])
    rows = [(name, str(noted[name]), str(seen[name])) for name in COMPARED if noted[name] or seen[name]]
    guide.table(("system call of the init", "noted in the trace", "seen by strace"), rows)
    guide.check(
        "the trace and strace count the same calls", all(noted[name] == seen[name] for name in COMPARED)
    )
    guide.delete()


def _forkservers(guide: Guide) -> tuple[int, list[int]]:
    """The pid of the daemon, and the pids of its forkserver and of the spare shim that this has already forked."""
    run = os.path.dirname(guide.environment["KUBELITE_SOCKET"])
    daemon = kernel.read(f"{run}/kubelite.pid")
    children = [int(pid) for pid in guide.ask(f"ps -o pid= --ppid {daemon}").split()]
    server = next((pid for pid in children if kernel.status(pid, "Name") == "forkserver"), 0)
    if not server:
        raise Missing("needs the daemon's forkserver, which is not running")
    spares = [int(pid) for pid in guide.shell(f"ps -o pid= --ppid {server}")[1].split()]
    return int(daemon), [server, *(pid for pid in spares if kernel.status(pid, "Name") == "forkserver")]


@contextlib.contextmanager
def _traced(guide: Guide, pids: list[int], out: str, only: str = "") -> Iterator[None]:
    """Trace the processes, and all that they fork, into a file."""
    attach = (word for pid in pids for word in ("-p", str(pid)))
    command = ["strace", "-f", "-qq", *only.split(), "-o", out, *attach]
    guide.background(" ".join(command))
    with open(f"{out}.err", "wb") as errors:
        strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
    try:
        guide.until(lambda: all(kernel.status(pid, "TracerPid") != "0" for pid in pids), "strace to attach")
        yield
    finally:
        strace.send_signal(signal.SIGTERM)
        strace.wait(30)


def _calls(out: str, pid: int) -> Counter[str]:
    """How often the process made each call, up to its first execve."""
    seen: Counter[str] = Counter()
    with open(out, encoding="utf-8", errors="replace") as file:
        for line in file:
            if found := re.match(rf"{pid} +(\w+)\(", line):
                seen[found[1]] += 1
                if found[1] == "execve":
                    break
    return seen


def _counts(call: str) -> Counter[str]:
    """The calls of a step, as the trace names them: `mount, write ×3`."""
    found: Counter[str] = Counter()
    for word in call.split(", "):
        name, _, times = word.partition(" ×")
        found[name] += int(times or 1)
    return found
