"""What every command gets: the global options as decisions, and the log in the form that callers of runc read."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Final

from runtime.errors import RuntimeFault
from runtime.oci.cli.options import UsageError

DEFAULT_ROOT: Final = "/run/kubelite-oci"


@dataclass(slots=True)
class Log:
    """Lines to stderr, and to --log FILE when there is one. An error goes to both (as runc)."""

    file: str = ""
    json: bool = False
    debugging: bool = False

    def debug(self, message: str) -> None:
        if self.debugging:
            self._write("debug", message, aloud=not self.file)

    def warning(self, message: str) -> None:
        self._write("warning", message, aloud=not self.file)

    def error(self, message: str) -> None:
        self._write("error", message, aloud=True)

    def said_by_init(self, message: str) -> None:
        """An error that with runc is the container's own last word on its stderr: without our name before it."""
        self._write("error", message, aloud=False)
        os.write(2, f"{message}\n".encode(errors="replace"))

    def _write(self, level: str, message: str, *, aloud: bool) -> None:
        if self.file:
            line = (_json_line if self.json else _text_line)(level, message) + "\n"
            try:
                fd = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                os.write(fd, line.encode(errors="replace"))
                os.close(fd)
            except OSError:
                aloud = True
        if aloud:
            if self.json and not self.file:
                line = _json_line(level, message)
            else:
                line = _text_line(level, message) if level == "debug" else f"kubelite-oci: {level}: {message}"
            os.write(2, f"{line}\n".encode(errors="replace"))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _json_line(level: str, message: str) -> str:
    import json

    # without spaces, as Go writes it: some look for "level":"error" with no parser
    return f'{{"level":"{level}","msg":{json.dumps(message)},"time":"{_now()}"}}'


def _text_line(level: str, message: str) -> str:
    import json

    return f'time="{_now()}" level={level} msg={json.dumps(message)}'


@dataclass(slots=True)
class Context:
    root: str
    log: Log
    systemd_cgroup: bool = False
    rootless: bool = False  # make do without a cgroup where this user may make none
    no_cgroup: bool = False


def make(options: dict[str, Any]) -> Context:
    """The context the global options ask for. UsageError and CapabilityError for what they cannot mean here."""
    style = options.get("log-format", "text")
    if style not in ("text", "json"):
        raise UsageError(f"unknown log-format {style!r}: text or json")
    log = Log(options.get("log", ""), style == "json", options.get("debug", False))
    if log.file and not os.path.isabs(log.file):
        log.file = os.path.abspath(log.file)
    manager = options.get("cgroup-manager", "cgroupfs")
    if manager not in ("cgroupfs", "systemd", "disabled"):
        raise UsageError(f"unknown cgroup-manager {manager!r}: cgroupfs, systemd or disabled")
    root = options.get("root") or _default_root()
    systemd = options.get("systemd-cgroup", False) or manager == "systemd"
    rootless = options.get("rootless", "auto")
    if rootless not in ("auto", "true", "false", "yes", "no"):
        raise UsageError(f"invalid value {rootless!r} for --rootless: true, false or auto")
    unprivileged = os.geteuid() != 0 if rootless == "auto" else rootless in ("true", "yes")
    return Context(os.path.abspath(root), log, systemd, unprivileged, manager == "disabled")


def _default_root() -> str:
    """As runc: an ordinary user's is below its own runtime directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return DEFAULT_ROOT if os.geteuid() == 0 or not runtime else f"{runtime}/kubelite-oci"


def hide_arguments() -> None:
    """Before a child of ours is seen in a pid namespace that others are in: /proc/<pid>/cmdline is for everybody, and
    says where we keep what. The child's memory is a copy of ours, and so is that nobody may look into it
    (PR_SET_DUMPABLE)."""
    from runtime import syscalls as sc

    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end: fields 48 and 49 of proc_pid_stat(5)
    if end > start > 0:
        memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)  # ctypes' import costs milliseconds
        try:
            os.pwrite(memory, _TITLE[: end - start - 1].ljust(end - start, b"\0"), start)
        finally:
            os.close(memory)
    if os.geteuid() == 0:  # for others /proc/self would then be root's
        sc.prctl(sc.PR_SET_DUMPABLE, 0)


_TITLE: Final = b"kubelite-oci"


def cgroup_path(container_id: str, wanted: str) -> str:
    """linux.cgroupsPath → a path below the root of each hierarchy. A relative one is below our own cgroup, an absent
    one is the container's ID there (config-linux.md, "Cgroups Path")."""
    if wanted.startswith("/"):
        return wanted
    if wanted.count(":") == 2:
        raise RuntimeFault(
            f"cgroupsPath {wanted!r} is the systemd manager's form (slice:prefix:name); the cgroupfs one wants a path"
        )
    return f"{_own_cgroup()}/{wanted or container_id}"


def _own_cgroup() -> str:
    """The runtime's own, of the hierarchy that has the most to say: pids on v1, else the unified one."""
    unified = ""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if "pids" in controllers.split(","):
                return path.rstrip("/")
            if not controllers:
                unified = path.rstrip("/")
    return unified
