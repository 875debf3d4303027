"""The checks of the level `baseline` (policy/check_*.go)."""

from __future__ import annotations

import json
from functools import partial

from kubelite.node.decide.pod_security.containers import (
    Check,
    contexts,
    in_user_namespace,
    listed,
    plural,
    quoted,
    set_by,
    wrong_profiles,
)
from kubelite.node.model.ephemeral import every_container
from manifests.types.annotations import APPARMOR
from manifests.types.container import SELinuxOptions
from manifests.types.core import Pod

DEFAULT_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


def app_armor(pod: Pod) -> tuple[str, str] | None:
    of_pod, containers, values = wrong_profiles(pod, lambda context: context.app_armor_profile)
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
    setters = [set_by(of_pod, containers)] if of_pod or containers else []
    setters += [plural("annotation", len(annotations))] if annotations else []
    detail = f"{' and '.join(setters)} must not set AppArmor profile type to {quoted(said)}"
    return plural("forbidden AppArmor profile", len(said)), detail


def capabilities(pod: Pod) -> tuple[str, str] | None:
    return added_capabilities(pod, DEFAULT_CAPABILITIES, "non-default capabilities")


def added_capabilities(pod: Pod, allowed: frozenset[str], reason: str) -> tuple[str, str] | None:
    containers, added = [], set()
    for name, context in contexts(pod):
        if context.capabilities is not None and (more := set(context.capabilities.add) - allowed):
            containers.append(name)
            added |= more
    if not containers:
        return None
    said = (
        f"{listed(containers)} must not include {quoted(sorted(added))} in securityContext.capabilities.add"
    )
    return reason, said


def host_namespaces(pod: Pod) -> tuple[str, str] | None:
    spec = pod.spec
    given = (("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc))
    said = [f"{name}=true" for name, value in given if value]
    return ("host namespaces", ", ".join(said)) if said else None


def host_path_volumes(pod: Pod) -> tuple[str, str] | None:
    names = [volume.name for volume in pod.spec.volumes if volume.host_path is not None]
    return ("hostPath volumes", f"{plural('volume', len(names))} {quoted(names)}") if names else None


def host_ports(pod: Pod) -> tuple[str, str] | None:
    used = {
        one.name: [port.host_port for port in one.ports if port.host_port] for one in every_container(pod)
    }
    containers = [name for name, ports in used.items() if ports]
    if not containers:
        return None
    ports = sorted({str(port) for ports in used.values() for port in ports})
    uses = "uses" if len(containers) == 1 else "use"
    return "hostPort", f"{listed(containers)} {uses} {plural('hostPort', len(ports))} {', '.join(ports)}"


def host_probes(pod: Pod) -> tuple[str, str] | None:
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
    return what, f"{listed(sorted(containers))} {uses} {plural(what, len(hosts))} {quoted(sorted(hosts))}"


def privileged(pod: Pod) -> tuple[str, str] | None:
    containers = [name for name, context in contexts(pod) if context.privileged]
    said = f"{listed(containers)} must not set securityContext.privileged=true"
    return ("privileged", said) if containers else None


def proc_mount_outside_user_namespaces(pod: Pod) -> tuple[str, str] | None:
    return None if in_user_namespace(pod) else proc_mount(pod)


def proc_mount(pod: Pod) -> tuple[str, str] | None:
    found = {name: context.proc_mount for name, context in contexts(pod)}
    bad = {name: kind for name, kind in found.items() if kind is not None and kind != "Default"}
    said = (
        f"{listed(list(bad))} must not set securityContext.procMount to {quoted(sorted(set(bad.values())))}"
    )
    return ("procMount", said) if bad else None


def selinux(types: frozenset[str]) -> Check:
    return partial(_selinux, allowed=types)


def _selinux(pod: Pod, allowed: frozenset[str]) -> tuple[str, str] | None:
    security = pod.spec.security_context
    given: list[SELinuxOptions] = []

    def bad(options: SELinuxOptions | None) -> bool:
        if options is None:
            return False
        wrong = (options.type or "") not in allowed or bool(options.user) or bool(options.role)
        if wrong:
            given.append(options)
        return wrong

    of_pod = security is not None and bad(security.se_linux_options)
    containers = [name for name, context in contexts(pod) if bad(context.se_linux_options)]
    if not given:
        return None
    types = sorted({options.type or "" for options in given} - allowed)
    said = [f"{plural('type', len(types))} {quoted(types)}"] if types else []
    said += ["user may not be set"] * any(options.user for options in given)
    said += ["role may not be set"] * any(options.role for options in given)
    setters = set_by(of_pod, containers)
    return "seLinuxOptions", f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(said)}"


def seccomp(pod: Pod) -> tuple[str, str] | None:
    of_pod, containers, values = wrong_profiles(pod, lambda context: context.seccomp_profile)
    if not values:
        return None
    setters = set_by(of_pod, containers)
    said = f"{setters} must not set securityContext.seccompProfile.type to {quoted(sorted(values))}"
    return "seccompProfile", said


def seccomp_annotations(pod: Pod) -> tuple[str, str] | None:
    """What counted before Kubernetes 1.19 had the field."""
    keys = [_SECCOMP_POD, *(f"{_SECCOMP_CONTAINER}{name}" for name, _ in contexts(pod))]
    given = pod.metadata.annotations or {}
    forbidden = sorted(
        f"{key}={json.dumps(value)}"
        for key in dict.fromkeys(keys)
        if (value := given.get(key)) is not None
        and value not in ("runtime/default", "docker/default")
        and not value.startswith("localhost/")
    )
    said = f"forbidden {plural('annotation', len(forbidden))} {', '.join(forbidden)}"
    return ("seccompProfile", said) if forbidden else None


def sysctls(safe: frozenset[str]) -> Check:
    return partial(_sysctls, safe=safe)


def _sysctls(pod: Pod, safe: frozenset[str]) -> tuple[str, str] | None:
    security = pod.spec.security_context
    names = [one.name for one in (security.sysctls if security is not None else ()) if one.name not in safe]
    return ("forbidden sysctls", ", ".join(names)) if names else None


def windows_host_process(pod: Pod) -> tuple[str, str] | None:
    security = pod.spec.security_context
    options = security.windows_options if security is not None else None
    of_pod = options is not None and bool(options.host_process)
    containers = [
        name
        for name, context in contexts(pod)
        if context.windows_options is not None and context.windows_options.host_process
    ]
    said = f"{set_by(of_pod, containers)} must not set securityContext.windowsOptions.hostProcess=true"
    return ("hostProcess", said) if of_pod or containers else None
