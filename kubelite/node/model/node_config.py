"""The node's settings that concern pods, and the paths of a pod's files. They are constant while the daemon runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kubelite.kube.objects import Automount
from kubelite.kube.pod_security import PodSecurity

NO_SWAP, LIMITED_SWAP = "NoSwap", "LimitedSwap"
TIERED = "TieredReservation"
NAME_MAX = 255  # bytes of a file's name (Linux, include/uapi/linux/limits.h)


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long the next attempt after a failure is delayed (the restart of a crashed container, the pull of an image):
    `initial` seconds, doubled up to `maximum`. A maximum below the initial delay lowers that too, as does kubelet's
    KubeletCrashLoopBackOffMax."""

    initial: float = 10.0
    maximum: float = 300.0

    def wait(self, times: int) -> float:
        """Seconds to wait after `times` consecutive earlier failures; none the first time."""
        if times <= 0:
            return 0.0
        start = min(self.initial, self.maximum)
        return float(min(start * 2 ** min(times - 1, 32), self.maximum))


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The properties and settings of the node on which a pod's decisions and files depend."""

    node_name: str
    host_ip: str
    root: str  # /var/lib/kubelite
    log_dir: str  # /var/log/pods
    cgroup_parent: str = "/kubelite"
    cpu_milli: int = 1000
    memory_bytes: int = 1 << 30
    cgroup_v2: bool = False  # containers get a cgroup v2 mount
    ephemeral_bytes: int = 1 << 40  # size of the file system that pods write to
    max_pods: int = 1000
    huge_pages: Mapping[str, int] = field(default_factory=dict)  # hugepages-2Mi → bytes the kernel reserves
    extended: Mapping[str, int] = field(default_factory=dict)  # example.com/gpu → number, from the setting
    reserved: Mapping[str, int] = field(default_factory=dict)  # the part of all these that is not for pods
    swap_bytes: int = 0  # the machine's swap space
    swap_behavior: str = NO_SWAP
    single_process_oom_kill: bool = False  # kubelet's singleProcessOOMKill
    memory_qos: bool = False  # sets memory.high and, by `memory_reservation`, memory.min and low (v2)
    memory_throttling_factor: float = 0.9
    memory_reservation: str = "None"
    priority_classes: Mapping[str, int] = field(default_factory=dict)  # in addition to Kubernetes' own
    cpu_policy: str = "none"  # or "static"
    cores: Mapping[int, int] = field(default_factory=dict)  # online processor → its core
    reserved_cpus: frozenset[int] = frozenset()  # never assigned exclusively by the static policy
    automount: Automount = Automount.NONE  # which pods get a token of the API
    pod_security: PodSecurity = field(default_factory=PodSecurity)
    #: Kubelet's imagePullCredentialsVerificationPolicy, and the images that its allowlist admits.
    image_verification: str = "NeverVerifyPreloadedImages"
    images_not_verified: tuple[str, ...] = ()
    socketcall: bool = True  # the default seccomp profile allows socketcall(2)
    no_new_privileges: bool = False  # of containers without allowPrivilegeEscalation
    pod_pids_limit: int = 0  # kubelet's podPidsLimit; 0: none
    crash_back_off: BackOff = BackOff()
    pull_back_off: BackOff = BackOff()
    unsafe_sysctls: tuple[
        str, ...
    ] = ()  # allowed in addition to the safe ones: names, and prefixes ending in *
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    resolv_conf: str = ""  # the file from the setting; "" = not set
    host_resolv_conf: str = "/etc/resolv.conf"
    resolved_conf: str = "/run/systemd/resolve/resolv.conf"  # systemd-resolved's, with the real servers
    host_hosts: str = "/etc/hosts"
    #: (RLIMIT_…, soft, hard) of every container's first process
    rlimits: tuple[tuple[str, int, int], ...] = ()
    cdi_dirs: tuple[str, ...] = ()  # of files of the Container Device Interface, a later one has precedence
    host_ip6: str = ""  # the machine's address of IPv6, on a node whose pods have one, too

    @property
    def host_ips(self) -> tuple[str, ...]:
        """The machine's addresses, in the order of status.hostIPs."""
        return tuple(filter(None, (self.host_ip, self.host_ip6)))

    @property
    def capacity(self) -> dict[str, int]:
        """The node's resources: cpu in thousandths, the rest in bytes or counts."""
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
        """The part of the capacity that is for pods."""
        return {name: max(0, amount - self.reserved.get(name, 0)) for name, amount in self.capacity.items()}

    @property
    def seccomp_dir(self) -> str:
        """The directory of Localhost profiles, below the root as with kubelet."""
        return f"{self.root}/seccomp"

    def pod_dir(self, uid: str) -> str:
        return f"{self.root}/pods/{uid}"

    def container_dir(self, uid: str, name: str, attempt: int) -> str:
        return f"{self.pod_dir(uid)}/containers/{name}/{attempt}"

    def termination_log(self, uid: str, name: str, attempt: int) -> str:
        return f"{self.container_dir(uid, name, attempt)}/termination-log"

    def claim_dir(self, namespace: str, name: str) -> str:
        """The directory of a PersistentVolumeClaim: `data`, its files, and `claim.json`."""
        return f"{self.root}/claims/{namespace}/{name}"

    def volume_dir(self, uid: str, plugin: str, volume: str) -> str:
        """The directory of a volume; `plugin` as kubelet names it (kubernetes.io~empty-dir, ~configmap, ~secret)."""
        return f"{self.pod_dir(uid)}/volumes/{plugin}/{volume}"

    def pod_log_dir(self, namespace: str, name: str, uid: str) -> str:
        return f"{self.log_dir}/{pod_log_name(namespace, name, uid)}"

    def log_path(self, namespace: str, name: str, uid: str, container: str, attempt: int) -> str:
        return f"{self.pod_log_dir(namespace, name, uid)}/{container}/{attempt}.log"


def pod_log_name(namespace: str, name: str, uid: str) -> str:
    """The name of a pod's log directory: <namespace>_<pod>_<uid>. The pod's name is cut if the whole would exceed
    NAME_MAX, because a namespace (63), a name (253) and a uid (36) together can be longer."""
    return f"{namespace}_{name[: NAME_MAX - len(namespace) - len(uid) - 2]}_{uid}"
