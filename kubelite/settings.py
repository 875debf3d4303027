"""What a node can be told: one frozen value, from flags, environment and a file.

A flag wins over `KUBELITE_<NAME>` in the environment, which wins over the configuration file
(`/etc/kubelite/config.yaml`, or `--config`/`KUBELITE_CONFIG`), which wins over the defaults. Names are the same
everywhere: `--pod-cidr`, `KUBELITE_POD_CIDR`, `pod_cidr:` (or `podCidr:`/`pod-cidr:`) in the file.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from kubelite.durations import parse_duration

DEFAULT_CONFIG = "/etc/kubelite/config.yaml"
PREFIX = "KUBELITE_"
#: Environment variables of the prefix that are not settings of the node.
OTHER_VARIABLES = frozenset({"CONFIG", "LOG_FORMAT", "LOG_LEVEL", "SOCKET"})


_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _go_duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _classes(value: object) -> object:
    """`name=path,name=path`, as a flag or the environment has it."""
    if not isinstance(value, str):
        return value
    entries = [entry.partition("=") for entry in value.replace(",", " ").split()]
    return {name: path for name, _, path in entries}


_Duration = Annotated[float, BeforeValidator(_go_duration), Field(ge=0, allow_inf_nan=False)]


def _pairs(joint: str) -> BeforeValidator:
    """A mapping in the configuration file, as kubelet's has it, or the text of its flag: `cpu=100m,memory=1Gi`."""

    def text(value: object) -> object:
        if isinstance(value, dict):
            return ",".join(f"{key}{joint}{amount}" for key, amount in value.items())
        return value

    return BeforeValidator(text)


def _by_priority(value: object) -> object:
    """`0=60s,2000000000=10s`, or kubelet's list of priority and shutdownGracePeriodSeconds."""
    if isinstance(value, list):
        return {
            one.get("priority"): one.get("shutdownGracePeriodSeconds")
            for one in value
            if isinstance(one, dict)
        }
    return _classes(value)


_Amounts = Annotated[str, _pairs("=")]
_Thresholds = Annotated[str, _pairs("<")]
EVICTION_HARD = (
    "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,"
    "imagefs.available<15%,imagefs.inodesFree<5%"
)

_KUBELETS = {"max_parallel_image_pulls": "max_parallel_pulls"}  # kubelet's names for ours


class SettingsError(Exception):
    """A setting is unknown or has a value that cannot work; the sentence names it and where it came from."""


class Settings(BaseModel):
    """A node's settings. Paths are absolute after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    manifests: str = "/etc/kubelite/manifests"  # the watched directory
    root: str = "/var/lib/kubelite"  # state.db, images, pods
    run_dir: str = "/run/kubelite"  # sockets, shims, leases: gone after a reboot
    log_dir: str = "/var/log"  # <log-dir>/pods and <log-dir>/containers
    listen: str = "127.0.0.1:10255"  # metrics and health; "" or "none" = do not listen
    #: A file with a secret of at least 16 characters: who sends it (as a Bearer token, or as the password that a
    #: browser asks for) sees logs on the web page, too; "" = nobody does.
    web_token_file: str = ""
    #: Names, with commas between, under which a `listen` on loopback is asked (behind a proxy, for example), besides
    #: addresses, localhost and the node's name.
    web_hosts: str = ""
    bridge: str = "kubelite0"  # at most 15 characters
    pod_cidr: str = "10.88.0.0/16"
    cgroup_parent: str = "kubelite"  # below the root of every hierarchy
    node_name: str = ""  # default: the host's name, lower case
    cluster_domain: str = "cluster.local"
    resolv_conf: str = (
        ""  # what pods' resolv.conf is made from (kubelet: resolvConf); "" = the host's, see netfiles
    )
    max_parallel_pulls: int = Field(3, ge=1)  # kubelet: maxParallelImagePulls
    serialize_image_pulls: bool = False  # one at a time (kubelet: true)
    registry_pull_qps: float = Field(5.0, ge=0, allow_inf_nan=False)  # pulls begun a second; 0 = any number
    registry_burst: int = Field(10, ge=1)  # so many at once before that counts
    pull_backoff_initial: _Seconds = 10.0  # seconds (kubelet: 10)
    pull_backoff_max: _Seconds = 300.0  # seconds (kubelet: 300)
    image_gc_high_threshold_percent: int = Field(
        85, ge=0, le=100
    )  # of the disk: unused images go; 100 = never
    image_gc_low_threshold_percent: int = Field(80, ge=0, le=100)  # until so much is used
    image_minimum_gc_age: _Duration = 120.0  # seconds an unused image stays in any case
    image_maximum_gc_age: _Duration = (
        0.0  # an image unused for so long goes, whatever the disk says; 0 = never
    )
    image_gc_period: _Seconds = 300.0  # the disk is looked at so often
    log_max_size: int = (
        10 * 1024 * 1024
    )  # bytes a container's log file grows to before it is rotated; <= 0 never
    log_max_files: int = Field(5, ge=1)  # including the current one
    #: Where starts are sent as OpenTelemetry traces (OTLP/HTTP, JSON): http://collector:4318; "" = nowhere.
    otlp_endpoint: str = ""
    history_time: _Duration = 7 * 86400.0  # seconds that history is kept; 0 = none is
    history_size: int = Field(64 * 1024 * 1024, ge=0)  # bytes it takes at most, about; 0 = none is kept
    # directory and network are looked at again this often, each pod every third time, whatever events said
    relist_seconds: _Seconds = 20.0
    crash_backoff_initial: _Seconds = 10.0  # seconds (kubelet: 10)
    crash_backoff_max: _Seconds = 300.0  # seconds (kubelet: 300)
    volume_reclaim_policy: Literal["Retain", "Delete"] = (
        "Retain"  # what becomes of a claim's directory when the claim goes
    )
    allowed_unsafe_sysctls: str = ""  # net.core.somaxconn,kernel.msg*: beyond those that are always allowed
    max_pods: int = Field(1000, ge=0)  # (kubelet: 110)
    kube_reserved: _Amounts = ""  # cpu=…,memory=…,ephemeral-storage=…: of the machine, not for pods
    extended_resources: _Amounts = (
        ""  # example.com/gpu=2: what pods may ask for beyond what the machine says it has
    )
    system_reserved: _Amounts = ""  # the same, for what else runs on it
    pod_pids_limit: int = -1  # processes and threads a pod may have; -1: as many as the machine
    single_process_oom_kill: bool = False  # of one process alone; else of the whole container (cgroup v2)
    memory_qos: bool = False  # memory.high: slow down before the limit kills (cgroup v2)
    memory_throttling_factor: float = Field(0.9, gt=0, le=1)  # where between request and limit that begins
    memory_reservation_policy: Literal["None", "TieredReservation"] = (
        "None"  # memory.min and low by QoS class
    )
    memory_swap_behavior: Literal["NoSwap", "LimitedSwap"] = "NoSwap"  # (cgroup v2)
    cpu_manager_policy: Literal["none", "static"] = (
        "none"  # static: whole CPUs of Guaranteed pods are their own
    )
    reserved_cpus: str = ""  # 0-1,4: never given away by the static policy
    eviction_hard: _Thresholds = EVICTION_HARD  # below these, pods are evicted; none: never
    eviction_pressure_transition_period: _Duration = 300.0  # seconds a pressure is said to last at least
    eviction_monitoring_period: _Seconds = 10.0  # seconds between two looks
    shutdown_grace_period: _Duration = 0.0  # seconds that pods have when the machine shuts down; 0: none
    shutdown_grace_period_critical_pods: _Duration = 0.0  # of these, the last are critical pods'
    # a pod's runtimeClassName → the path of an OCI runtime's command (runc's command line)
    #: instead of both: for pods of each priority and above, its seconds; the lowest first
    shutdown_grace_period_by_pod_priority: Annotated[dict[int, _Duration], BeforeValidator(_by_priority)] = (
        Field(default_factory=dict)
    )
    runtime_classes: Annotated[dict[str, str], BeforeValidator(_classes)] = Field(default_factory=dict)
    # a pod's priorityClassName → its priority, beside system-node-critical and system-cluster-critical
    priority_classes: Annotated[dict[str, int], BeforeValidator(_classes)] = Field(default_factory=dict)

    @field_validator("manifests", "root", "run_dir", "log_dir", "resolv_conf", "web_token_file")
    @classmethod
    def _absolute(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name in ("resolv_conf", "web_token_file"):
            return ""
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
                raise ValueError(f"{name!r} is no name of a RuntimeClass: a DNS name in lower case is wanted")
            if not path.startswith("/"):
                raise ValueError(
                    f"{name}: must be the absolute path of an OCI runtime, for example /usr/bin/runc"
                )
        return value

    @field_validator("priority_classes")
    @classmethod
    def _priorities(cls, value: dict[str, int]) -> dict[str, int]:
        """As the API server has it: names that begin with system- and priorities above a billion are its own."""
        for name, priority in value.items():
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
                raise ValueError(
                    f"{name!r} is no name of a PriorityClass: a DNS name in lower case is wanted"
                )
            if name.startswith("system-"):
                raise ValueError(f"{name}: names that begin with system- are Kubernetes' own")
            if not -(1 << 31) <= priority <= 1_000_000_000:
                raise ValueError(f"{name}: must be at most 1000000000")
        return value

    @field_validator("web_hosts")
    @classmethod
    def _names(cls, value: str) -> str:
        names = [name.strip().lower() for name in value.split(",") if name.strip()]
        for name in names:
            if not re.fullmatch(r"[a-z0-9_]([-a-z0-9_.]{0,251}[a-z0-9_])?", name):
                raise ValueError(f"{name!r} is no DNS name; without a port, for example node-1.example.org")
        return ",".join(names)

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, value: str) -> str:
        """With the path that OTLP/HTTP has for traces, where none is named."""
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
            raise ValueError("must have neither a login nor a query nor a fragment")
        path = found.path if found.path.strip("/") else "/v1/traces"
        return f"{found.scheme}://{found.netloc}{path}"

    @field_validator("shutdown_grace_period_critical_pods")
    @classmethod
    def _of_the_whole(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("shutdown_grace_period", value):
            raise ValueError("is a part of shutdown_grace_period: it must not be longer")
        return value

    @field_validator("shutdown_grace_period_by_pod_priority")
    @classmethod
    def _one_of_the_two(cls, value: dict[int, float], info: ValidationInfo) -> dict[int, float]:
        """K pkg/kubelet/apis/config/validation."""
        for other in ("shutdown_grace_period", "shutdown_grace_period_critical_pods"):
            if value and info.data.get(other):
                raise ValueError(f"cannot be set together with {other}: either says how long pods have")
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
        from kubelite.node.capacity import parse_reserved

        parse_reserved(value)
        return value

    @field_validator("extended_resources")
    @classmethod
    def _extended(cls, value: str) -> str:
        from kubelite.node.capacity import parse_extended

        parse_extended(value)
        return value

    @field_validator("reserved_cpus")
    @classmethod
    def _processors(cls, value: str) -> str:
        from kubelite.node.capacity import parse_cpus

        parse_cpus(value)
        return value

    @field_validator("eviction_hard")
    @classmethod
    def _threshold(cls, value: str) -> str:
        from kubelite.node.capacity import parse_thresholds

        parse_thresholds(value)
        return value

    @property
    def socket(self) -> str:
        """The API's unix socket."""
        return f"{self.run_dir}/kubelite.sock"

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """Settings from flags (None = not given), environment and configuration file. Raises SettingsError."""
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
            raise SettingsError(f"{path}: there is no such configuration file") from None
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: must hold `name: value` lines")
    return {_snake(str(key)): value for key, value in data.items()}


def _snake(key: str) -> str:
    """imageGCHighThresholdPercent, image-gc-high-threshold-percent → image_gc_high_threshold_percent."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", key).lower().replace("-", "_")


def _known(key: str, place: str, model: type[Settings]) -> None:
    if key in model.model_fields:
        return
    near = difflib.get_close_matches(key, list(model.model_fields), 1)
    hint = f', did you mean "{near[0]}"?' if near else ""
    raise SettingsError(f'{place}: unknown setting "{key}"{hint}')
