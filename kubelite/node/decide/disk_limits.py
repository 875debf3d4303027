"""The limits of a pod's disk usage: what they are, what must be measured, and which of them is exceeded.

The limits are `sizeLimit` of an emptyDir on disk, and `ephemeral-storage` of a container (its writable layer and its
logs) and of all containers together. A pod over a limit is evicted (Kubernetes eviction_manager.go,
localStorageEviction). A limit on `medium: Memory` is the size of its tmpfs and needs no measurement.
"""

from __future__ import annotations

from collections.abc import Mapping

from kubelite.node.model.node_config import NodeConfig
from manifests.types.core import Container, Pod
from manifests.types.meta import Quantity

STORAGE = "ephemeral-storage"
FILES = "pod/files"  # key of the pod's files that are mounted writable in its containers
CONTAINER = "container/"  # prefix of the key of a container; no volume's name contains a slash


def limited_volumes(pod: Pod, config: NodeConfig) -> dict[str, tuple[str, int]]:
    """The emptyDir volumes on disk that have a limit: name → (directory, bytes)."""
    return {
        volume.name: (
            config.volume_dir(pod.metadata.uid or "", "kubernetes.io~empty-dir", volume.name),
            volume.empty_dir.size_limit.value(),
        )
        for volume in pod.spec.volumes
        if volume.empty_dir is not None
        and volume.empty_dir.size_limit is not None
        and not is_in_memory(volume.empty_dir.medium)
    }


def measured(pod: Pod, config: NodeConfig) -> dict[str, tuple[str, ...]]:
    """The values to measure: key → directories. Each emptyDir on disk that has a limit is measured.

    If any container's disk is limited, everything that counts for the pod's limit is measured: all emptyDir volumes on
    disk, all containers (with their logs and termination logs), and what the containers write into /etc/hosts,
    /etc/hostname and /etc/resolv.conf (CVE-2020-8557)."""
    uid, limited = pod.metadata.uid or "", any(_storage_limit(c) is not None for c in _containers(pod))
    found: dict[str, tuple[str, ...]] = {
        name: (path,) for name, (path, _) in limited_volumes(pod, config).items()
    }
    if limited:
        for volume in pod.spec.volumes:
            if volume.empty_dir is not None and not is_in_memory(volume.empty_dir.medium):
                found[volume.name] = (config.volume_dir(uid, "kubernetes.io~empty-dir", volume.name),)
        logs = config.pod_log_dir(pod.metadata.namespace or "default", pod.metadata.name or "", uid)
        for container in _containers(pod):
            instances = f"{config.pod_dir(uid)}/containers/{container.name}"
            found[f"{CONTAINER}{container.name}"] = (instances, f"{logs}/{container.name}")
        found[FILES] = tuple(
            f"{config.pod_dir(uid)}/{name}" for name in ("etc-hosts", "hostname", "resolv.conf")
        )
    return found


def is_in_memory(medium: str | None) -> bool:
    """Whether an emptyDir uses no disk."""
    return (medium or "").startswith(("Memory", "HugePages"))


def _containers(pod: Pod) -> list[Container]:
    return [*pod.spec.init_containers, *pod.spec.containers]


def _storage_limit(container: Container) -> Quantity | None:
    return container.resources.limits.get(STORAGE) if container.resources is not None else None


def excess(pod: Pod, used: Mapping[str, int]) -> str:
    """kubelet's message about the first limit that is exceeded, in kubelet's order (volumes, the pod, its containers);
    "" if none is."""
    for volume in pod.spec.volumes:
        empty = volume.empty_dir
        if empty is None or empty.size_limit is None or is_in_memory(empty.medium):
            continue
        if used.get(volume.name, 0) > empty.size_limit.value():
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{empty.size_limit}". '
    return _pod_excess(pod, used) or _container_excess(pod, used)


def _pod_excess(pod: Pod, used: Mapping[str, int]) -> str:
    """The pod's limit is the sum of its containers' limits, if each has one (Kubernetes component-helpers/resource,
    PodLimits)."""
    limits = [_storage_limit(c) for c in pod.spec.containers]
    if not limits or any(limit is None for limit in limits):
        return ""
    total = sum(limit.value() for limit in limits if limit is not None)
    if sum(used.values()) <= total:
        return ""
    words = str(limits[0]) if len(limits) == 1 else str(total)
    return f"Pod ephemeral local storage usage exceeds the total limit of containers {words}. "


def _container_excess(pod: Pod, used: Mapping[str, int]) -> str:
    for container in _containers(pod):
        limit = _storage_limit(container)
        if limit is not None and used.get(f"{CONTAINER}{container.name}", 0) > limit.value():
            return f'Container {container.name} exceeded its local ephemeral storage limit "{limit}". '
    return ""
