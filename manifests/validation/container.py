"""The API server's checks of a container, after defaulting (pkg/apis/core/validation, Kubernetes 1.36)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from manifests.names import (
    config_key,
    dns_subdomain,
    env_name,
    ip_address,
    no_backsteps,
    port_name,
    qualified_name,
    relative_path,
)
from manifests.problems import (
    Path,
    Problem,
    duplicate,
    forbidden,
    invalid,
    not_found,
    not_supported,
    required,
)
from manifests.types.core import (
    Container,
    ContainerPort,
    ContainerRestartRule,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    Pod,
    PodSpec,
    PodTemplateSpec,
    Quantity,
    ResourceRequirements,
    SecurityContext,
    Volume,
    VolumeMount,
)
from manifests.validation.probe import validate_lifecycle, validate_probes
from manifests.validation.rules import (
    formatted,
    one_of,
    port_in_range,
    profiles,
    required_name,
    resource_field,
    valid_id,
)

_ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_CONTAINER_RESOURCES = ("cpu", "ephemeral-storage", "memory")
_HUGE = "hugepages-"
_MAX_RULES = 20
_MAX_EXIT_CODES = 255


@dataclass(frozen=True, slots=True)
class Within:
    """The parts of the pod that the container's rules depend on."""

    spec: PodSpec
    volumes: Mapping[str, Volume]
    init: bool = False

    @classmethod
    def of(cls, pod: Pod | PodTemplateSpec, *, init: bool = False) -> "Within":
        return cls(pod.spec, {volume.name: volume for volume in pod.spec.volumes}, init)


def validate_container(container: Container, path: Path, pod: Within) -> Iterator[Problem]:
    """Check a container or an init container (validateContainerCommon, and what the kind of container adds)."""
    yield from required_name((*path, "name"), container.name)
    if not container.image:
        yield required((*path, "image"))
    elif container.image != container.image.strip():
        yield invalid((*path, "image"), container.image, "must not have leading or trailing whitespace")
    yield from one_of(
        (*path, "imagePullPolicy"), container.image_pull_policy, ("Always", "IfNotPresent", "Never")
    )
    yield from one_of(
        (*path, "terminationMessagePolicy"),
        container.termination_message_policy,
        ("File", "FallbackToLogsOnError"),
    )
    yield from _ports(container.ports, (*path, "ports"), pod)
    for index, env in enumerate(container.env):
        yield from _env(env, (*path, "env", index))
    for index, source in enumerate(container.env_from):
        yield from _env_from(source, (*path, "envFrom", index))
    yield from _mounts(container, path, pod)
    yield from validate_probes(container, path)
    if container.lifecycle is not None:
        yield from validate_lifecycle(container.lifecycle, (*path, "lifecycle"), pod.spec)
    if container.resources is not None:
        yield from validate_resources(container.resources, (*path, "resources"))
    if container.security_context is not None:
        yield from _security(container.security_context, (*path, "securityContext"), pod.spec)
    yield from _restart(container, path, pod)
    for index, policy in enumerate(container.resize_policy):
        here = (*path, "resizePolicy", index)
        yield from one_of((*here, "resourceName"), policy.resource_name, ("cpu", "memory"))
        yield from one_of(
            (*here, "restartPolicy"), policy.restart_policy, ("NotRequired", "RestartContainer")
        )


def _restart(container: Container, path: Path, pod: Within) -> Iterator[Problem]:
    """Check a container's own restart policy and rules, and the fields that only sidecars may have."""
    yield from one_of((*path, "restartPolicy"), container.restart_policy, ("Always", "Never", "OnFailure"))
    if container.restart_policy_rules and not container.restart_policy:
        yield required((*path, "restartPolicy"), "must specify restartPolicy when restart rules are used")
    if len(container.restart_policy_rules) > _MAX_RULES:
        yield Problem(
            (*path, "restartPolicyRules"),
            f"Too many: {len(container.restart_policy_rules)}: must have at most 20 items",
        )
    for index, rule in enumerate(container.restart_policy_rules):
        yield from _restart_rule(rule, (*path, "restartPolicyRules", index))
    if not pod.init or container.restart_policy == "Always":
        return
    for name in ("lifecycle", "liveness_probe", "readiness_probe", "startup_probe"):
        if getattr(container, name) is not None:
            alias = Container.model_fields[name].alias or name
            yield forbidden((*path, alias), "may not be set for init containers without restartPolicy=Always")


def _restart_rule(rule: ContainerRestartRule, path: Path) -> Iterator[Problem]:
    yield from one_of((*path, "action"), rule.action, ("Restart", "RestartAllContainers"))
    codes = rule.exit_codes
    if codes is None:
        yield required((*path, "exitCodes"), "must be specified")
        return
    yield from one_of((*path, "exitCodes", "operator"), codes.operator, ("In", "NotIn"))
    if not codes.values:
        yield invalid((*path, "exitCodes", "values"), "[]", "must specify at least 1 value")
    if len(codes.values) > _MAX_EXIT_CODES:
        yield Problem(
            (*path, "exitCodes", "values"), f"Too many: {len(codes.values)}: must have at most 255 items"
        )


def _ports(ports: list[ContainerPort], path: Path, pod: Within) -> Iterator[Problem]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        here = (*path, index)
        if port.name:
            yield from formatted((*here, "name"), port.name, port_name)
            if port.name in names:
                yield duplicate((*here, "name"), port.name)
            names.add(port.name)
        if port.container_port == 0:
            yield required((*here, "containerPort"))
        else:
            yield from port_in_range((*here, "containerPort"), port.container_port)
        if port.host_port:
            yield from port_in_range((*here, "hostPort"), port.host_port)
            if pod.spec.host_network and port.host_port != port.container_port:
                sentence = "must match `hostPort` when `hostNetwork` is set to true"
                yield invalid((*here, "containerPort"), port.container_port, sentence)
        if port.host_ip:
            yield from formatted((*here, "hostIP"), port.host_ip, ip_address)
        yield from one_of((*here, "protocol"), port.protocol, ("TCP", "UDP", "SCTP"))


def host_port_conflicts(containers: list[Container], path: Path) -> Iterator[Problem]:
    """Report ports of a pod that use the same port of the host."""
    seen: set[str] = set()
    for index, container in enumerate(containers):
        for number, port in enumerate(container.ports):
            if not port.host_port:
                continue
            key = f"{port.protocol}/{port.host_ip or ''}/{port.host_port}"
            if key in seen:
                yield duplicate((*path, index, "ports", number, "hostPort"), key)
            seen.add(key)


def _env(env: EnvVar, path: Path) -> Iterator[Problem]:
    yield from required_name((*path, "name"), env.name, env_name)
    if env.value_from is None:
        return
    here = (*path, "valueFrom")
    if env.value:
        yield invalid(here, "", "may not be specified when `value` is not empty")
    yield from _env_source(env.value_from, here)


def _env_source(source: EnvVarSource, path: Path) -> Iterator[Problem]:
    given = source.model_dump(exclude_none=True)
    if not given:
        sentence = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, "
            "`secretKeyRef` or `fileKeyRef`"
        )
        yield invalid(path, "", sentence)
    elif len(given) > 1:
        yield invalid(path, "", "may not have more than one field specified at a time")
    if source.field_ref is not None:
        yield from _env_field(source.field_ref.field_path, (*path, "fieldRef", "fieldPath"))
    if source.resource_field_ref is not None:
        yield from resource_field((*path, "resourceFieldRef"), source.resource_field_ref)
    for alias, reference in (
        ("configMapKeyRef", source.config_map_key_ref),
        ("secretKeyRef", source.secret_key_ref),
    ):
        if reference is not None:
            if not reference.name:
                yield required((*path, alias, "name"))
            yield from required_name((*path, alias, "key"), reference.key, config_key)
    if source.file_key_ref is not None:
        yield from formatted((*path, "fileKeyRef", "path"), source.file_key_ref.path, relative_path)


def _env_field(field: str, path: Path) -> Iterator[Problem]:
    subscript = _SUBSCRIPT.fullmatch(field)
    if subscript is not None:
        yield from formatted(path, subscript[2], qualified_name)
    elif field in ("metadata.labels", "metadata.annotations"):
        yield invalid(
            path, field, f"does not support the whole map in an environment variable: write {field}['KEY']"
        )
    else:
        yield from one_of(path, field, _ENV_FIELDS) if field else [required(path)]


def _env_from(source: EnvFromSource, path: Path) -> Iterator[Problem]:
    if source.prefix:
        yield from formatted((*path, "prefix"), source.prefix, env_name)
    references = {"configMapRef": source.config_map_ref, "secretRef": source.secret_ref}
    given = {alias: reference for alias, reference in references.items() if reference is not None}
    if not given:
        yield invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
    elif len(given) > 1:
        yield invalid(path, "", "may not have more than one field specified at a time")
    for alias, reference in given.items():
        yield from required_name((*path, alias, "name"), reference.name, dns_subdomain)


def _mounts(container: Container, path: Path, pod: Within) -> Iterator[Problem]:
    seen: set[str] = set()
    devices = {device.device_path for device in container.volume_devices}
    for index, mount in enumerate(container.volume_mounts):
        here = (*path, "volumeMounts", index)
        if not mount.name:
            yield required((*here, "name"))
        elif mount.name not in pod.volumes:
            yield not_found((*here, "name"), mount.name)
        if not mount.mount_path:
            yield required((*here, "mountPath"))
        elif mount.mount_path in seen:
            yield invalid((*here, "mountPath"), mount.mount_path, "must be unique")
        elif mount.mount_path in devices:
            yield invalid(
                (*here, "mountPath"), mount.mount_path, "must not already exist as a path in volumeDevices"
            )
        seen.add(mount.mount_path)
        yield from _mount_options(mount, here, container)
    for index, device in enumerate(container.volume_devices):
        here = (*path, "volumeDevices", index)
        volume = pod.volumes.get(device.name)
        if volume is None:
            yield not_found((*here, "name"), device.name)
        elif volume.persistent_volume_claim is None and volume.ephemeral is None:
            yield invalid(
                (*here, "name"),
                device.name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            )
        if not device.device_path:
            yield required((*here, "devicePath"))
        yield from formatted((*here, "devicePath"), device.device_path, no_backsteps)


def _mount_options(mount: VolumeMount, path: Path, container: Container) -> Iterator[Problem]:
    if mount.sub_path:
        yield from formatted((*path, "subPath"), mount.sub_path, relative_path)
    if mount.sub_path_expr:
        if mount.sub_path:
            yield invalid(
                (*path, "subPathExpr"), mount.sub_path_expr, "subPathExpr and subPath are mutually exclusive"
            )
        yield from formatted((*path, "subPathExpr"), mount.sub_path_expr, relative_path)
    yield from one_of(
        (*path, "mountPropagation"), mount.mount_propagation, ("None", "HostToContainer", "Bidirectional")
    )
    privileged = container.security_context is not None and container.security_context.privileged
    if mount.mount_propagation == "Bidirectional" and not privileged:
        sentence = "Bidirectional mount propagation is available only to privileged containers"
        yield forbidden((*path, "mountPropagation"), sentence)
    recursive = mount.recursive_read_only
    yield from one_of((*path, "recursiveReadOnly"), recursive, ("Disabled", "IfPossible", "Enabled"))
    if recursive in ("IfPossible", "Enabled"):
        if not mount.read_only:
            yield forbidden((*path, "recursiveReadOnly"), "may only be specified when readOnly is true")
        if mount.mount_propagation not in (None, "", "None"):
            sentence = "may only be specified when mountPropagation is None or not specified"
            yield forbidden((*path, "recursiveReadOnly"), sentence)


def validate_resources(
    resources: ResourceRequirements, path: Path, *, pod_level: bool = False
) -> Iterator[Problem]:
    """Check limits and requests, each by itself and against each other (ValidateResourceRequirements).

    `pod_level`: they belong to the pod as a whole, for which fewer resources are supported.
    """
    for alias, amounts in (("limits", resources.limits), ("requests", resources.requests)):
        for name, amount in amounts.items():
            if alias == "requests" and resources.limits.get(name) == amount:
                continue  # most likely copied from the limit by defaulting, and reported there
            yield from _resource(name, amount, (*path, alias, name), pod_level=pod_level)
    for name, asked in resources.requests.items():
        limit = resources.limits.get(name)
        here = (*path, "requests", name)
        if limit is not None and name not in _CONTAINER_RESOURCES and asked != limit:
            yield invalid(here, str(asked), f"must be equal to {name} limit of {limit}")
        elif limit is not None and asked > limit:
            yield invalid(here, str(asked), f"must be less than or equal to {name} limit of {limit}")
        elif limit is None and name not in _CONTAINER_RESOURCES:
            yield required((*path, "limits"), f"Limit must be set for non overcommitable resources: {name}")
    named = {*resources.limits, *resources.requests}
    if any(name.startswith(_HUGE) for name in named) and not named & {"cpu", "memory"}:
        yield forbidden(path, "HugePages require cpu or memory")


def _resource(name: str, amount: Quantity, path: Path, *, pod_level: bool) -> Iterator[Problem]:
    if pod_level and name not in ("cpu", "memory") and not name.startswith(_HUGE):
        yield not_supported(path, name, ("cpu", "memory", "hugepages-"))
    elif "/" not in name and name not in _CONTAINER_RESOURCES and not name.startswith(_HUGE):
        yield invalid(
            path,
            name,
            "must be a standard resource for containers: cpu, memory, ephemeral-storage, hugepages-*",
        )
    else:
        yield from formatted(path, name, qualified_name)
    if amount < Quantity(0):
        yield invalid(path, str(amount), "must be greater than or equal to 0")
    elif name not in _CONTAINER_RESOURCES and amount.exact().denominator != 1:
        yield invalid(path, str(amount), "must be an integer")


def _security(context: SecurityContext, path: Path, spec: PodSpec) -> Iterator[Problem]:
    for alias, number in (("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)):
        yield from valid_id((*path, alias), number)
    yield from one_of((*path, "procMount"), context.proc_mount, ("Default", "Unmasked"))
    if context.proc_mount == "Unmasked" and spec.host_users is not False:
        yield invalid((*path, "procMount"), context.proc_mount, "`hostUsers` must be false to use `Unmasked`")
    if context.allow_privilege_escalation is False:
        if context.privileged:
            sentence = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield invalid(path, "", sentence)
        if context.capabilities is not None and "CAP_SYS_ADMIN" in context.capabilities.add:
            sentence = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            yield invalid(path, "", sentence)
    yield from profiles(context, path)
