"""Pod Security admission: the checks of the Pod Security Standards, applied at the levels of a pod's namespace.

Messages and their order are those of Kubernetes 1.36 (staging/src/k8s.io/pod-security-admission/policy); the version is
always `latest`. A check of `restricted` replaces the check of `baseline` that it makes stricter. Windows fields are
checked as well: they have no effect here, but a manifest must get the same answer as on a cluster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator

from kubelite.kube.json import Json
from kubelite.kube.objects import template_of
from kubelite.kube.pod_security import Level, PodSecurity
from kubelite.node.decide.sysctls import SAFE
from kubelite.node.model.ephemeral import every_container
from manifests.types.annotations import APPARMOR
from manifests.types.container import AppArmorProfile, SeccompProfile, SecurityContext, SELinuxOptions
from manifests.types.core import Pod
from manifests.types.pod import PodSecurityContext

Check = Callable[[Pod], tuple[str, str] | None]  # (reason, detail); None = allowed
Profile = AppArmorProfile | SeccompProfile | None

DEFAULT_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
VOLUMES = frozenset(
    {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
        "secret",
    }
)  # fmt: skip
_PROFILES = ("RuntimeDefault", "Localhost")


def violations(pod: Pod, level: Level) -> str:
    """Return the violations of the level, comma-separated; "" if there are none."""
    return ", ".join(f"{reason} ({detail})" if detail else reason for reason, detail in _violated(pod, level))


def _violated(pod: Pod, level: Level) -> list[tuple[str, str]]:
    """Return the reason and the detail of each violation."""
    if level is Level.PRIVILEGED:
        return []
    checks = BASELINE
    if level is Level.RESTRICTED:
        replaced = {old for _, old in RESTRICTED.values()}
        checks = {name: check for name, check in BASELINE.items() if name not in replaced}
        checks |= {name: check for name, (check, _) in RESTRICTED.items()}
    return [said for check in checks.values() if (said := check(pod)) is not None]


def forbidden(pod: Pod, security: PodSecurity) -> str:
    """Return why a pod is not admitted; "" if it is. The namespace's level `enforce`, the allowed host paths and the
    setting that requires digests can forbid it."""
    namespace, name = pod.metadata.namespace or "default", pod.metadata.name
    level = security.levels(namespace).enforce
    if found := violations(pod, level):
        return f'pods "{name}" is forbidden: violates PodSecurity "{level}:latest": {found}'
    found = host_paths(pod, security.host_paths) or (tags(pod) if security.digests_only else "")
    return f'pods "{name}" is forbidden: {found}' if found else ""


def tags(pod: Pod) -> str:
    """Return a message about the first image that is not named by its digest; "" if there is none."""
    images = {f'container "{one.name}"': one.image for one in every_container(pod)}
    images |= {
        f'volume "{one.name}"': one.image.reference for one in pod.spec.volumes if one.image is not None
    }
    for what, image in images.items():
        if not re.search(r"@sha256:[0-9a-f]{64}$", image or ""):
            return f"{what}: image {json.dumps(image or '')} must be named by its digest"
    return ""


def warning(pod: Pod, security: PodSecurity) -> str:
    """Return the pod's violations of its namespace's level `warn`; "" if there are none."""
    return _would(pod, security.levels(pod.metadata.namespace or "default").warn)


def workload_pod(workload: Json) -> Pod:
    """Return a pod of the workload's template, for `warning` and `audited`. The workload itself is not refused
    (Kubernetes: ValidatePodController in pod-security-admission/admission/admission.go)."""
    template = template_of(workload)
    metadata = {**(template.get("metadata") or {}), "name": workload["metadata"]["name"]}
    metadata["namespace"] = workload["metadata"].get("namespace", "default")
    spec = template.get("spec") or {}
    return Pod.parse({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def audited(pod: Pod, security: PodSecurity) -> str:
    """Return the pod's violations of its namespace's level `audit`; "" if there are none."""
    return _would(pod, security.levels(pod.metadata.namespace or "default").audit)


def existing(pods: Iterable[Pod], namespace: str, level: Level) -> list[str]:
    """Return warnings about the pods of a namespace that violate the level that it enforces from now on (Kubernetes:
    EvaluatePodsInNamespace in pod-security-admission/admission/admission.go)."""
    found: dict[str, list[str]] = {}
    for pod in pods:
        if reasons := ", ".join(reason for reason, _ in _violated(pod, level)):
            found.setdefault(reasons, []).append(pod.metadata.name or "")
    if not found:
        return []
    head = (
        f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{level}:latest"'
    )
    return [head, *sorted(f"{_pods(names)}: {reasons}" for reasons, names in found.items())]


def _pods(names: list[str]) -> str:
    others = len(names) - 1
    return f"{min(names)} (and {others} other pod{'s' * (others > 1)})" if others else names[0]


def _would(pod: Pod, level: Level) -> str:
    found = violations(pod, level)
    return f'would violate PodSecurity "{level}:latest": {found}' if found else ""


def host_paths(pod: Pod, allowed: Iterable[str] | None) -> str:
    """Return PodSecurityPolicy's message about the first hostPath volume outside the allowed paths; "" if there is
    none. A path in `allowed` includes everything below it. With the suffix `:ro`, it allows only read-only mounts. None
    allows all paths."""
    if allowed is None:
        return ""
    rules = [(path.removesuffix(":ro").rstrip("/") or "/", path.endswith(":ro")) for path in allowed]
    for index, volume in enumerate(pod.spec.volumes):
        if volume.host_path is None:
            continue
        path = "/" + "/".join(part for part in volume.host_path.path.split("/") if part not in ("", "."))
        fits = [only for root, only in rules if root in ("/", path) or path.startswith(f"{root}/")]
        where = (
            f"spec.volumes[{index}].hostPath.pathPrefix: Invalid value: {json.dumps(volume.host_path.path)}"
        )
        if not fits or ".." in path.split("/"):
            return f"{where}: is not allowed to be used"
        if all(fits) and not _mounted_read_only(pod, volume.name):
            return f"{where}: must be read-only"
    return ""


def _mounted_read_only(pod: Pod, name: str) -> bool:
    mounts = [mount for one in every_container(pod) for mount in one.volume_mounts if mount.name == name]
    return all(mount.read_only for mount in mounts)


# -- helpers ------------------------------------------------------------------------------------------------------


def _contexts(pod: Pod) -> Iterator[tuple[str, SecurityContext]]:
    """The containers' names and security contexts. A missing context is the same as an empty one."""
    for container in every_container(pod):
        yield container.name, container.security_context or SecurityContext()


def _quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _names(containers: list[str]) -> str:
    return f"{_plural('container', len(containers))} {_quoted(containers)}"


def _setters(pod: bool, containers: list[str]) -> str:
    return " and ".join([*["pod"] * pod, *([_names(containers)] if containers else [])])


def _wrong_profiles(
    pod: Pod, profile_of: Callable[[SecurityContext | PodSecurityContext], Profile]
) -> tuple[bool, list[str], set[str]]:
    """Whether the pod itself has a profile of a forbidden type, the containers that have one, and these types."""

    def wrong(context: SecurityContext | PodSecurityContext | None) -> set[str]:
        profile = profile_of(context) if context is not None else None
        return {profile.type} if profile is not None and profile.type not in _PROFILES else set()

    of_pod = wrong(pod.spec.security_context)
    found = {name: types for name, context in _contexts(pod) if (types := wrong(context))}
    return bool(of_pod), list(found), of_pod.union(*found.values())


def _in_user_namespace(pod: Pod) -> bool:
    return pod.spec.host_users is False


# -- baseline -----------------------------------------------------------------------------------------------------


def _app_armor(pod: Pod) -> tuple[str, str] | None:
    of_pod, containers, values = _wrong_profiles(pod, lambda context: context.app_armor_profile)
    annotations = [
        f"{key}={json.dumps(value)}"
        for key, value in sorted((pod.metadata.annotations or {}).items())
        if key.startswith(APPARMOR)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    ]
    said = [*sorted(values), *annotations]
    if not said:
        return None
    setters = [_setters(of_pod, containers)] if of_pod or containers else []
    setters += [_plural("annotation", len(annotations))] if annotations else []
    detail = f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(said)}"
    return _plural("forbidden AppArmor profile", len(said)), detail


def _capabilities_baseline(pod: Pod) -> tuple[str, str] | None:
    return _added(pod, DEFAULT_CAPABILITIES, "non-default capabilities")


def _added(pod: Pod, allowed: frozenset[str], reason: str) -> tuple[str, str] | None:
    containers, added = [], set()
    for name, context in _contexts(pod):
        if context.capabilities is not None and (more := set(context.capabilities.add) - allowed):
            containers.append(name)
            added |= more
    if not containers:
        return None
    said = (
        f"{_names(containers)} must not include {_quoted(sorted(added))} in securityContext.capabilities.add"
    )
    return reason, said


def _host_namespaces(pod: Pod) -> tuple[str, str] | None:
    spec = pod.spec
    given = (("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc))
    said = [f"{name}=true" for name, value in given if value]
    return ("host namespaces", ", ".join(said)) if said else None


def _host_path_volumes(pod: Pod) -> tuple[str, str] | None:
    names = [volume.name for volume in pod.spec.volumes if volume.host_path is not None]
    return ("hostPath volumes", f"{_plural('volume', len(names))} {_quoted(names)}") if names else None


def _host_ports(pod: Pod) -> tuple[str, str] | None:
    used = {
        one.name: [port.host_port for port in one.ports if port.host_port] for one in every_container(pod)
    }
    containers = [name for name, ports in used.items() if ports]
    if not containers:
        return None
    ports = sorted({str(port) for ports in used.values() for port in ports})
    uses = "uses" if len(containers) == 1 else "use"
    return "hostPort", f"{_names(containers)} {uses} {_plural('hostPort', len(ports))} {', '.join(ports)}"


def _host_probes(pod: Pod) -> tuple[str, str] | None:
    containers, hosts = set(), set()
    for one in every_container(pod):
        hooks = (one.lifecycle.post_start, one.lifecycle.pre_stop) if one.lifecycle is not None else ()
        for action in (one.liveness_probe, one.readiness_probe, one.startup_probe, *hooks):
            if action is None:
                continue
            for target in (action.http_get, action.tcp_socket):
                if target is not None and target.host:
                    containers.add(one.name)
                    hosts.add(target.host)
    if not hosts:
        return None
    uses, what = "uses" if len(containers) == 1 else "use", "probe or lifecycle host"
    return what, f"{_names(sorted(containers))} {uses} {_plural(what, len(hosts))} {_quoted(sorted(hosts))}"


def _privileged(pod: Pod) -> tuple[str, str] | None:
    containers = [name for name, context in _contexts(pod) if context.privileged]
    said = f"{_names(containers)} must not set securityContext.privileged=true"
    return ("privileged", said) if containers else None


def _proc_mount_baseline(pod: Pod) -> tuple[str, str] | None:
    return None if _in_user_namespace(pod) else _proc_mount(pod)


def _proc_mount(pod: Pod) -> tuple[str, str] | None:
    found = {name: context.proc_mount for name, context in _contexts(pod)}
    bad = {name: kind for name, kind in found.items() if kind is not None and kind != "Default"}
    said = (
        f"{_names(list(bad))} must not set securityContext.procMount to {_quoted(sorted(set(bad.values())))}"
    )
    return ("procMount", said) if bad else None


def _selinux(pod: Pod) -> tuple[str, str] | None:
    security = pod.spec.security_context
    given: list[SELinuxOptions] = []

    def bad(options: SELinuxOptions | None) -> bool:
        if options is None:
            return False
        wrong = (options.type or "") not in SELINUX_TYPES or bool(options.user) or bool(options.role)
        if wrong:
            given.append(options)
        return wrong

    of_pod = security is not None and bad(security.se_linux_options)
    containers = [name for name, context in _contexts(pod) if bad(context.se_linux_options)]
    if not given:
        return None
    types = sorted({options.type or "" for options in given} - SELINUX_TYPES)
    said = [f"{_plural('type', len(types))} {_quoted(types)}"] if types else []
    said += ["user may not be set"] * any(options.user for options in given)
    said += ["role may not be set"] * any(options.role for options in given)
    setters = _setters(of_pod, containers)
    return "seLinuxOptions", f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(said)}"


def _seccomp_baseline(pod: Pod) -> tuple[str, str] | None:
    of_pod, containers, values = _wrong_profiles(pod, lambda context: context.seccomp_profile)
    if not values:
        return None
    setters = _setters(of_pod, containers)
    said = f"{setters} must not set securityContext.seccompProfile.type to {_quoted(sorted(values))}"
    return "seccompProfile", said


def _sysctls(pod: Pod) -> tuple[str, str] | None:
    security = pod.spec.security_context
    names = [one.name for one in (security.sysctls if security is not None else ()) if one.name not in SAFE]
    return ("forbidden sysctls", ", ".join(names)) if names else None


def _windows_host_process(pod: Pod) -> tuple[str, str] | None:
    security = pod.spec.security_context
    options = security.windows_options if security is not None else None
    of_pod = options is not None and bool(options.host_process)
    containers = [
        name
        for name, context in _contexts(pod)
        if context.windows_options is not None and context.windows_options.host_process
    ]
    said = f"{_setters(of_pod, containers)} must not set securityContext.windowsOptions.hostProcess=true"
    return ("hostProcess", said) if of_pod or containers else None


# -- restricted ---------------------------------------------------------------------------------------------------


def _allow_privilege_escalation(pod: Pod) -> tuple[str, str] | None:
    containers = [name for name, c in _contexts(pod) if c.allow_privilege_escalation is not False]
    said = f"{_names(containers)} must set securityContext.allowPrivilegeEscalation=false"
    return ("allowPrivilegeEscalation != false", said) if containers else None


def _capabilities_restricted(pod: Pod) -> tuple[str, str] | None:
    missing = [
        name for name, c in _contexts(pod) if c.capabilities is None or "ALL" not in c.capabilities.drop
    ]
    said = [f'{_names(missing)} must set securityContext.capabilities.drop=["ALL"]'] if missing else []
    if added := _added(pod, frozenset({"NET_BIND_SERVICE"}), ""):
        said.append(added[1])
    return ("unrestricted capabilities", "; ".join(said)) if said else None


def _restricted_volumes(pod: Pod) -> tuple[str, str] | None:
    kinds = {}
    for volume in pod.spec.volumes:
        kind = next(
            (key for key, value in volume.to_json().items() if key != "name" and value is not None), "unknown"
        )
        if kind not in VOLUMES:
            kinds[volume.name] = kind
    if not kinds:
        return None
    uses, types = "uses" if len(kinds) == 1 else "use", sorted(set(kinds.values()))
    names = f"{_plural('volume', len(kinds))} {_quoted(kinds)}"
    return (
        "restricted volume types",
        f"{names} {uses} {_plural('restricted volume type', len(types))} {_quoted(types)}",
    )


def _run_as_non_root(pod: Pod) -> tuple[str, str] | None:
    if _in_user_namespace(pod):
        return None
    security = pod.spec.security_context
    of_pod = security.run_as_non_root if security is not None else None
    set_to = {name: context.run_as_non_root for name, context in _contexts(pod)}
    bad = [name for name, value in set_to.items() if value is False]
    reason = "runAsNonRoot != true"
    if of_pod is False or bad:
        return reason, f"{_setters(of_pod is False, bad)} must not set securityContext.runAsNonRoot=false"
    silent = [name for name, value in set_to.items() if value is None and of_pod is not True]
    said = f"pod or {_names(silent)} must set securityContext.runAsNonRoot=true"
    return (reason, said) if silent else None


def _run_as_user(pod: Pod) -> tuple[str, str] | None:
    if _in_user_namespace(pod):
        return None
    security = pod.spec.security_context
    of_pod = security is not None and security.run_as_user == 0
    containers = [name for name, context in _contexts(pod) if context.run_as_user == 0]
    said = f"{_setters(of_pod, containers)} must not set runAsUser=0"
    return ("runAsUser=0", said) if of_pod or containers else None


def _seccomp_restricted(pod: Pod) -> tuple[str, str] | None:
    if (found := _seccomp_baseline(pod)) is not None:
        return found
    security = pod.spec.security_context
    if security is not None and security.seccomp_profile is not None:
        return None
    silent = [name for name, context in _contexts(pod) if context.seccomp_profile is None]
    said = f'pod or {_names(silent)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return ("seccompProfile", said) if silent else None


#: Checks by Kubernetes' id, in the order in which it runs them.
BASELINE: dict[str, Check] = {
    "appArmorProfile": _app_armor,
    "capabilities_baseline": _capabilities_baseline,
    "hostNamespaces": _host_namespaces,
    "hostPathVolumes": _host_path_volumes,
    "hostPorts": _host_ports,
    "hostProbesAndHostLifecycle": _host_probes,
    "privileged": _privileged,
    "procMount_baseline": _proc_mount_baseline,
    "seLinuxOptions": _selinux,
    "seccompProfile_baseline": _seccomp_baseline,
    "sysctls": _sysctls,
    "windowsHostProcess": _windows_host_process,
}
#: id → check, and the id of the baseline check that it replaces ("": none).
RESTRICTED: dict[str, tuple[Check, str]] = {
    "allowPrivilegeEscalation": (_allow_privilege_escalation, ""),
    "capabilities_restricted": (_capabilities_restricted, "capabilities_baseline"),
    "procMount_restricted": (_proc_mount, "procMount_baseline"),
    "restrictedVolumes": (_restricted_volumes, "hostPathVolumes"),
    "runAsNonRoot": (_run_as_non_root, ""),
    "runAsUser": (_run_as_user, ""),
    "seccompProfile_restricted": (_seccomp_restricted, "seccompProfile_baseline"),
}
