"""The model: each setting with its type, default, description and checks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kubelite.kube.objects import Automount
from kubelite.kube.pod_security import Labels, Level, Levels, PodSecurity, parse_levels
from kubelite.kube.setting_types import Amounts, ByPriority, Duration, Numbers, Seconds, Texts, Thresholds
from kubelite.settings import checks
from kubelite.settings.loading import (
    DEFAULT_CONFIG,
    KUBELETS,
    PREFIX,
    SettingsError,
    check_known,
    from_environment,
    from_file,
)

EVICTION_HARD = (
    "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,"
    "imagefs.available<15%,imagefs.inodesFree<5%"
)


class Settings(BaseModel):
    """A node's settings. Paths are absolute after `load`."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    # Each field is followed by its description, which the reference page of the settings shows.
    manifests: str = "/etc/kubelite/manifests"
    """The directory of manifests that the node watches."""
    root: str = checks.DEFAULT_ROOT
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
    tls_cert_file: str = ""
    """A PEM file with a certificate, and those of its issuers, for HTTPS on `listen`. Empty: HTTP."""
    tls_private_key_file: str = ""
    """A PEM file with the key of `tls_cert_file`, without a password. Empty: the key is in that file."""
    client_ca_file: str = ""
    """A PEM file with certificate authorities. Only clients with a certificate of one of them may read metrics, web
    pages and logs. Health checks need none. Empty: no certificate is asked for."""
    web_hosts: str = ""
    """Host names under which a server on loopback answers, separated by commas, for example behind a proxy. It always
    answers to IP addresses, `localhost` and the node's name."""
    api_group: str = ""
    """Group, by name or number, whose members may read the API, except Secrets. All else needs root. Empty: none."""
    api_address: str = "127.0.0.1:6443"
    """Address of the Kubernetes API over TLS, for kubectl and other clients. The port is open from the first
    `kubelite kubeconfig` on. `none`: never, and no pod gets a token."""
    automount_service_account_tokens: Automount = Automount.NAMED
    """Which pods get a token of the Kubernetes API when they are created. `Named`: those that name a ServiceAccount
    other than `default`, or set `automountServiceAccountToken: true`. `All`: all that do not refuse it, as on a
    cluster. `None`: none."""
    audit_log_path: str = ""
    """File for the audit log of the API. Default: `kubelite-audit.log` in `log_dir`. `none`: no audit log."""
    audit_log_max_size: int = Field(10 * 1024 * 1024, ge=0)
    """Size in bytes at which the audit log is rotated; 0: never."""
    audit_log_max_files: int = Field(5, ge=1)
    """Files kept of the audit log, the current one included."""
    network: Literal["bridge", "cni"] = "bridge"
    """What gives pods their network: `bridge`, the node itself; `cni`, the plugins of `cni_conf_dir`. Services,
    NetworkPolicies and Ingresses need `bridge`."""
    cni_conf_dir: str = "/etc/cni/net.d"
    """Directory of CNI configurations, of which the first valid one by name is used."""
    cni_bin_dirs: str = "/opt/cni/bin,/usr/lib/cni"
    """Directories of CNI plugins, separated by commas. The first that has a plugin wins."""
    cni_plugin_timeout: Seconds = 60.0
    """Time that a CNI plugin has to answer. Then it is killed."""
    bridge: str = "kubelite0"
    """Bridge of the pod network; at most 15 characters."""
    pod_cidr: str = "10.88.0.0/16"
    """IPv4 range of pod addresses. With an IPv6 range behind a comma (`10.88.0.0/16,fd00:88::/64`), pods get an address
    of each."""
    pod_routing: bool = False
    """Let machines that have a route to `pod_cidr` connect to every port of every pod. Host ports need no route."""
    service_cidr: str = Field("", validate_default=True)
    """IPv4 range of the addresses of Services. Default: `10.96.0.0/16`, or `172.30.0.0/16` if `pod_cidr` overlaps
    it. With an IPv6 range behind a comma (`10.96.0.0/16,fd00:96::/112`), Services may have addresses of both families;
    pods then need them, too: see `pod_cidr`."""
    node_port_range: str = "30000-32767"
    """Ports of this machine that Services of the types NodePort and LoadBalancer get."""
    service_counters: bool = False
    """Count packets and bytes of Services by endpoint, for the metrics. Each packet through a Service then costs one
    more look-up in the kernel."""
    ingress_image: str = "docker.io/library/haproxy:3.0"
    """Image of the proxy that serves Ingresses: haproxy 3.0 or newer. It is pulled when the node gets its first
    Ingress."""
    ingress_http_port: int = Field(80, ge=1, le=65535)
    """Port of this machine at which Ingresses answer HTTP."""
    ingress_https_port: int = Field(443, ge=1, le=65535)
    """Port of this machine at which Ingresses answer HTTPS."""
    cgroup_parent: str = "kubelite"
    """Cgroup that holds everything of this node, below the root of each hierarchy."""
    node_name: str = ""
    """Name of the node. Default: the host name in lower case."""
    cluster_port: int = Field(10250, ge=1, le=65535)
    """Port of this machine at which the API server of a cluster reaches the node, once it has joined one."""
    cluster_domain: str = "cluster.local"
    """DNS domain of pods, as `/etc/hosts` and fully qualified host names show it."""
    cluster_dns: str = "auto"
    """Name servers of pods with dnsPolicy ClusterFirst. `auto`: the node's own DNS server, once the node has a Service;
    the host's servers until then. `none`: always the host's servers. Or addresses, separated by commas."""
    dns_stub_domains: Texts = {}
    """Domains whose names the node's DNS server asks other servers for, with `;` between several:
    `corp.example=192.0.2.53;192.0.2.54`."""
    dns_records: Texts = {}
    """Names that the node's DNS server answers besides those of Services: addresses with `;` between them, or another
    name: `printer.office=192.0.2.7,wiki=wiki.corp.example`."""
    resolv_conf: str = ""
    """File from which pods get `/etc/resolv.conf`. Default: the host's; if that names only the local stub of
    systemd-resolved, the servers behind the stub."""
    max_parallel_pulls: int = Field(3, ge=1)
    """Images pulled at the same time."""
    serialize_image_pulls: bool = False
    """Pull one image at a time."""
    image_worker_memory: str = "1Gi"
    """Memory of the processes that pull, unpack and remove images, all together: an amount, a share of the machine's
    memory such as `20%`, or `none`. The page cache of their files counts, but the kernel frees it when needed."""
    build_memory: str = "80%"
    """Memory of each RUN of a build, unless `kubelite build --memory` says otherwise, in the form of
    `image_worker_memory`."""
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
    pod_security_labels: Labels = Labels.OVERRIDE
    """What the labels of a Namespace in the manifests do. `Override`: they replace the levels of these settings, as on
    a cluster. `Restrict`: they make them stricter, never laxer. `Ignore`: nothing."""
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
    to a container. The devices of a device plugin replace the number."""
    plugin_dir: str = Field("", validate_default=True)
    """The directory in which plugins find the node: device plugins at `device-plugins/kubelet.sock` in it, clients of
    the pod resources API at `pod-resources/kubelet.sock`. `none`: no plugins. Default: `/var/lib/kubelet`, where
    plugins look; with another `root`, `kubelet` in it."""
    cdi_spec_dirs: str = "/etc/cdi,/var/run/cdi"
    """Directories of the files of the Container Device Interface, separated by commas. A later one has precedence."""
    system_reserved: Amounts = ""
    """Resources reserved for other programs on the machine, in the form of `kube_reserved`."""
    no_new_privileges: bool = False
    """Set-user-ID programs and file capabilities have no effect in containers that do not set
    `allowPrivilegeEscalation` (no_new_privs)."""
    socketcall: bool = True
    """The default seccomp profile allows socketcall(2), which 32-bit programs of glibc need to open any socket. `false`
    refuses it, so that such programs cannot open AF_ALG and AF_VSOCK sockets, nor any other."""
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

    _directories = field_validator("manifests", "root", "run_dir", "log_dir", "cni_conf_dir")(
        checks.absolute_path
    )
    _files = field_validator(
        "resolv_conf", "web_token_file", "metrics_token_file", "image_policy", "tls_cert_file"
    )(checks.optional_path)
    _tls = field_validator("tls_private_key_file", "client_ca_file")(checks.path_with_tls)
    _audit_log = field_validator("audit_log_path")(checks.path_or_none)
    _host_and_port = field_validator("listen", "api_address")(checks.host_and_port)
    _runtimes = field_validator("runtime_classes")(checks.runtime_classes)
    _priorities = field_validator("priority_classes")(checks.priority_classes)
    _names = field_validator("web_hosts")(checks.host_names)
    _collector = field_validator("otlp_endpoint")(checks.otlp_endpoint)
    _of_the_whole = field_validator("shutdown_grace_period_critical_pods")(checks.part_of_grace_period)
    _one_of_the_two = field_validator("shutdown_grace_period_by_pod_priority")(
        checks.one_kind_of_grace_period
    )
    _name_servers = field_validator("cluster_dns")(checks.name_servers)
    _stubs = field_validator("dns_stub_domains")(checks.stub_domains)
    _records = field_validator("dns_records")(checks.dns_records)
    _plugins = field_validator("cni_bin_dirs", "cdi_spec_dirs")(checks.absolute_paths)
    _interface_name = field_validator("bridge")(checks.interface_name)
    _network = field_validator("pod_cidr")(checks.pod_network)
    _services = field_validator("service_cidr")(checks.service_network)
    _node_ports = field_validator("node_port_range")(checks.port_range)
    _two_ports = field_validator("ingress_https_port")(checks.another_port)
    _cgroup_name = field_validator("cgroup_parent")(checks.cgroup_name)
    _node = field_validator("node_name")(checks.node_name)
    _below_high = field_validator("image_gc_low_threshold_percent")(checks.below_high_threshold)
    _reservation = field_validator("kube_reserved", "system_reserved")(checks.reservation)
    _plugin_directory = field_validator("plugin_dir")(checks.plugin_directory)
    _extended = field_validator("extended_resources")(checks.extended_resources)
    _memory = field_validator("image_worker_memory", "build_memory")(checks.memory_limit)
    _processors = field_validator("reserved_cpus")(checks.processors)
    _threshold = field_validator("eviction_hard")(checks.thresholds)
    _images = field_validator("preloaded_images_verification_allowlist")(checks.image_names)
    _levels = field_validator("pod_security_namespaces")(checks.pod_security_levels)
    _paths = field_validator("allowed_host_paths")(checks.host_paths)

    @property
    def pod_networks(self) -> tuple[str, str]:
        """`pod_cidr` by family: IPv4, and IPv6 or ""."""
        first, _, second = self.pod_cidr.partition(",")
        return first, second

    @property
    def service_networks(self) -> tuple[str, str]:
        """`service_cidr` by family: IPv4, and IPv6 or ""."""
        first, _, second = self.service_cidr.partition(",")
        return first, second

    @property
    def cni_directories(self) -> tuple[str, ...]:
        """The directories of `cni_bin_dirs`."""
        return tuple(self.cni_bin_dirs.split(","))

    @property
    def pod_security(self) -> PodSecurity:
        default = Levels.of(self.pod_security_enforce, self.pod_security_warn, self.pod_security_audit)
        named = {name: parse_levels(text, default) for name, text in self.pod_security_namespaces.items()}
        paths = [
            path.strip() for path in self.allowed_host_paths.split(",") if path.strip() not in ("", "none")
        ]
        return PodSecurity(
            default,
            named,
            tuple(paths) if self.allowed_host_paths else None,
            self.image_digests_only,
            self.pod_security_labels,
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
            (from_file(named or DEFAULT_CONFIG, required=bool(named)), named or DEFAULT_CONFIG),
            (from_environment(environ), "the environment"),
            (flags, "the command line"),
        ):
            for written, value in found.items():
                key = KUBELETS.get(written, written)
                check_known(key, place, cls.model_fields)
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
