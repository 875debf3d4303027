"""What is said on a shim's socket, and what a shim writes down: the seam between the daemon and the shims.

Transport: `SOCK_SEQPACKET` on `<run-dir>/shims/<uid>/shim.sock`; one JSON object a packet (at most `MAX_PACKET` bytes),
file descriptors beside it by SCM_RIGHTS. A request is `{"id": n, "op": name, ...}`; its answer `{"id": n, "ok": {...}}`
or `{"id": n, "error": {"reason": CamelCase, "message": sentence, "retriable": bool}}`. A connection that sent
`subscribe` also gets `{"event": name, ...}` packets (`EVENT_*`).

All times are Unix seconds (float, UTC). All records are plain JSON, unknown keys are ignored by readers, so that a
newer daemon adopts shims that an older one started, and the reverse.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

VERSION = 1
ID_RANGE = 65536  # ids in a pod's user namespace, as kubelet's
MAX_PACKET = 256 * 1024

EVENT_EXIT = "exit"  # {"event": "exit", "container": ContainerRecord}
EVENT_EXEC_EXIT = "exec-exit"  # {"event": "exec-exit", "exec_id": str, "exit_code": int}


class Op(StrEnum):
    """Requests a shim answers."""

    STATE = "state"  # {} -> {"sandbox": SandboxRecord}
    SUBSCRIBE = "subscribe"  # {} -> {"sandbox": SandboxRecord}; events follow on this connection
    ANNOTATE = "annotate"  # {"annotations": {k: v}} -> {"sandbox": SandboxRecord} (older: {}): kept in it
    CREATE = "create"  # CreateContainer -> {"container": ContainerRecord, "times": runtime.oci.job.written}
    START = "start"  # {"container_id"} -> {"container": ContainerRecord, "times"}
    STOP = "stop"  # {"container_id", "signal": int, "grace": seconds} -> {}: signal now, SIGKILL at the end
    #                of grace, by the shim itself (it outlives the daemon); again = shrink the remaining grace only;
    #                signal 0 = only the deadline, the signal comes with another STOP and a grace of its own
    KILL = "kill"  # {"container_id", "signal": int, "all": bool} -> {}
    DELETE = "delete"  # {"container_id"} -> {}: only when stopped; its cgroup and record go
    UPDATE = (
        "update"  # {"container_id", "resources": OCI linux.resources, "labels": {k: v}} -> {"container": …}
    )
    EXEC = (
        "exec"  # ExecRequest -> {"exec_id", "pid"} + fds: tty: [master]; else [stdin_w, stdout_r, stderr_r]
    )
    RESIZE = "resize"  # {"exec_id" (or a container's id), "width", "height"} -> {}
    ATTACH_FDS = (
        "attach"  # {"container_id", "once"?} -> {} + fds of the container's own stdin_w (if it has one);
    )
    #                        once = the shim lets go of it: its end of input is the client's to say
    TAP = "tap"  # {"container_id"} -> {} + fds: its output from now on: tty: [both]; else [stdout, stderr]
    ROTATE = "rotate"  # {"container_id"} -> {}: rotate its log now
    SHUTDOWN = (
        "shutdown"  # {"force": bool} -> {}: refuse (StateError) while containers live unless force; remove
    )
    #                        pod cgroup and run directory; exit


class ContainerStatus(StrEnum):
    """OCI runtime states plus `unknown` for what a dead shim left behind."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class _Record:
    """JSON in and out for the dataclasses below; unknown keys are dropped."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True, slots=True)
class SandboxConfig(_Record):
    """What the forkserver is asked to start: one shim with a pod's shared namespaces."""

    uid: str  # the pod's uid: names the run directory
    sandbox_id: str  # 64 hex digits, new for every sandbox of the pod
    run_dir: str  # <run-dir>/shims/<uid>, made by the forkserver, 0700
    cgroup: str  # pod cgroup below every hierarchy's root, e.g. /kubelite/burstable/pod<uid>
    shim_cgroup: str  # where the shim itself lives, e.g. /kubelite/shims: not limited with the pod
    hostname: str
    host_network: bool = False
    host_ipc: bool = False
    host_pid: bool = False
    share_pid: bool = False  # the containers share one process namespace, whose first process is a pause
    id_base: int = 0  # > 0: a user namespace of the pod's own, whose root is this host id (ID_RANGE of them)
    resources: dict[str, Any] = field(default_factory=dict)  # OCI linux.resources of the pod's own cgroup
    sysctls: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(
        default_factory=dict
    )  # the daemon's own notes, given back in the record
    oom_score_adj: int = -998


@dataclass(frozen=True, slots=True)
class RootfsOverlay(_Record):
    """The root file system: mounted by the container's init inside its own mount namespace, so the host's mount
    table never shows it and no crash can leave it behind."""

    lower: list[str]  # layer directories, topmost FIRST (overlayfs's own order)
    upper: str
    work: str
    portable: bool = False  # the upper directory will be a layer: no redirects, no metadata without its file


@dataclass(frozen=True, slots=True)
class CreateContainer(_Record):
    """A container in the sandbox. `bundle`/config.json is the OCI specification of it; root.path in there is the
    directory the overlay is mounted on."""

    container_id: str  # 64 hex digits
    name: str
    attempt: int  # 0, 1, 2 …: the restart count this instance has
    bundle: str
    rootfs: dict[str, Any] | None  # RootfsOverlay, or None when bundle's root.path is a ready directory
    log_path: str  # "" = no log is kept (exec, oci command)
    log_max_bytes: int = 10 * 1024 * 1024  # <= 0: never rotate
    log_max_files: int = 5  # including the current one
    stdin: bool = False  # keep a stdin pipe open for attach
    tty: bool = False
    termination_message_path: str = ""  # host path of the file mounted into the container, "" = none
    runtime: str = ""  # path of another OCI runtime that makes it, "" = the shim's own engine
    labels: dict[str, str] = field(
        default_factory=dict
    )  # spec hash, image, image id: given back in the record


@dataclass(frozen=True, slots=True)
class ContainerRecord(_Record):
    """What a shim knows of one container."""

    id: str
    name: str
    attempt: int
    status: str  # ContainerStatus
    pid: int = 0  # host pid of its init; 0 when stopped
    pid_start: int = 0  # field 22 of /proc/<pid>/stat, guards against pid reuse
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = -1  # 0..255, 128 + signal when killed by one
    signal: int = 0
    oom_killed: bool = False
    reason: str = ""  # "StartError" with its message, "ContainerStatusUnknown" when lost
    message: str = ""
    bundle: str = ""
    log_path: str = ""
    cgroup: str = ""
    stop_signal: int = 0  # a stop was asked for: its signal (0: not sent yet) …
    stop_deadline: float = 0.0  # … and when SIGKILL follows, or would have followed; kept when it has ended
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SandboxRecord(_Record):
    """A shim's whole state: `<run-dir>/shims/<uid>/state.json`, written by rename at each change."""

    version: int
    uid: str
    sandbox_id: str
    pid: int
    pid_start: int
    created_at: float
    cgroup: str
    hostname: str
    host_network: bool
    annotations: dict[str, str] = field(default_factory=dict)
    containers: list[dict[str, Any]] = field(default_factory=list)  # ContainerRecord
    pause: int = 0  # pid of the pod's pause process (runtime.shim.pause); 0 = it has none
    cgroup_took: float = 0.0  # seconds that the making of its cgroup took


@dataclass(frozen=True, slots=True)
class ExecRequest(_Record):
    """A further process in a running container; `process` is the OCI specification's process object."""

    container_id: str
    exec_id: str
    process: dict[str, Any]
    tty: bool = False
    width: int = 0
    height: int = 0
    stdin: bool = True
