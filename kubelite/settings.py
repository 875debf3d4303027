"""A node's settings: one frozen value, from flags, environment and a file.

A flag takes precedence over `KUBELITE_<NAME>` in the environment, which takes precedence over the configuration file
(`/etc/kubelite/config.yaml`, or `--config`/`KUBELITE_CONFIG`), which takes precedence over the defaults. Names are the
same everywhere: `--pod-cidr`, `KUBELITE_POD_CIDR`, `pod_cidr:` (or `podCidr:`/`pod-cidr:`) in the file.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from kubelite.kube.pod_security import Level, Levels, PodSecurity, parse_levels
from kubelite.kube.setting_types import Amounts, ByPriority, Duration, Numbers, Seconds, Texts, Thresholds

DEFAULT_CONFIG = "/etc/kubelite/config.yaml"
PREFIX = "KUBELITE_"
#: Environment variables with the prefix that are not settings of the node.
OTHER_VARIABLES = frozenset({"CONFIG", "LOG_FORMAT", "LOG_LEVEL", "SOCKET"})


EVICTION_HARD = (
    "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,"
    "imagefs.available<15%,imagefs.inodesFree<5%"
)

_KUBELETS = {"max_parallel_image_pulls": "max_parallel_pulls"}  # kubelet's name -> ours, where they differ


class SettingsError(Exception):
    """A setting is unknown or has an invalid value. The message names it and its origin."""


class Settings(BaseModel):
    """A node's settings. Paths are absolute after `load`."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    # Each field is followed by its description, which the reference page of the settings shows.
    manifests: str = "/etc/kubelite/manifests"
    """The directory of manifests that the node watches."""
    root: str = "/var/lib/kubelite"
    """State, images, and the directories of pods and claims."""
    run_dir: str = "/run/kubelite"
    """Sockets, and state that does not outlive a reboot."""
    log_dir: str = "/var/log"
    """Parent of `pods/` and `containers/`, which hold the container logs."""
    listen: str = "127.0.0.1:10255"
    """Address of the HTTP server for metrics, health checks and the web page. `none`: no server."""
    web_token_file: str = ""
    """A file with a secret of at least 16 characters. Only requests with that secret may read logs over HTTP.
    Empty: nobody may."""
    metrics_token_file: str = ""
    """A file with a secret of at least 16 characters. Only requests with that secret may read metrics and web pages.
    Health checks need none. Empty: everyone may."""
    web_hosts: str = ""
    """Host names under which a server on loopback answers, separated by commas, for example behind a proxy. It always
    answers to IP addresses, `localhost` and the node's name."""
    api_group: str = ""
    """Group, by name or number, whose members may read the API, except Secrets. All else needs root. Empty: none."""
    audit_log_path: str = ""
    """File for the audit log of the API. Default: `kubelite-audit.log` in `log_dir`. `none`: no audit log."""
    audit_log_max_size: int = Field(10 * 1024 * 1024, ge=0)
    """Size in bytes at which the audit log is rotated; 0: never."""
    audit_log_max_files: int = Field(5, ge=1)
    """Files kept of the audit log, the current one included."""
    bridge: str = "kubelite0"
    """Bridge of the pod network; at most 15 characters."""
    pod_cidr: str = "10.88.0.0/16"
    """IPv4 range of pod addresses."""
    pod_routing: bool = False
    """Let machines that have a route to `pod_cidr` connect to every port of every pod. Host ports need no route."""
    cgroup_parent: str = "kubelite"
    """Cgroup that holds everything of this node, below the root of each hierarchy."""
    node_name: str = ""
    """Name of the node. Default: the host name in lower case."""
    cluster_domain: str = "cluster.local"
    """DNS domain of pods, as `/etc/hosts` and fully qualified host names show it."""
    resolv_conf: str = ""
    """File from which pods get `/etc/resolv.conf`. Default: the host's; if that names only the local stub of
    systemd-resolved, the servers behind the stub."""
    max_parallel_pulls: int = Field(3, ge=1)
    """Images pulled at the same time."""
    serialize_image_pulls: bool = False
    """Pull one image at a time."""
    image_policy: str = ""
    """A policy that says which images may be pulled and by whom they must be signed, in the format of
    containers-policy.json(5), for example `/etc/containers/policy.json`. Empty: all images."""
    image_pull_credentials_verification_policy: Literal[
        "NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"
    ] = "NeverVerifyPreloadedImages"
    """Which images on this node a pod may use only with credentials that have pulled them, as in kubelet. In this
    order: none; those that a pod has pulled; all but those of `preloaded_images_verification_allowlist`; all."""
    preloaded_images_verification_allowlist: str = ""
    """Images that `NeverVerifyAllowlistedImages` gives to every pod: names with registry and without tag, or with `/*`
    at the end, for example `registry.example.com/base/*,docker.io/library/busybox`."""
    image_digests_only: bool = False
    """Admit only pods that name their images by digest."""
    registry_pull_qps: float = Field(5.0, ge=0, allow_inf_nan=False)
    """Pulls that may begin in a second; 0: no limit. Further pulls wait."""
    registry_burst: int = Field(10, ge=1)
    """Pulls that may begin at once before `registry_pull_qps` applies."""
    pull_backoff_initial: Seconds = 10.0
    """Delay after a failed pull. It doubles with each further failure."""
    pull_backoff_max: Seconds = 300.0
    """Longest delay between failed pulls."""
    image_gc_high_threshold_percent: int = Field(85, ge=0, le=100)
    """Disk usage at which image garbage collection starts; 100: never."""
    image_gc_low_threshold_percent: int = Field(80, ge=0, le=100)
    """Disk usage at which image garbage collection stops."""
    image_minimum_gc_age: Duration = 120.0
    """Time for which an unused image is never collected."""
    image_maximum_gc_age: Duration = 0.0
    """Time after which an unused image is collected regardless of disk usage; 0: never."""
    image_gc_period: Seconds = 300.0
    """Interval between checks of disk usage for image garbage collection."""
    log_max_size: int = 10 * 1024 * 1024
    """Size in bytes at which a container log is rotated; 0 or less: never."""
    log_max_files: int = Field(5, ge=1)
    """Log files kept for a container, the current one included."""
    otlp_endpoint: str = ""
    """OpenTelemetry collector that receives a trace of each container start (OTLP over HTTP, JSON), for example
    `http://collector:4318`. Empty: none."""
    history_time: Duration = 7 * 86400.0
    """Time for which history is retained; 0: no history."""
    history_size: int = Field(64 * 1024 * 1024, ge=0)
    """Approximate size limit of the history in bytes; 0: no history."""
    relist_seconds: Seconds = 20.0
    """Interval at which the manifest directory and the network are checked in case a notification was missed; each pod
    is checked every third time."""
    crash_backoff_initial: Seconds = 10.0
    """Delay before a crashed container is restarted. It doubles with each further crash."""
    crash_backoff_max: Seconds = 300.0
    """Longest delay between restarts of a crashed container."""
    volume_reclaim_policy: Literal["Retain", "Delete"] = "Retain"
    """Whether the directory of a deleted PersistentVolumeClaim is retained or deleted."""
    allowed_unsafe_sysctls: str = ""
    """Sysctls that pods may set in addition to the safe ones, for example `net.core.somaxconn,kernel.msg*`."""
    pod_security_enforce: Level = Level.PRIVILEGED
    """Level of the Pod Security Standards that pods must meet: `privileged` (all are admitted), `baseline` or
    `restricted`."""
    pod_security_warn: Level = Level.PRIVILEGED
    """Level whose violations cause a warning."""
    pod_security_audit: Level = Level.PRIVILEGED
    """Level whose violations are recorded in the audit log."""
    pod_security_namespaces: Texts = Field(default_factory=dict)
    """Levels of single namespaces, for example `system=privileged,web=enforce:baseline+warn:restricted`."""
    allowed_host_paths: str = ""
    """Paths that `hostPath` volumes may use, with all below, for example `/data,/etc/ssl:ro`. `ro`: only mounted
    read-only. `none`: no path. Empty: any path."""
    max_pods: int = Field(1000, ge=0)
    """Pods that the node accepts."""
    kube_reserved: Amounts = ""
    """Resources reserved for kubelite, for example `cpu=100m,memory=1Gi,ephemeral-storage=1Gi`. They are not
    allocatable by pods."""
    extended_resources: Amounts = ""
    """Extended resources that the node offers, for example `example.com/gpu=2`. They are counted; no device is passed
    to a container."""
    system_reserved: Amounts = ""
    """Resources reserved for other programs on the machine, in the form of `kube_reserved`."""
    no_new_privileges: bool = False
    """Set-user-ID programs and file capabilities have no effect in containers that do not set
    `allowPrivilegeEscalation` (no_new_privs)."""
    user_namespaces: bool = False
    """Give pods that do not set `hostUsers`, and do not need the host's users, a user namespace of their own."""
    pod_pids_limit: int = 4096
    """Processes and threads that a pod may have; -1: no limit of its own."""
    single_process_oom_kill: bool = False
    """Out of memory, kill only the process that the kernel selects instead of the whole container (cgroup v2)."""
    memory_qos: bool = False
    """Set `memory.high`, which slows a container down before it reaches its limit (cgroup v2)."""
    memory_throttling_factor: float = Field(0.9, gt=0, le=1)
    """Where `memory.high` lies between the memory request (0) and the limit (1)."""
    memory_reservation_policy: Literal["None", "TieredReservation"] = "None"
    """`TieredReservation`: set `memory.min` of Guaranteed and `memory.low` of Burstable pods (cgroup v2)."""
    memory_swap_behavior: Literal["NoSwap", "LimitedSwap"] = "NoSwap"
    """`LimitedSwap`: Burstable containers may swap in proportion to their memory request (cgroup v2)."""
    cpu_manager_policy: Literal["none", "static"] = "none"
    """`static`: Guaranteed pods that request whole CPUs get these CPUs exclusively."""
    reserved_cpus: str = ""
    """CPUs that the static policy never assigns, for example `0-1,4`."""
    eviction_hard: Thresholds = EVICTION_HARD
    """Thresholds below which the node evicts pods; `none`: never."""
    eviction_pressure_transition_period: Duration = 300.0
    """Time for which a pressure condition remains after its threshold was last met."""
    eviction_monitoring_period: Seconds = 10.0
    """Interval between checks of the eviction thresholds."""
    shutdown_grace_period: Duration = 0.0
    """Time by which a shutdown of the machine is delayed so that pods can terminate; 0: not delayed."""
    shutdown_grace_period_critical_pods: Duration = 0.0
    """The last part of `shutdown_grace_period`, reserved for critical pods (priority of 2000000000 or more)."""
    shutdown_grace_period_by_pod_priority: ByPriority = Field(default_factory=dict)
    """Replaces both: the grace period of pods from each priority on, the lowest group first, for example
    `0=60s,100000=10s`."""
    runtime_classes: Texts = Field(default_factory=dict)
    """Runtime classes: a pod's `runtimeClassName` and the path of an OCI runtime, for example `crun=/usr/bin/crun`."""
    priority_classes: Numbers = Field(default_factory=dict)
    """Priority classes in addition to those of the manifests, for example `high=1000,low=-10`."""

    @field_validator(
        "manifests", "root", "run_dir", "log_dir", "resolv_conf", "web_token_file", "metrics_token_file",
        "audit_log_path", "image_policy",
    )  # fmt: skip
    @classmethod
    def _absolute(cls, value: str, info: ValidationInfo) -> str:
        if not value and cls.model_fields[info.field_name or ""].default == "":
            return ""
        if value == "none" and info.field_name == "audit_log_path":
            return value
        if not value:
            raise ValueError("must name a directory")
        return os.path.abspath(os.path.expanduser(value))

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        if value in ("", "none"):
            return ""
        host, colon, port = value.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be HOST:PORT, for example 127.0.0.1:10255")
        return f"{host or '127.0.0.1'}:{port}"

    @field_validator("runtime_classes")
    @classmethod
    def _runtimes(cls, value: dict[str, str]) -> dict[str, str]:
        for name, path in value.items():
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
                raise ValueError(f"{name!r} is not a valid RuntimeClass name: use a DNS name in lower case")
            if not path.startswith("/"):
                raise ValueError(
                    f"{name}: must be the absolute path of an OCI runtime, for example /usr/bin/runc"
                )
        return value

    @field_validator("priority_classes")
    @classmethod
    def _priorities(cls, value: dict[str, int]) -> dict[str, int]:
        """Check names and values as the API server does: it reserves the prefix system- and values above a billion."""
        for name, priority in value.items():
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
                raise ValueError(f"{name!r} is not a valid PriorityClass name: use a DNS name in lower case")
            if name.startswith("system-"):
                raise ValueError(f"{name}: the prefix system- is reserved for Kubernetes")
            if not -(1 << 31) <= priority <= 1_000_000_000:
                raise ValueError(f"{name}: must be at most 1000000000")
        return value

    @field_validator("web_hosts")
    @classmethod
    def _names(cls, value: str) -> str:
        names = [name.strip().lower() for name in value.split(",") if name.strip()]
        for name in names:
            if not re.fullmatch(r"[a-z0-9_]([-a-z0-9_.]{0,251}[a-z0-9_])?", name):
                raise ValueError(
                    f"{name!r} is not a DNS name; give it without a port, for example node-1.example.org"
                )
        return ",".join(names)

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, value: str) -> str:
        """Add the path that OTLP/HTTP uses for traces if the URL has none."""
        if not value:
            return ""
        try:
            found = urlsplit(value)
            port = found.port
        except ValueError as error:
            raise ValueError(f"must be a URL, for example http://127.0.0.1:4318: {error}") from None
        if found.scheme not in ("http", "https") or not found.hostname or port == 0:
            raise ValueError("must be an http or https URL with a host, for example http://127.0.0.1:4318")
        if found.username or found.query or found.fragment:
            raise ValueError("must not have a login, a query or a fragment")
        path = found.path if found.path.strip("/") else "/v1/traces"
        return f"{found.scheme}://{found.netloc}{path}"

    @field_validator("shutdown_grace_period_critical_pods")
    @classmethod
    def _of_the_whole(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("shutdown_grace_period", value):
            raise ValueError("must not exceed shutdown_grace_period, of which it is a part")
        return value

    @field_validator("shutdown_grace_period_by_pod_priority")
    @classmethod
    def _one_of_the_two(cls, value: dict[int, float], info: ValidationInfo) -> dict[int, float]:
        """Check as Kubernetes does (ValidateKubeletConfiguration in pkg/kubelet/apis/config/validation)."""
        for other in ("shutdown_grace_period", "shutdown_grace_period_critical_pods"):
            if value and info.data.get(other):
                raise ValueError(f"cannot be set together with {other}: both set the pods' grace periods")
        return value

    @field_validator("bridge")
    @classmethod
    def _interface_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", value):
            raise ValueError("must be an interface name of at most 15 letters, digits, '-', '_' or '.'")
        return value

    @field_validator("pod_cidr")
    @classmethod
    def _network(cls, value: str) -> str:
        network = ipaddress.ip_network(value, strict=False)
        if network.version != 4 or network.prefixlen > 29:
            raise ValueError("must be an IPv4 network with at least 8 addresses, for example 10.88.0.0/16")
        return str(network)

    @field_validator("cgroup_parent")
    @classmethod
    def _cgroup_name(cls, value: str) -> str:
        name = value.strip("/")
        if not name or any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError("must be a cgroup's name below the root, for example kubelite")
        return name

    @field_validator("node_name")
    @classmethod
    def _node(cls, value: str) -> str:
        name = (value or socket.gethostname()).lower().replace("_", "-").strip("-.")
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
            raise ValueError("must be a DNS name in lower case, for example node-1")
        return name

    @field_validator("image_gc_low_threshold_percent")
    @classmethod
    def _below_high(cls, value: int, info: ValidationInfo) -> int:
        high = info.data.get("image_gc_high_threshold_percent")
        if high is not None and value >= high:
            raise ValueError(f"must be below image-gc-high-threshold-percent, which is {high}")
        return value

    @field_validator("kube_reserved", "system_reserved")
    @classmethod
    def _reservation(cls, value: str) -> str:
        from kubelite.node.model.capacity import parse_reserved

        parse_reserved(value)
        return value

    @field_validator("extended_resources")
    @classmethod
    def _extended(cls, value: str) -> str:
        from kubelite.node.model.capacity import parse_extended

        parse_extended(value)
        return value

    @field_validator("reserved_cpus")
    @classmethod
    def _processors(cls, value: str) -> str:
        from kubelite.node.model.capacity import parse_cpus

        parse_cpus(value)
        return value

    @field_validator("eviction_hard")
    @classmethod
    def _threshold(cls, value: str) -> str:
        from kubelite.node.model.capacity import parse_thresholds

        parse_thresholds(value)
        return value

    @field_validator("preloaded_images_verification_allowlist")
    @classmethod
    def _images(cls, value: str) -> str:
        from kubelite.node.spec.image_verification import allowlist

        allowlist(value)
        return value

    @field_validator("pod_security_namespaces")
    @classmethod
    def _levels(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            try:
                parse_levels(text, Levels())
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return value

    @field_validator("allowed_host_paths")
    @classmethod
    def _paths(cls, value: str) -> str:
        for path in value.split(",") if value not in ("", "none") else ():
            if not path.strip().startswith("/") or ".." in path.removesuffix(":ro").split("/"):
                raise ValueError(f"{path!r} is not an absolute path without '..'")
        return value

    @property
    def pod_security(self) -> PodSecurity:
        default = Levels(self.pod_security_enforce, self.pod_security_warn, self.pod_security_audit)
        named = {name: parse_levels(text, default) for name, text in self.pod_security_namespaces.items()}
        paths = [
            path.strip() for path in self.allowed_host_paths.split(",") if path.strip() not in ("", "none")
        ]
        return PodSecurity(
            default, named, tuple(paths) if self.allowed_host_paths else None, self.image_digests_only
        )

    @property
    def audit_log(self) -> str:
        """Path of the audit log; "" if there is none."""
        return {"": f"{self.log_dir}/kubelite-audit.log", "none": ""}.get(
            self.audit_log_path, self.audit_log_path
        )

    @property
    def socket(self) -> str:
        """Path of the API's unix socket."""
        return f"{self.run_dir}/kubelite.sock"

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """Load settings from flags (None: not given), environment and configuration file. Raises SettingsError."""
        flags = {key: value for key, value in (flags or {}).items() if value is not None}
        environ = os.environ if environ is None else environ
        named = flags.pop("config", None) or environ.get(PREFIX + "CONFIG")
        values: dict[str, Any] = {"node_name": ""}
        origin: dict[str, str] = {}
        for found, place in (
            (_from_file(named or DEFAULT_CONFIG, required=bool(named)), named or DEFAULT_CONFIG),
            (_from_environment(environ), "the environment"),
            (flags, "the command line"),
        ):
            for written, value in found.items():
                key = _KUBELETS.get(written, written)
                _known(key, place, cls)
                values[key] = value
                origin[key] = place
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0])
            words = first["msg"].removeprefix("Value error, ")
            raise SettingsError(
                f"{origin.get(key, 'default')}: {key.replace('_', '-')}: {words} (got {first['input']!r})"
            ) from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    names = (name for name in environ if name.startswith(PREFIX))
    return {
        name.removeprefix(PREFIX).lower(): environ[name]
        for name in names
        if name.removeprefix(PREFIX) not in OTHER_VARIABLES
    }


def _from_file(path: str, *, required: bool) -> dict[str, Any]:
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise SettingsError(f"{path}: no such configuration file") from None
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: must consist of `name: value` lines")
    return {_snake(str(key)): value for key, value in data.items()}


def _snake(key: str) -> str:
    """Convert imageGCHighThresholdPercent or image-gc-high-threshold-percent to image_gc_high_threshold_percent."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", key).lower().replace("-", "_")


def _known(key: str, place: str, model: type[Settings]) -> None:
    if key in model.model_fields:
        return
    near = difflib.get_close_matches(key, list(model.model_fields), 1)
    hint = f', did you mean "{near[0]}"?' if near else ""
    raise SettingsError(f'{place}: unknown setting "{key}"{hint}')
