"""The kernel's view of a container, for `kubelite inspect`: each limit with its file, its current value and how it
follows from the manifest; namespaces and the processes that share them; both ends of the veth; mounts, capabilities
and rlimits.

Everything is read on request. Values that no longer exist, or that this kernel does not have, are omitted.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from kubelite.kube.json import Json
from kubelite.node.model.resources import PERIOD, cpu_quota, cpu_shares
from kubelite.telemetry.sampling.machine import device_name
from manifests.types.meta import Quantity
from runtime.cgroups import Cgroup, open_cgroup
from runtime.cgroups.files import read_or
from runtime.cgroups.resources_v2 import weight as cpu_weight
from runtime.security.capabilities import names

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_SECCOMP = {"0": "disabled", "1": "strict", "2": "filter"}

#: (label, controller, files of cgroup v2 and then v1, of which the first that exists is read)
_FILES = (
    ("cpu limit", "cpu", ("cpu.max", "cpu.cfs_quota_us")),
    ("cpu period", "cpu", ("cpu.cfs_period_us",)),
    ("cpu request", "cpu", ("cpu.weight", "cpu.shares")),
    ("memory limit", "memory", ("memory.max", "memory.limit_in_bytes")),
    ("memory and swap limit", "memory", ("memory.swap.max", "memory.memsw.limit_in_bytes")),
    ("memory request", "memory", ("memory.min", "memory.soft_limit_in_bytes")),
    ("processes", "pids", ("pids.max",)),
    ("processors", "cpuset", ("cpuset.cpus.effective", "cpuset.effective_cpus")),
)


def limits(cgroup: str, resources: Mapping[str, Any] | None) -> list[Json]:
    """Return the limits of a cgroup: [{"limit", "file", "value", "from"?}]. `resources`: the container's resources in
    the manifest."""
    group = open_cgroup(cgroup)
    found = []
    for word, controller, files in _FILES:
        place = group.directory(controller)
        path = next((f"{place}/{f}" for f in files if place and os.path.exists(f"{place}/{f}")), None)
        if path is None:
            continue
        entry: Json = {"limit": word, "file": path, "value": read_or(path).strip()}
        if line := arithmetic(word, resources or {}, v2=path.endswith((".max", ".weight", ".min"))):
            entry["from"] = line
        found.append(entry)
    return found


def arithmetic(word: str, resources: Mapping[str, Any], *, v2: bool) -> str:
    """Explain how the kernel's value follows from the manifest; "" if the manifest does not set it."""
    wanted, most = resources.get("requests") or {}, resources.get("limits") or {}
    if word == "cpu limit" and "cpu" in most:
        milli = Quantity(str(most["cpu"])).milli()
        quota = cpu_quota(milli)
        return f"limits.cpu {most['cpu']} = {milli}/1000 cores x {PERIOD} µs = {quota} µs of every {PERIOD}"
    if word == "cpu request" and (cpu := wanted.get("cpu", most.get("cpu"))) is not None:
        milli = Quantity(str(cpu)).milli()
        shares = cpu_shares(milli)
        line = f"requests.cpu {cpu} = {milli} x 1024/1000 = {shares} shares"
        return f"{line} = weight {cpu_weight(shares)}" if v2 else line
    if word == "memory limit" and "memory" in most:
        return f"limits.memory {most['memory']} = {Quantity(str(most['memory'])).value()} bytes"
    if word == "memory and swap limit" and "memory" in most:
        return "containers do not swap: the same as memory alone" if not v2 else "containers do not swap"
    return ""


def process(pid: int) -> Json:
    """Return the privileges and limits of a process (proc_pid_status(5), proc_pid_limits(5))."""
    status = dict(
        line.split(":\t", 1) for line in read_or(f"/proc/{pid}/status").splitlines() if ":\t" in line
    )
    if not status:
        return {}
    return {
        "uid": status.get("Uid", "").split("\t")[1:2],
        "gid": status.get("Gid", "").split("\t")[1:2],
        "groups": status.get("Groups", "").split(),
        "capabilities": {
            word: names(int(status[f"Cap{key}"], 16))
            for word, key in (
                ("effective", "Eff"),
                ("permitted", "Prm"),
                ("inheritable", "Inh"),
                ("bounding", "Bnd"),
                ("ambient", "Amb"),
            )
            if f"Cap{key}" in status
        },
        "seccomp": _SECCOMP.get(status.get("Seccomp", ""), "unknown"),
        "seccompFilters": int(status.get("Seccomp_filters", "0")),
        "noNewPrivs": status.get("NoNewPrivs") == "1",
        "oomScoreAdj": read_or(f"/proc/{pid}/oom_score_adj").strip(),
        "rlimits": [
            {"name": line[:26].strip(), "soft": line[26:47].strip(), "hard": line[47:68].strip()}
            for line in read_or(f"/proc/{pid}/limits").splitlines()[1:]
        ],
        "mounts": mounts(pid),
    }


def mounts(pid: int) -> list[Json]:
    """Return the mounts as the process sees them (proc_pid_mountinfo(5))."""
    found = []
    for line in read_or(f"/proc/{pid}/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        _, _, device, root, target, options, *_ = before.split(" ")
        kind, source, more = after.split(" ", 2)
        entry = {"target": target, "type": kind, "source": source, "options": options, "superOptions": more}
        if root != "/":
            entry["root"] = root
        major, minor = map(int, device.split(":"))
        if major:
            entry["device"] = device_name(major, minor)
        found.append(entry)
    return found


def namespaces(pid: int, others: Mapping[str, int]) -> Json:
    """Return the namespaces of a process: {"net": {"inode", "sharedWith": [name, …]}, …}. `others`: name → pid of the
    processes with which it may share them."""
    found: Json = {}
    for kind in NAMESPACES:
        inode = _inode(pid, kind)
        if inode:
            shared = [name for name, other in others.items() if _inode(other, kind) == inode]
            found[kind] = {"inode": inode, "sharedWith": shared}
    return found


def veth(host: str, bridge: str, pid: int) -> Json:
    """Return both ends of a pod's veth with their interface indexes. `pid`: a process in the pod's network namespace.
    Its net/igmp (or net/dev_mcast, without IPv4) has the indexes, so there is no need to enter the namespace."""
    found: Json = {}
    try:
        found["host"] = {"name": host, "ifindex": socket.if_nametoindex(host), "bridge": bridge}
    except OSError:
        return {}
    for line in (read_or(f"/proc/{pid}/net/igmp") + read_or(f"/proc/{pid}/net/dev_mcast")).splitlines():
        words = line.split()
        if len(words) > 1 and words[1].rstrip(":") == "eth0":
            found["container"] = {"name": "eth0", "ifindex": int(words[0])}
            break
    return found


def _inode(pid: int, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}").partition("[")[2].rstrip("]")
    except OSError:
        return ""


def cgroup_directories(cgroup: str) -> Json:
    """Return the directories of a cgroup: controller → directory."""
    group: Cgroup = open_cgroup(cgroup)
    words = ("cpu", "cpuacct", "memory", "pids", "io", "blkio", "cpuset", "devices", "freezer")
    return {word: place for word in words if (place := group.directory(word))}


def add_kernel(containers: Iterable[Json], spec: Mapping[str, Any], shim: int) -> None:
    """Add the kernel's view to the running containers among `containers` (documents of `inspect`), in place. `shim`:
    the pid of the pod's shim."""
    running = [c for c in containers if c["state"] == "running" and c["pid"]]
    written = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    resources = {c["name"]: c.get("resources") for c in written}
    for container in running:
        others = {c["name"]: c["pid"] for c in running if c is not container}
        others |= {"the pod's shim": shim, "the node": os.getpid()}
        container["kernel"] = {
            "cgroup": cgroup_directories(container["cgroup"]),
            "limits": limits(container["cgroup"], resources.get(container["name"])),
            "namespaces": namespaces(container["pid"], others),
            **process(container["pid"]),
        }
