"""The context of every command: the evaluated global options, and the log in the format that callers of runc read."""

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
    """Writes lines to --log FILE or, without it, to stderr. An error goes to both (as in runc)."""

    file: str = ""
    json: bool = False
    debugging: bool = False

    def check(self) -> None:
        """Create the file. Raises UsageError if it cannot be opened (as in runc): a caller that reads it would find
        nothing."""
        try:
            os.close(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644))
        except OSError as error:
            raise UsageError(f"open {self.file}: {os.strerror(error.errno or 0).lower()}") from error

    def debug(self, message: str) -> None:
        if self.debugging:
            self._write("debug", message, aloud=not self.file)

    def warning(self, message: str) -> None:
        self._write("warning", message, aloud=not self.file)

    def error(self, message: str) -> None:
        self._write("error", message, aloud=True)

    def init_error(self, message: str) -> None:
        """Write an error to stderr without the prefix "kubelite-oci:", because runc's init writes these to the
        container's stderr without a prefix."""
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

    # without spaces, as Go writes it: some callers search for "level":"error" as text
    return f'{{"level":"{level}","msg":{json.dumps(message)},"time":"{_now()}"}}'


def _text_line(level: str, message: str) -> str:
    import json

    return f'time="{_now()}" level={level} msg={json.dumps(message)}'


@dataclass(slots=True)
class Context:
    root: str
    log: Log
    systemd_cgroup: bool = False
    rootless: bool = False  # run without a cgroup if this user may not create one
    no_cgroup: bool = False


def make(options: dict[str, Any]) -> Context:
    """Evaluate the global options. Raises UsageError for an invalid value."""
    style = options.get("log-format", "text")
    if style not in ("text", "json"):
        raise UsageError(f"unknown log-format {style!r}: use text or json")
    log = Log(options.get("log", ""), style == "json", options.get("debug", False))
    if log.file:
        log.file = os.path.abspath(log.file)
        log.check()
    manager = options.get("cgroup-manager", "cgroupfs")
    if manager not in ("cgroupfs", "systemd", "disabled"):
        raise UsageError(f"unknown cgroup-manager {manager!r}: use cgroupfs, systemd or disabled")
    root = options.get("root") or _default_root()
    systemd = options.get("systemd-cgroup", False) or manager == "systemd"
    rootless = options.get("rootless", "auto")
    if rootless not in ("auto", "true", "false", "yes", "no"):
        raise UsageError(f"invalid value {rootless!r} for --rootless: use true, false or auto")
    unprivileged = os.geteuid() != 0 if rootless == "auto" else rootless in ("true", "yes")
    return Context(os.path.abspath(root), log, systemd, unprivileged, manager == "disabled")


def _default_root() -> str:
    """The default for --root. For an ordinary user it is in XDG_RUNTIME_DIR, as in runc."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return DEFAULT_ROOT if os.geteuid() == 0 or not runtime else f"{runtime}/kubelite-oci"


def hide_arguments() -> None:
    """Overwrite this process's command line and make the process undumpable, before a child becomes visible in a shared
    pid namespace.

    Everybody can read /proc/<pid>/cmdline, which shows host paths. The child inherits both changes: its memory is a
    copy of ours, and PR_SET_DUMPABLE, which forbids other processes to read that memory, is copied too.
    """
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
    if os.geteuid() == 0:  # for other users, root would then own /proc/self
        sc.prctl(sc.PR_SET_DUMPABLE, 0)


_TITLE: Final = b"kubelite-oci"


def cgroup_path(container_id: str, wanted: str) -> str:
    """Translate linux.cgroupsPath to a path below the root of each hierarchy (config-linux.md, "Cgroups Path").

    A relative path is relative to our own cgroup; the default is the container's ID there. RuntimeFault for the systemd
    form.
    """
    if wanted.startswith("/"):
        return wanted
    if wanted.count(":") == 2:
        raise RuntimeFault(
            f"cgroupsPath {wanted!r} has the systemd form slice:prefix:name; use --systemd-cgroup, or give a path"
        )
    return f"{_own_cgroup()}/{wanted or container_id}"


def _own_cgroup() -> str:
    """The runtime's own cgroup: in the pids hierarchy on v1, otherwise in the unified hierarchy."""
    unified = ""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if "pids" in controllers.split(","):
                return path.rstrip("/")
            if not controllers:
                unified = path.rstrip("/")
    return unified
