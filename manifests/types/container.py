"""core/v1: a container and its parts: ports, env, probes, hooks, resources, security (Kubernetes 1.36).

This module has the shapes only: defaults are in manifests.types.defaults, rules in manifests.validation.container.
"""

from pydantic import Field

from manifests.types.meta import (
    Bool,
    Int32,
    Int64,
    IntOrString,
    Model,
    Quantities,
    Quantity,
    Str,
    empty_dict,
    empty_list,
)


class ConfigMapKeySelector(Model):
    key: Str
    name: Str | None = None
    optional: Bool | None = None


class ObjectFieldSelector(Model):
    field_path: Str
    api_version: Str | None = None


class FileKeySelector(Model):
    key: Str
    path: Str
    volume_name: Str
    optional: Bool | None = None


class ResourceFieldSelector(Model):
    resource: Str
    container_name: Str | None = None
    divisor: Quantity | None = None


class SecretKeySelector(Model):
    key: Str
    name: Str | None = None
    optional: Bool | None = None


class EnvVarSource(Model):
    config_map_key_ref: ConfigMapKeySelector | None = None
    field_ref: ObjectFieldSelector | None = None
    file_key_ref: FileKeySelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    secret_key_ref: SecretKeySelector | None = None


class EnvVar(Model):
    name: Str
    value: Str | None = None
    value_from: EnvVarSource | None = None


class ConfigMapEnvSource(Model):
    name: Str | None = None
    optional: Bool | None = None


class SecretEnvSource(Model):
    name: Str | None = None
    optional: Bool | None = None


class EnvFromSource(Model):
    config_map_ref: ConfigMapEnvSource | None = None
    prefix: Str | None = None
    secret_ref: SecretEnvSource | None = None


class ExecAction(Model):
    command: list[Str] = Field(default_factory=empty_list)


class HTTPHeader(Model):
    name: Str
    value: Str = ""


class HTTPGetAction(Model):
    port: IntOrString
    host: Str | None = None
    http_headers: list[HTTPHeader] = Field(default_factory=empty_list)
    path: Str | None = None
    scheme: Str | None = None


class SleepAction(Model):
    seconds: Int64


class TCPSocketAction(Model):
    port: IntOrString
    host: Str | None = None


class LifecycleHandler(Model):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    sleep: SleepAction | None = None
    tcp_socket: TCPSocketAction | None = None


class Lifecycle(Model):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: Str | None = None


class GRPCAction(Model):
    port: Int32
    service: Str | None = None


class Probe(Model):
    exec: ExecAction | None = None
    failure_threshold: Int32 | None = None
    grpc: GRPCAction | None = None
    http_get: HTTPGetAction | None = None
    initial_delay_seconds: Int32 | None = None
    period_seconds: Int32 | None = None
    success_threshold: Int32 | None = None
    tcp_socket: TCPSocketAction | None = None
    termination_grace_period_seconds: Int64 | None = None
    timeout_seconds: Int32 | None = None


class ContainerPort(Model):
    container_port: Int32
    name: Str | None = None
    host_ip: Str | None = Field(None, alias="hostIP")
    host_port: Int32 | None = None
    protocol: Str | None = None


class ContainerResizePolicy(Model):
    resource_name: Str
    restart_policy: Str


class ResourceClaim(Model):
    name: Str
    request: Str | None = None


class ResourceRequirements(Model):
    claims: list[ResourceClaim] = Field(default_factory=empty_list)
    limits: Quantities = Field(default_factory=empty_dict)
    requests: Quantities = Field(default_factory=empty_dict)


class ContainerRestartRuleOnExitCodes(Model):
    operator: Str
    values: list[Int32] = Field(default_factory=empty_list)


class ContainerRestartRule(Model):
    action: Str
    exit_codes: ContainerRestartRuleOnExitCodes | None = None


class AppArmorProfile(Model):
    type: Str
    localhost_profile: Str | None = None


class Capabilities(Model):
    add: list[Str] = Field(default_factory=empty_list)
    drop: list[Str] = Field(default_factory=empty_list)


class SELinuxOptions(Model):
    level: Str | None = None
    role: Str | None = None
    type: Str | None = None
    user: Str | None = None


class SeccompProfile(Model):
    type: Str
    localhost_profile: Str | None = None


class WindowsSecurityContextOptions(Model):
    gmsa_credential_spec: Str | None = None
    gmsa_credential_spec_name: Str | None = None
    host_process: Bool | None = None
    run_as_user_name: Str | None = None


class SecurityContext(Model):
    allow_privilege_escalation: Bool | None = None
    app_armor_profile: AppArmorProfile | None = None
    capabilities: Capabilities | None = None
    privileged: Bool | None = None
    proc_mount: Str | None = None
    read_only_root_filesystem: Bool | None = None
    run_as_group: Int64 | None = None
    run_as_non_root: Bool | None = None
    run_as_user: Int64 | None = None
    se_linux_options: SELinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None
    windows_options: WindowsSecurityContextOptions | None = None


class VolumeDevice(Model):
    name: Str
    device_path: Str


class VolumeMount(Model):
    name: Str
    mount_path: Str
    mount_propagation: Str | None = None
    read_only: Bool | None = None
    recursive_read_only: Str | None = None
    sub_path: Str | None = None
    sub_path_expr: Str | None = None


class Container(Model):
    name: Str
    args: list[Str] = Field(default_factory=empty_list)
    command: list[Str] = Field(default_factory=empty_list)
    env: list[EnvVar] = Field(default_factory=empty_list)
    env_from: list[EnvFromSource] = Field(default_factory=empty_list)
    image: Str | None = None
    image_pull_policy: Str | None = None
    lifecycle: Lifecycle | None = None
    liveness_probe: Probe | None = None
    ports: list[ContainerPort] = Field(default_factory=empty_list)
    readiness_probe: Probe | None = None
    resize_policy: list[ContainerResizePolicy] = Field(default_factory=empty_list)
    resources: ResourceRequirements | None = None
    restart_policy: Str | None = None
    restart_policy_rules: list[ContainerRestartRule] = Field(default_factory=empty_list)
    security_context: SecurityContext | None = None
    startup_probe: Probe | None = None
    stdin: Bool | None = None
    stdin_once: Bool | None = None
    termination_message_path: Str | None = None
    termination_message_policy: Str | None = None
    tty: Bool | None = None
    volume_devices: list[VolumeDevice] = Field(default_factory=empty_list)
    volume_mounts: list[VolumeMount] = Field(default_factory=empty_list)
    working_dir: Str | None = None


class EphemeralContainer(Container):
    """A container that is added to a running pod."""

    target_container_name: Str | None = None
