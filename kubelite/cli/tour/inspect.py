"""Station 4: all information about a container, the arithmetic from limits to cgroup files, and shared namespaces."""

from __future__ import annotations

from typing import Any

from kubelite.cli.tour import kernel
from kubelite.cli.tour.guide import NAMESPACE, Guide, container, pod

INTRODUCTION = """
docker inspect prints what dockerd has stored about a container; kubelite inspect reads most of it from the kernel at
the moment you ask. A limit in a manifest is a number that somebody multiplies and writes into a file of a cgroup.
Containers of a pod share the network, IPC and host name namespaces, and each has its own mounts, processes and cgroup
view.
"""
PERIOD = 100_000  # microseconds; the kernel's default, which kubelet uses too


def visit(guide: Guide) -> None:
    guide.image()
    limits = {"limits": {"cpu": "250m", "memory": "32Mi"}}
    guide.apply(pod("inspect", container("app", resources=limits), container("side")))
    seen = guide.inspect("inspect")
    app, side = (next(c for c in seen["containers"] if c["name"] == name) for name in ("app", "side"))
    _fields(guide, seen, app)
    _arithmetic(guide, app)
    _namespaces(guide, seen["sandbox"]["pid"], app["pid"], side["pid"])
    guide.delete()


def _fields(guide: Guide, seen: Any, app: Any) -> None:
    guide.step("The fields that docker inspect has")
    quota = app["config"]["linux"]["resources"]["cpu"]["quota"]
    rows = [
        ("Id", "containers[].id", app["id"][:24] + "…"),
        ("State.Status", "containers[].state", app["state"]),
        ("State.Pid", "containers[].pid", str(app["pid"])),
        ("GraphDriver.Data.UpperDir", "containers[].rootfs.upper", app["rootfs"]["upper"][-40:]),
        ("GraphDriver.Data.LowerDir", "containers[].rootfs.lower", f"{len(app['rootfs']['lower'])} layer"),
        ("Mounts", "containers[].config.mounts", f"{len(app['config']['mounts'])} mounts"),
        ("NetworkSettings.IPAddress", "sandbox.ip", seen["sandbox"]["ip"]),
        ("HostConfig.NanoCpus", "…config.linux.resources.cpu.quota", f"{quota} µs of {PERIOD} µs"),
        ("HostConfig.Memory", "…config.linux.resources.memory.limit", "33554432"),
        ("LogPath", "containers[].log_path", app["log_path"][-24:]),
    ]
    guide.table(("docker inspect", "kubelite inspect", "value"), rows)
    guide.run(f"kubelite inspect inspect -n {NAMESPACE} | grep -E '\"(state|pid|ip|upper)\":'")
    guide.run(f"kubelite get pod inspect -n {NAMESPACE} -o jsonpath='{{.status.podIP}} {{.status.qosClass}}'")
    guide.check(
        "State.Pid is a process, and the kernel says that it sleeps or runs", kernel.alive(app["pid"])
    )
    with open(f"/proc/{app['pid']}/root/proc/1/comm", encoding="utf-8") as file:
        guide.check("in the container it is process 1, the program of the manifest", file.read() == "sleep\n")


def _arithmetic(guide: Guide, app: Any) -> None:
    guide.step("From 250m and 32Mi to the files of a cgroup")
    guide.say(
        "NanoCpus = 0.250 × 1,000,000,000 = 250,000,000. The quota is 0.250 × 100,000 µs = 25,000 µs of CPU time in "
        "each period of 100,000 µs. The memory limit is 32 × 1024 × 1024 = 33,554,432 bytes."
    )
    quota, memory = 250 * PERIOD // 1000, 32 << 20
    cpu, version = kernel.cgroup_directory(app["pid"], "cpu")
    if version == 2:
        guide.run(f"cat {cpu}/cpu.max {cpu}/cpu.weight")
        found = [int(word) for word in kernel.read(f"{cpu}/cpu.max").split()]
        guide.say("cpu.max is quota and period; cpu.weight is the share when CPUs are short, 1 to 10,000.")
    else:
        guide.run(f"cd {cpu} && cat cpu.cfs_quota_us cpu.cfs_period_us cpu.shares")
        found = [int(kernel.read(f"{cpu}/{name}")) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        guide.say("On cgroup v1 quota and period are two files; the third is 250 × 1024 ÷ 1000 = 256 shares.")
        shares = int(kernel.read(f"{cpu}/cpu.shares"))
        guide.check("the shares are 250 × 1024 ÷ 1000", shares == 250 * 1024 // 1000)
    guide.check(f"the kernel's quota and period are {quota} and {PERIOD}", found == [quota, PERIOD])
    place, version = kernel.cgroup_directory(app["pid"], "memory")
    name = "memory.max" if version == 2 else "memory.limit_in_bytes"
    guide.run(f"cat {place}/{name}")
    guide.check(f"the kernel's memory limit is {memory}", int(kernel.read(f"{place}/{name}")) == memory)


def _namespaces(guide: Guide, shim: int, app: int, side: int) -> None:
    guide.step("Namespaces, and with whom they are shared")
    rows = []
    shared: set[str] = set()
    own: set[str] = set()
    for kind in kernel.KINDS:
        ours, theirs, host = (kernel.namespace(pid, kind) for pid in (app, side, "self"))
        with_whom = "both containers" if ours == theirs else "nobody"
        (shared if ours == theirs else own).add(kind)
        if ours == host:
            with_whom = "the host"
        elif ours == kernel.namespace(shim, kind):
            with_whom += " and the shim"
        rows.append((kind, ours, theirs, host, with_whom))
    guide.table(("kind", "app", "side", "host", "app shares it with"), rows)
    guide.run(f"readlink /proc/{app}/ns/net /proc/{side}/ns/net /proc/self/ns/net")
    guide.check("the containers of a pod share net, uts and ipc", shared == {"net", "uts", "ipc"})
    guide.check("each has mounts, processes and a cgroup view of its own", own == {"mnt", "pid", "cgroup"})
    guide.check("none of them is the host's", all(row[1] != row[3] for row in rows))
