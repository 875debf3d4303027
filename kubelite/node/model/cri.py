"""The one door from the node agent to the engine: what a pod worker may ask for, and what it gets to see.

`Cri` is the seam. `runtime` behind it is `LocalCri` (kubelite/node/cri/local.py); tests hold a fake to the same suite.
Everything here is a plain frozen value, so that the decision (pod_actions) and the report (pod_status) stay pure.
All times are Unix seconds (float, UTC).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"  # its shim died or the machine rebooted: what became of it nobody saw


ALIVE = frozenset({ContainerState.CREATED, ContainerState.RUNNING})


@dataclass(frozen=True, slots=True)
class ContainerSeen:
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
    message: str = ""  # termination message, or the sentence of a start error
    spec_hash: str = ""  # container_hash() of the spec it was created from
    resources_hash: str = ""  # resources_hash() last applied to its cgroup
    content_hash: str = (
        ""  # content_hash() of the ConfigMaps and Secrets it was started with; "" = nobody asked
    )
    stop_deadline: float = (
        0.0  # > 0: a stop was asked for, SIGKILL follows then; kept on the record after the exit
    )
    log_path: str = ""
    cgroup: str = ""
    bundle: str = ""
    sandbox_id: str = ""  # the sandbox it was made in; "" means the one that stands
    crash_count: int = 0  # crashes in a row before this instance, as its ContainerRequest said
    user: str = ""  # whose its first process was at the start: uid:gid:group,group; "" = not recorded
    stop_signal: int = 0  # of the stop that was asked for; 0: not sent (its preStop hook runs first)
    post_start: str = ""  # "pending" until its postStart hook has succeeded; "" when it has none
    post_start_error: str = ""  # why its postStart hook failed
    killed_for: str = ""  # liveness, startup, postStart: the node ended it as failed, its policy decides


@dataclass(frozen=True, slots=True)
class SandboxSeen:
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
    pause: int = (
        0  # pid of the pod's pause process, where its process and user namespaces are; 0 = it has none
    )


@dataclass(frozen=True, slots=True)
class PodSeen:
    """Everything that exists of a pod on this node. `containers` has every known instance, newest attempt last."""

    uid: str
    sandbox: SandboxSeen | None = None
    containers: tuple[ContainerSeen, ...] = ()
    logged: Mapping[str, int] = field(
        default_factory=dict
    )  # newest attempt by its log, where no record is left

    def latest(self, name: str) -> ContainerSeen | None:
        """The newest instance of the container called `name`. There may be several of one attempt: where the daemon
        died in a start that does not count, the next start has its number. The living one is it, else one that ran."""
        found = [c for c in self.containers if c.name == name]
        if not found:
            return None
        return max(found, key=lambda c: (c.attempt, c.state in ALIVE, c.started_at > 0, c.created_at))


@dataclass(frozen=True, slots=True)
class ImageSeen:
    """An image that is in the local store."""

    id: str  # sha256:… of its config
    reference: str  # normalised: docker.io/library/nginx:latest
    repo_digests: tuple[str, ...] = ()
    size: int = 0
    layers: tuple[str, ...] = ()  # unpacked layer directories, topmost first (overlayfs order)
    config: dict[str, Any] = field(
        default_factory=dict
    )  # the OCI image config's "config" object (Entrypoint, Env, …)


@dataclass(frozen=True, slots=True)
class HostPort:
    host_port: int
    container_port: int
    protocol: str = "TCP"
    host_ip: str = ""


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
    id_base: int = 0  # > 0: in a user namespace whose root is this host id
    host_ports: tuple[HostPort, ...] = ()
    resources: dict[str, Any] = field(default_factory=dict)
    resources_hash: str = ""
    sysctls: dict[str, str] = field(default_factory=dict)
    runtime_class: str = ""  # the pod's runtimeClassName, "" = the built-in engine


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """A container to be created and started in a pod's sandbox. `spec` is the OCI config.json as a dictionary."""

    uid: str
    id: str
    name: str
    attempt: int
    image: ImageSeen
    image_ref: str
    spec: dict[str, Any]
    spec_hash: str
    resources_hash: str
    log_path: str
    crash_count: int = 0
    files: tuple[tuple[str, str], ...] = ()  # files to make before the start: (path, content)
    stdin: bool = False
    tty: bool = False
    termination_message_path: str = ""
    post_start: bool = False  # it has a postStart hook
    runtime_class: str = ""  # the pod's
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command that was run beside a container's own program ended."""

    exit_code: int  # 0..255, 128 + signal when killed by one
    output: str = ""  # the beginning of stdout and stderr
    timed_out: bool = False  # it was killed for that


class Cri(Protocol):
    """What a node can do to a pod. Every call is idempotent or says StateError; errors are runtime.errors.RuntimeFault
    (ImageError for pulls). Cancelling a call leaves nothing half-made."""

    async def observe(self, uid: str) -> PodSeen: ...

    async def run_sandbox(self, request: SandboxRequest) -> SandboxSeen:
        """Start the pod's shim, its cgroup, network and ports."""
        ...

    async def update_sandbox(self, uid: str, *, resources: dict[str, Any], resources_hash: str) -> None:
        """New limits for the pod's own cgroup, in place."""
        ...

    async def stop_sandbox(self, uid: str) -> None:
        """Kill what still runs in it, release network, addresses and ports, end the shim, remove its cgroup.
        Fine when there is none. Keeps the pod's directory and logs."""
        ...

    async def remove_pod(self, uid: str) -> None:
        """After stop_sandbox: unmount what is mounted in the pod's directory (volumes in memory), remove every file of
        the pod (volumes, bundles, logs)."""
        ...

    async def start_container(self, request: ContainerRequest) -> ContainerSeen:
        """Create and start. A program that cannot be executed raises StartError after the record of it (state EXITED,
        exit code 128, reason StartError) has been kept."""
        ...

    async def stop_container(
        self, uid: str, container_id: str, *, signal: int, grace: float, killed_for: str = ""
    ) -> None:
        """Begin to stop: `signal` now (0: none, the deadline alone is set), SIGKILL after `grace` seconds, counted by
        the shim. Returns at once; the exit shows up in observe() and on the events. Again, after a signal: can only
        shrink what is left. `killed_for` is kept with the instance."""
        ...

    async def label_container(self, uid: str, container_id: str, labels: dict[str, str]) -> None:
        """Keep something with the instance (`post_start`)."""
        ...

    async def update_container(
        self, uid: str, container_id: str, *, resources: dict[str, Any], resources_hash: str
    ) -> None: ...

    async def remove_container(self, uid: str, container_id: str, *, keep_log: bool = False) -> None:
        """Forget a stopped instance: record, bundle, writable layer, cgroup, log; with `keep_log` that stays, and
        those before it go."""
        ...

    async def exec(
        self, uid: str, container_id: str, command: list[str], *, timeout: float | None
    ) -> ExecResult:
        """Run a command in a running container, as whom and where its own program runs, to its end or for `timeout`
        seconds. StartError when it cannot be executed, StateError or NotFoundError when nothing runs there."""
        ...

    def image(self, reference: str) -> ImageSeen | None:
        """The image under this reference if it is here; no network, no waiting."""
        ...

    async def pull(self, uid: str, reference: str, secrets: Sequence[dict[str, Any]] = ()) -> ImageSeen:
        """`secrets`: docker configs to log in with, see `pull_secrets`."""
        ...
