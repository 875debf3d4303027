"""The interface from the node to the container engine: what a pod worker may call, and what it observes.

`LocalCri` (kubelite/node/cri/local.py) implements `Cri` with the engine in `runtime`. One test suite runs on it and on
a fake. All values are frozen, so that the decision (decide/decision.py) and the status (decide/pod_status.py) stay
pure. All times are Unix seconds (float, UTC).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from manifests.types.core import Pod


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"  # its shim died or the machine rebooted, and nobody observed its end


ALIVE = frozenset({ContainerState.CREATED, ContainerState.RUNNING})


@dataclass(frozen=True, slots=True)
class ObservedContainer:
    """One instance (attempt) of a container, as its shim reports it."""

    id: str
    name: str
    attempt: int
    state: ContainerState
    image: str = ""  # as written in the manifest when it was created
    image_id: str = ""  # sha256:… of the image's config
    pid: int = 0
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = -1
    signal: int = 0
    oom_killed: bool = False
    reason: str = ""
    message: str = ""  # termination message, or the message of a start error
    spec_hash: str = ""  # container_hash() of the spec it was created from
    resources_hash: str = ""  # resources_hash() last applied to its cgroup
    content_hash: str = ""  # content_hash() of its ConfigMaps and Secrets at the start; "" = not recorded
    stop_deadline: float = 0.0  # > 0: when SIGKILL follows a stop; stays recorded after the exit
    log_path: str = ""
    cgroup: str = ""
    bundle: str = ""
    sandbox_id: str = ""  # the sandbox it was created in; "" means the present one
    crash_count: int = 0  # consecutive crashes before this instance, from its ContainerRequest
    user: str = ""  # of its first process at the start: uid:gid:group,group; "" = not recorded
    stop_signal: int = 0  # of a stop in progress; 0: not sent yet, because the preStop hook runs first
    post_start: str = ""  # "pending" until its postStart hook has succeeded; "" if it has none
    post_start_error: str = ""  # why its postStart hook failed
    killed_for: str = ""  # liveness, startup, postStart: why the node killed it as failed
    checks_hash: str = ""  # checks_hash() at its start; "" = not recorded, or it had none


Rates = tuple[int, int]  # bits per second that a pod may receive and send; 0: as many as it can


@dataclass(frozen=True, slots=True)
class ObservedSandbox:
    """The pod's shim and shared namespaces."""

    id: str
    ready: bool
    pid: int
    created_at: float
    ip: str = ""
    host_network: bool = False
    spec_hash: str = ""  # sandbox_hash() of the spec it was created from
    cgroup: str = ""
    resources_hash: str = ""  # resources_hash() last applied to the pod's own cgroup
    pause: int = 0  # pid of the pod's pause process, which holds its pid and user namespaces; 0 = it has none
    ip6: str = ""  # the second address, of IPv6
    bandwidth: Rates = (0, 0)  # as set last

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's own addresses, in the order of status.podIPs."""
        return tuple(filter(None, (self.ip, self.ip6)))


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """Everything a pod has on this node. `containers` has every known instance, the newest attempt last."""

    uid: str
    sandbox: ObservedSandbox | None = None
    containers: tuple[ObservedContainer, ...] = ()
    #: container → newest attempt with a log, if it has no record
    logged: Mapping[str, int] = field(default_factory=dict)

    def latest(self, name: str) -> ObservedContainer | None:
        """The newest instance of the container called `name`.

        One attempt may have several instances: if the daemon dies during a start that does not count, the next start
        has the same number. Then a live instance takes precedence, next one that ran.
        """
        found = [c for c in self.containers if c.name == name]
        if not found:
            return None
        return max(found, key=lambda c: (c.attempt, c.state in ALIVE, c.started_at > 0, c.created_at))


@dataclass(frozen=True, slots=True)
class ObservedImage:
    """An image in the local store."""

    id: str  # sha256:… of its config
    reference: str  # normalised: docker.io/library/nginx:latest
    repo_digests: tuple[str, ...] = ()
    size: int = 0
    layers: tuple[str, ...] = ()  # unpacked layer directories, topmost first (overlayfs order)
    #: "config" of the OCI image config: Entrypoint, Env, …
    config: dict[str, Any] = field(default_factory=dict)
    #: After a pull: the login that the registry accepted, its source and its hash; None: without a login.
    login: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class HostPort:
    host_port: int
    container_port: int
    protocol: str = "TCP"
    host_ip: str = ""


def host_ports(pod: Pod) -> tuple[HostPort, ...]:
    """The ports of the pod's containers that are published on the host."""
    return tuple(
        HostPort(port.host_port, port.container_port, port.protocol or "TCP", port.host_ip or "")
        for container in [*pod.spec.init_containers, *pod.spec.containers]
        for port in container.ports
        if port.host_port
    )


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    uid: str
    namespace: str
    name: str
    hostname: str
    cgroup: str
    spec_hash: str
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_pid: bool = False
    id_base: int = 0  # > 0: the pod has a user namespace whose root is this host id
    host_ports: tuple[HostPort, ...] = ()
    bandwidth: Rates = (0, 0)
    resources: dict[str, Any] = field(default_factory=dict)
    resources_hash: str = ""
    sysctls: dict[str, str] = field(default_factory=dict)
    runtime_class: str = ""  # the pod's runtimeClassName, "" = the built-in engine


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """A container to create and start in a pod's sandbox. `spec` is the OCI config.json as a dictionary."""

    uid: str
    id: str
    name: str
    attempt: int
    image: ObservedImage
    image_ref: str
    spec: dict[str, Any]
    spec_hash: str
    resources_hash: str
    log_path: str
    crash_count: int = 0
    files: tuple[tuple[str, str], ...] = ()  # files to write before the start: (path, content)
    stdin: bool = False
    tty: bool = False
    termination_message_path: str = ""
    post_start: bool = False  # it has a postStart hook
    runtime_class: str = ""  # the pod's
    content_hash: str = ""
    checks_hash: str = ""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """The result of a command that was executed in a running container."""

    exit_code: int  # 0..255, 128 + signal if a signal killed it
    output: str = ""  # the beginning of stdout and stderr
    timed_out: bool = False  # it was killed because its time was up


class Cri(Protocol):
    """What a node can do to a pod. Calls are idempotent or raise StateError. All errors are runtime.errors.RuntimeFault
    (ImageError for pulls). A cancelled call leaves nothing behind."""

    async def observe(self, uid: str) -> ObservedPod: ...

    async def run_sandbox(self, request: SandboxRequest) -> ObservedSandbox:
        """Start the pod's shim and set up its cgroup, network and ports."""
        ...

    async def update_sandbox(self, uid: str, *, resources: dict[str, Any], resources_hash: str) -> None:
        """Set new limits on the pod's own cgroup, in place."""
        ...

    async def limit_sandbox(self, uid: str, rates: Rates) -> None:
        """Set the pod's limits of bandwidth, in place."""
        ...

    async def stop_sandbox(self, uid: str) -> None:
        """Kill the remaining containers, release network, addresses and ports, end the shim, remove the pod's cgroup.
        Does nothing if there is no sandbox. Keeps the pod's directory and logs."""
        ...

    async def remove_pod(self, uid: str) -> None:
        """After stop_sandbox: unmount what is mounted in the pod's directory (volumes in memory) and remove all files
        of the pod (volumes, bundles, logs)."""
        ...

    async def start_container(self, request: ContainerRequest) -> ObservedContainer:
        """Create and start a container. If its program cannot be executed, record the instance (state EXITED, exit code
        128, reason StartError) and raise StartError."""
        ...

    async def stop_container(
        self, uid: str, container_id: str, *, signal: int, grace: float, killed_for: str = ""
    ) -> None:
        """Begin to stop a container: send `signal` now (0: only set the deadline), and SIGKILL after `grace` seconds,
        which the shim counts. Returns at once; the exit shows in observe() and as an event. After a signal, further
        calls can only shorten the remaining time. `killed_for` is recorded with the instance."""
        ...

    async def label_container(self, uid: str, container_id: str, labels: dict[str, str]) -> None:
        """Record labels with the instance (`post_start`)."""
        ...

    async def update_container(
        self, uid: str, container_id: str, *, resources: dict[str, Any], resources_hash: str
    ) -> None: ...

    async def remove_container(self, uid: str, container_id: str, *, keep_log: bool = False) -> None:
        """Remove a stopped instance: record, bundle, writable layer, cgroup and log. With `keep_log` its log stays, and
        older logs are removed."""
        ...

    async def exec(
        self, uid: str, container_id: str, command: list[str], *, timeout: float | None
    ) -> ExecResult:
        """Run a command in a running container, with the user and working directory of its main process, and wait for
        its end. After `timeout` seconds it is killed. Raises StartError if it cannot be executed, StateError or
        NotFoundError if no process runs in the container."""
        ...

    def image(self, reference: str) -> ObservedImage | None:
        """The local image with this reference; None if there is none. Does not use the network or wait."""
        ...

    async def pull(self, uid: str, reference: str, secrets: Sequence[dict[str, Any]] = ()) -> ObservedImage:
        """Pull an image. `secrets`: docker configs with the credentials, see spec/pull_secrets.py."""
        ...
