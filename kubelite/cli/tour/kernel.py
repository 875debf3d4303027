"""Read what the kernel shows of a process: its status, namespaces and cgroup files (cgroup v1, v2 and hybrid)."""

from __future__ import annotations

import os

from kubelite.cli.errors import CliError

KINDS = ("mnt", "pid", "net", "uts", "ipc", "cgroup")


def status(pid: int | str, field: str) -> str:
    """A field of /proc/PID/status (proc_pid_status(5)); "" if the process is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(f"{field}:")), "")
    except FileNotFoundError:
        return ""


def parent(pid: int) -> int:
    return int(status(pid, "PPid") or 0)


def alive(pid: int) -> bool:
    return status(pid, "State")[:1] not in ("", "Z", "X")


def namespace(pid: int | str, kind: str) -> str:
    """The identity of a process's namespace, like net:[4026531840] (namespaces(7))."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def cgroup_directory(pid: int, controller: str) -> tuple[str, int]:
    """The directory of the process's cgroup for a controller, and its cgroup version, 1 or 2 (cgroups(7))."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    for _, controllers, path in lines:
        if controller in controllers.split(","):
            return f"{_mounted('cgroup', controller)}{path}", 1
    return next(f"{_mounted('cgroup2', '')}{path}" for number, _, path in lines if number == "0"), 2


def _mounted(kind: str, controller: str) -> str:
    """Where the hierarchy is mounted (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, after = line.rstrip("\n").split(" - ")
            fstype, _, options = after.split(" ", 2)
            if fstype == kind and (not controller or controller in options.split(",")):
                return before.split(" ")[4]
    raise CliError(f"the tour finds no mounted {kind} hierarchy {controller}")


def container_manager() -> str:
    """The program that made the container in which the tour itself runs, "" if it runs in none. docker and podman leave
    a file; others tell process 1 by an environment variable (systemd's Container Interface)."""
    for name, file in (("podman", "/run/.containerenv"), ("docker", "/.dockerenv")):
        if os.path.exists(file):
            return name
    try:
        with open("/proc/1/environ", "rb") as environ:
            entries = environ.read().split(b"\0")
    except PermissionError:  # root without CAP_SYS_PTRACE over process 1
        return ""
    return next((e[10:].decode(errors="replace") for e in entries if e.startswith(b"container=")), "")


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read().strip()
