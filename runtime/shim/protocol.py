"""The protocol on a shim's socket, and the records that a shim stores: the interface between the daemon and the shims.

Transport: `SOCK_SEQPACKET` on `<run-dir>/shims/<uid>/shim.sock`, with one JSON object per packet (at most `MAX_PACKET`
bytes) and file descriptors as SCM_RIGHTS. A request is `{"id": n, "op": name, ...}`. Its answer is `{"id": n, "ok":
{...}}` or `{"id": n, "error": {"reason": CamelCase, "message": sentence, "retriable": bool}}`. A connection that has
sent `subscribe` also receives `{"event": name, ...}` packets (`EVENT_*`).

All times are Unix seconds (float, UTC). All records are plain JSON, and readers ignore unknown keys. So a newer daemon
can adopt the shims of an older one, and vice versa.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

VERSION = 1
ID_RANGE = 65536  # ids in a pod's user namespace, as in kubelet
MAX_PACKET = 256 * 1024

EVENT_EXIT = "exit"  # {"event": "exit", "container": ContainerRecord}
EVENT_EXEC_EXIT = "exec-exit"  # {"event": "exec-exit", "exec_id": str, "exit_code": int}


class Op(StrEnum):
    """The operations of a shim: the request's fields -> the "ok" object of the answer."""

    STATE = "state"  # {} -> {"sandbox": SandboxRecord}
    SUBSCRIBE = "subscribe"  # {} -> {"sandbox": SandboxRecord}; events follow on this connection
    ANNOTATE = "annotate"  # {"annotations": {k: v}} -> {"sandbox": SandboxRecord} (from an older shim: {})
    CREATE = "create"  # CreateContainer -> {"container": ContainerRecord, "times": runtime.oci.init_protocol.written}
    START = "start"  # {"container_id"} -> {"container": ContainerRecord, "times"}
    # {"container_id", "signal": int, "grace": seconds} -> {}: send the signal now, and SIGKILL after `grace`. The shim
    # does that itself, since it outlives the daemon. A repeated STOP can only shorten the remaining grace. Signal 0
    # sets only the deadline; the signal follows in another STOP with its own grace.
    STOP = "stop"
    KILL = "kill"  # {"container_id", "signal": int, "all": bool} -> {}
    DELETE = "delete"  # {"container_id"} -> {}: delete a stopped container's cgroup and record
    # {"container_id", "resources": OCI linux.resources, "labels": {k: v}} -> {"container": ContainerRecord}
    UPDATE = "update"
    # ExecRequest -> {"exec_id", "pid"} and descriptors: [master] for a tty, otherwise [stdin_w, stdout_r, stderr_r]
    EXEC = "exec"
    RESIZE = "resize"  # {"exec_id" (or a container's id), "width", "height"} -> {}
    # {"container_id", "once"?} -> {} and a descriptor of the container's stdin or terminal, if it has one. once: the
    # shim closes its own copy of stdin, so that the client alone determines the end of input.
    ATTACH_FDS = "attach"
    # {"container_id"} -> {} and descriptors with the output from now on: [combined] for a tty, otherwise [stdout,
    # stderr]
    TAP = "tap"
    # {"family": AF_INET or AF_INET6} -> {} and a TCP socket in the pod's network namespace, not connected
    SOCKET = "socket"
    ROTATE = "rotate"  # {"container_id"} -> {}: rotate the log now
    # {"force": bool} -> {"cgroup_took": seconds}: remove the pod's cgroup and run directory, and exit. StateError if
    # containers are alive and force is false.
    SHUTDOWN = "shutdown"


class ContainerStatus(StrEnum):
    """OCI runtime states, plus `unknown` for a container whose shim has died."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class _Record:
    """Conversion to and from JSON for the dataclasses below, whose slots are their fields. Unknown keys are ignored."""

    __slots__: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields. Write the result, but do not change it: the values are not copied, as dataclasses.asdict
        would, because a shim does this nine times in a start."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**{name: data[name] for name in cls.__slots__ if name in data})


@dataclass(frozen=True, slots=True)
class SandboxConfig(_Record):
    """A request to the forkserver to start a shim with a pod's shared namespaces."""

    uid: str  # the pod's uid, which is the name of the run directory
    sandbox_id: str  # 64 hex digits, different for every sandbox of the pod
    run_dir: str  # <run-dir>/shims/<uid>, created by the forkserver with mode 0700
    cgroup: str  # the pod's cgroup, relative to every hierarchy's root, e.g. /kubelite/burstable/pod<uid>
    shim_cgroup: str  # the shim's own cgroup, e.g. /kubelite/shims, outside the pod's limits
    hostname: str
    host_network: bool = False
    host_ipc: bool = False
    host_pid: bool = False
    share_pid: bool = False  # the containers share a pid namespace whose process 1 is a pause process
    # > 0: the pod has a user namespace with ID_RANGE ids from this host id on, which is its root
    id_base: int = 0
    resources: dict[str, Any] = field(default_factory=dict)  # OCI linux.resources of the pod's own cgroup
    sysctls: dict[str, str] = field(default_factory=dict)
    # The daemon's annotations, which the record returns.
    annotations: dict[str, str] = field(default_factory=dict)
    oom_score_adj: int = -998


@dataclass(frozen=True, slots=True)
class RootfsOverlay(_Record):
    """The overlay for the root file system.

    The container's init mounts it in its own mount namespace, so it never appears on the host and no crash can leave it
    behind.
    """

    lower: list[str]  # layer directories, topmost first (the order of overlayfs)
    upper: str
    work: str
    # the upper directory becomes a layer, so use no redirects and no metadata-only copies
    portable: bool = False


@dataclass(frozen=True, slots=True)
class CreateContainer(_Record):
    """A request to create a container in the sandbox. In `bundle`/config.json, root.path is the directory on which the
    overlay is mounted."""

    container_id: str  # 64 hex digits
    name: str
    attempt: int  # the instance's restart count: 0, 1, 2 …
    bundle: str
    rootfs: dict[str, Any] | None  # RootfsOverlay, or None if root.path is a complete directory
    log_path: str  # "": no log
    log_max_bytes: int = 10 * 1024 * 1024  # <= 0: never rotate
    log_max_files: int = 5  # including the current one
    stdin: bool = False  # keep a stdin pipe open for attach
    tty: bool = False
    termination_message_path: str = ""  # host path of the file mounted into the container; "": none
    runtime: str = ""  # path of another OCI runtime; "": the shim's own engine
    # Spec hash, image and image id, returned in the record.
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerRecord(_Record):
    """The state of a container."""

    id: str
    name: str
    attempt: int
    status: str  # ContainerStatus
    pid: int = 0  # host pid of its init; 0 if stopped
    pid_start: int = 0  # field 22 of /proc/<pid>/stat; detects pid reuse
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = -1  # 0..255; 128 + signal if killed by a signal
    signal: int = 0
    oom_killed: bool = False
    reason: str = ""  # "StartError" with its message; "ContainerStatusUnknown" if lost
    message: str = ""
    bundle: str = ""
    log_path: str = ""
    cgroup: str = ""
    stop_signal: int = 0  # the signal of a requested stop; 0: not sent yet
    stop_deadline: float = 0.0  # when SIGKILL follows; kept after the container has exited
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SandboxRecord(_Record):
    """A shim's whole state. It is written to `<run-dir>/shims/<uid>/state.json` by rename at each change."""

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
    pause: int = 0  # pid of the pod's pause process (runtime.shim.pause); 0: none
    cgroup_took: float = 0.0  # seconds that creating its cgroup took


@dataclass(frozen=True, slots=True)
class ExecRequest(_Record):
    """A request to run an additional process in a container. `process` is an OCI process object."""

    container_id: str
    exec_id: str
    process: dict[str, Any]
    tty: bool = False
    width: int = 0
    height: int = 0
    stdin: bool = True
    ends_with_client: bool = False  # kill the process when the client's connection ends before it
