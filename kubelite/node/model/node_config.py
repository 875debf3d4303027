"""What a pod worker knows of its node: names, roots and sizes, fixed while the daemon lives, and the paths of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


NO_SWAP, LIMITED_SWAP = "NoSwap", "LimitedSwap"
TIERED = "TieredReservation"
NAME_MAX = 255  # bytes of a file's name (Linux, include/uapi/linux/limits.h)


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long a crashed container, or an image that cannot be pulled, waits: `initial` doubles up to `maximum`
    (seconds). A maximum below the initial wait lowers that too, as kubelet's KubeletCrashLoopBackOffMax does."""

    initial: float = 10.0
    maximum: float = 300.0

    def wait(self, times: int) -> float:
        """Seconds to wait when it has failed `times` times in a row before this one: none the first time."""
        if times <= 0:
            return 0.0
        start = min(self.initial, self.maximum)
        return float(min(start * 2 ** min(times - 1, 32), self.maximum))


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The node, as far as a pod's decisions and files depend on it."""

    node_name: str
    host_ip: str
    root: str  # /var/lib/kubelite
    log_dir: str  # /var/log/pods
    cgroup_parent: str = "/kubelite"
    cpu_milli: int = 1000
    memory_bytes: int = 1 << 30
    cgroup_v2: bool = False  # containers get a cgroup v2 mount
    ephemeral_bytes: int = 1 << 40  # of the disk that pods write to
    max_pods: int = 1000
    huge_pages: Mapping[str, int] = field(default_factory=dict)  # hugepages-2Mi → bytes the kernel keeps
    extended: Mapping[str, int] = field(default_factory=dict)  # example.com/gpu → pieces, by the setting
    reserved: Mapping[str, int] = field(default_factory=dict)  # of all these, not for pods
    swap_bytes: int = 0  # that the machine has
    swap_behavior: str = NO_SWAP
    single_process_oom_kill: bool = False  # kubelet's singleProcessOOMKill
    memory_qos: bool = False  # memory.high, and by `memory_reservation` memory.min and low (v2)
    memory_throttling_factor: float = 0.9
    memory_reservation: str = "None"
    priority_classes: Mapping[str, int] = field(default_factory=dict)  # beside Kubernetes' own
    cpu_policy: str = "none"  # or static
    cores: Mapping[int, int] = field(default_factory=dict)  # online processor → its core
    reserved_cpus: frozenset[int] = frozenset()  # never given away by the static policy
    pod_pids_limit: int = 0  # 0: none, kubelet's podPidsLimit
    crash_back_off: BackOff = BackOff()
    pull_back_off: BackOff = BackOff()
    unsafe_sysctls: tuple[str, ...] = ()  # allowed beyond the safe ones: names, and prefixes that end in *
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    resolv_conf: str = ""  # the file that was set; "" = none was
    host_resolv_conf: str = "/etc/resolv.conf"
    resolved_conf: str = "/run/systemd/resolve/resolv.conf"  # systemd-resolved's, with the real servers
    host_hosts: str = "/etc/hosts"
    rlimits: tuple[
        tuple[str, int, int], ...
    ] = ()  # (RLIMIT_…, soft, hard) of every container's first process

    @property
    def capacity(self) -> dict[str, int]:
        """What the node has: cpu in thousandths, the rest in bytes or pieces."""
        return {
            "cpu": self.cpu_milli,
            "ephemeral-storage": self.ephemeral_bytes,
            **self.huge_pages,
            **self.extended,
            "memory": self.memory_bytes,
            "pods": self.max_pods,
        }

    @property
    def allocatable(self) -> dict[str, int]:
        """What of it is for pods."""
        return {name: max(0, amount - self.reserved.get(name, 0)) for name, amount in self.capacity.items()}

    @property
    def seccomp_dir(self) -> str:
        """Where Localhost profiles are, as kubelet has them below its root."""
        return f"{self.root}/seccomp"

    def pod_dir(self, uid: str) -> str:
        return f"{self.root}/pods/{uid}"

    def container_dir(self, uid: str, name: str, attempt: int) -> str:
        return f"{self.pod_dir(uid)}/containers/{name}/{attempt}"

    def termination_log(self, uid: str, name: str, attempt: int) -> str:
        return f"{self.container_dir(uid, name, attempt)}/termination-log"

    def claim_dir(self, namespace: str, name: str) -> str:
        """What is kept of a PersistentVolumeClaim: `data`, its files, and `claim.json`."""
        return f"{self.root}/claims/{namespace}/{name}"

    def volume_dir(self, uid: str, plugin: str, volume: str) -> str:
        """Where a volume's files live; `plugin` as kubelet names it (kubernetes.io~empty-dir, ~configmap, ~secret)."""
        return f"{self.pod_dir(uid)}/volumes/{plugin}/{volume}"

    def pod_log_dir(self, namespace: str, name: str, uid: str) -> str:
        return f"{self.log_dir}/{pod_log_name(namespace, name, uid)}"

    def log_path(self, namespace: str, name: str, uid: str, container: str, attempt: int) -> str:
        return f"{self.pod_log_dir(namespace, name, uid)}/{container}/{attempt}.log"


def pod_log_name(namespace: str, name: str, uid: str) -> str:
    """<namespace>_<pod>_<uid>, the directory of a pod's logs (spec C7): the pod's name cut where that is longer than a
    file's name can be, as namespaces (63), names (253) and uids (36) together are."""
    return f"{namespace}_{name[: NAME_MAX - len(namespace) - len(uid) - 2]}_{uid}"
