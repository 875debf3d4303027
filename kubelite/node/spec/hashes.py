"""What an edit requires: three hashes of the inputs of a pod's sandbox, of a container and of a cgroup.

Each hash is recorded with what was created from it. Only a difference between the recorded and the wanted hash causes a
restart or an update:

    sandbox_hash      the shared namespaces: a difference recreates the pod's sandbox
    container_hash    the process and its files: a difference restarts that container
    resources_hash    the limits: a difference is written to the cgroup in place

Fields that are in none of them (labels, annotations, probes, hooks, grace period, pull policy, informational ports,
host aliases, DNS) change in place, or take effect the next time they are used. So do limits of bandwidth, which the
sandbox records as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kubelite.node.model.spec_cache import once_a_spec
from kubelite.node.spec.bandwidth import asked_bandwidth
from kubelite.node.spec.netfiles import pod_hostname
from manifests.types.core import Container, Pod

_CONTAINER_FIELDS = (
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "env",
    "envFrom",
    "volumeMounts",
    "volumeDevices",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "terminationMessagePath",
)
_POD_SECURITY_FIELDS = (  # the fields of the pod's securityContext that apply to each container
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "fsGroup",
    "seccompProfile",
    "seLinuxOptions",
    "appArmorProfile",
)


def canonical(value: Any) -> str:
    """JSON text that is the same for values of equal meaning: sorted keys, no blanks, and no nulls or empty lists,
    because these mean the same as an unset field."""
    return json.dumps(_pruned(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _pruned(value: Any) -> Any:
    if isinstance(value, Mapping):
        pruned = {key: _pruned(item) for key, item in value.items()}
        return {key: item for key, item in pruned.items() if item is not None and item != []}
    if isinstance(value, list | tuple):
        return [_pruned(item) for item in value]
    return value


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


_NOTHING = digest({})  # most pods have no limits


@once_a_spec
def _container_hashes(_pod: Pod) -> dict[int, tuple[Container, str]]:
    """The hashes computed so far, by the identity of the container."""
    return {}


def container_hash(pod: Pod, container: Container) -> str:
    """The hash of all inputs of the container's config.json, except those that change in place."""
    kept = _container_hashes(pod)
    known = kept.get(id(container))
    if known is None or known[0] is not container:
        known = kept[id(container)] = container, _container_hash(pod, container)
    return known[1]


def _container_hash(pod: Pod, container: Container) -> str:
    whole = container.to_json()
    wanted: dict[str, Any] = {key: whole[key] for key in _CONTAINER_FIELDS if key in whole}
    mounted = {mount.name for mount in container.volume_mounts}
    wanted["volumes"] = [volume.to_json() for volume in pod.spec.volumes if volume.name in mounted]
    if pod.spec.security_context is not None:
        shared = pod.spec.security_context.to_json()
        wanted["podSecurity"] = {key: shared[key] for key in _POD_SECURITY_FIELDS if key in shared}
    return digest(wanted)


def checks_hash(container: Container) -> str:
    """The hash of the probes and hooks whose failure makes the node kill a container; "" if it has none."""
    whole = container.to_json()
    wanted = {key: whole[key] for key in ("livenessProbe", "startupProbe", "lifecycle") if whole.get(key)}
    return digest(wanted) if wanted else ""


def creation_hash(pod: Pod) -> str:
    """The hash of all that can make the creation of the pod's sandbox fail: after an edit of it, the creation is tried
    again at once."""
    asked = asked_bandwidth(pod)
    return digest([sandbox_hash(pod), *asked]) if any(asked) else sandbox_hash(pod)


@once_a_spec
def sandbox_hash(pod: Pod) -> str:
    """The hash of all inputs of the pod's shared namespaces and published ports."""
    spec = pod.spec
    security = spec.security_context.to_json() if spec.security_context is not None else {}
    ports = [
        [port.host_ip or "", port.host_port, port.container_port, port.protocol or "TCP"]
        for container in [*spec.init_containers, *spec.containers]
        for port in container.ports
        if port.host_port
    ]
    return digest(
        {
            "hostname": pod_hostname(pod),
            "fqdn": [spec.subdomain or ""] if spec.set_hostname_as_fqdn else None,
            "hostNetwork": bool(spec.host_network),
            "hostPID": bool(spec.host_pid),
            "hostIPC": bool(spec.host_ipc),
            "hostPorts": [] if spec.host_network else sorted(ports, key=str),
            "sysctls": security.get("sysctls"),
            "hostUsers": False if spec.host_users is False else None,  # None keeps the hash of older versions
            "shareProcessNamespace": bool(spec.share_process_namespace),
            "runtimeClassName": spec.runtime_class_name,
        }
    )


def resources_hash(resources: Mapping[str, Any]) -> str:
    """The hash of an OCI linux.resources object without devices, which never change in place. It has three parts,
    joined by dots: CPU, memory and the rest, so that `resized` can tell what changed."""
    rest = {key: value for key, value in resources.items() if key not in ("devices", "cpu", "memory")}
    cpu = {key: value for key, value in resources.get("cpu", {}).items() if key != "cpus"}
    rest["cpus"] = resources.get("cpu", {}).get("cpus")  # assigned by the node: a change is not a resize
    return ".".join(digest(part) if part else _NOTHING for part in (cpu, resources.get("memory", {}), rest))


def resized(before: str, after: str) -> tuple[str, ...]:
    """Which of cpu and memory differ between two `resources_hash` values; none if one has an older format."""
    old, new = before.split("."), after.split(".")
    if len(old) != 3 or len(new) != 3:
        return ()
    return tuple(name for name, one, other in zip(("cpu", "memory"), old, new, strict=False) if one != other)
