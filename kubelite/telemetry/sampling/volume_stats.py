"""kubelet_volume_stats_*: the usage of volumes; also the usage of container logs. Claims are reported as by kubelet,
each once for all pods that mount it. emptyDir volumes are reported under the name that the claim of a generic ephemeral
volume would have, `<pod>-<volume>` (kubernetes.io/docs, Ephemeral Volumes, "PersistentVolumeClaim naming").

Usage is measured in the background with the writable layers (disk_usage.py). The capacity is the claim's, the volume's
sizeLimit, or the file system's size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubelite.kube.json import Json
from kubelite.telemetry.metrics.exposition import Page, gauge, labels
from kubelite.telemetry.sampling.disk_usage import Usage

if TYPE_CHECKING:
    from kubelite.node.model.node_config import NodeConfig
    from runtime.shim.protocol import SandboxRecord
    from state.store import Store

PLUGIN = "kubernetes.io~empty-dir"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a running pod. `persistent`: the claim's name, "" for an emptyDir; `limit`: bytes, 0 for none."""

    namespace: str
    pod: str
    uid: str
    name: str
    path: str
    limit: int
    persistent: str = ""
    memory: bool = False  # whether it is in memory instead of on disk

    @property
    def claim(self) -> str:
        return self.persistent or f"{self.pod}-{self.name}"


@dataclass(frozen=True, slots=True)
class Logs:
    """The log directory of a container, which all its instances share."""

    namespace: str
    pod: str
    uid: str
    container: str
    path: str


def logs_of(running: Mapping[str, SandboxRecord], store: Store) -> list[Logs]:
    """Return the log directories of the running containers."""
    found: dict[str, Logs] = {}
    for uid, sandbox in running.items():
        if (pod := store.get_uid(uid)) is None:
            continue
        for container in sandbox.containers:
            if container["status"] == "running" and container["log_path"]:
                path = os.path.dirname(container["log_path"])
                found[path] = Logs(pod.namespace, pod.name, uid, container["name"], path)
    return list(found.values())


def write_logs(page: Page, logs: Iterable[Logs], usage: Callable[[str], Usage | None]) -> None:
    found = [(log, used) for log in logs if (used := usage(log.path))]
    heads = [
        "{" + labels({"uid": log.uid, "namespace": log.namespace, "pod": log.pod, "container": log.container})
        for log, _ in found
    ]
    page.column(LOGS, heads, "} ", [str(used.bytes) for _, used in found])


Places = Callable[[str, str], tuple[str, str] | None]


def volumes_of(
    doc: Mapping[str, Any], directory: Callable[[str, str, str], str], claim: Places = lambda _ns, _name: None
) -> list[Volume]:
    """Return the emptyDir volumes and bound claims of a pod. `directory`: (uid, plugin, name) → path of a volume
    (NodeConfig.volume_dir). `claim`: (namespace, name) → path and capacity (a quantity) of a bound claim, else None."""
    from kubelite.node.model.claim_names import claim_name_in
    from manifests.types.meta import Quantity

    meta, found = doc["metadata"], []
    for volume in doc["spec"].get("volumes") or ():
        if name := claim_name_in(meta["name"], volume):
            if (place := claim(meta["namespace"], name)) is not None:
                path, size = place[0], Quantity(place[1]).value()
                who = (meta["namespace"], meta["name"], meta["uid"], volume["name"])
                found.append(Volume(*who, path, size, name))
            continue
        empty = volume.get("emptyDir")
        if empty is None or str(empty.get("medium") or "").startswith("HugePages"):
            continue
        limit = Quantity(str(empty["sizeLimit"])).value() if empty.get("sizeLimit") else 0
        path = directory(meta["uid"], PLUGIN, volume["name"])
        who = (meta["namespace"], meta["name"], meta["uid"], volume["name"])
        found.append(Volume(*who, path, limit, memory=empty.get("medium") == "Memory"))
    return found


def claim_finder(store: Store, config: NodeConfig) -> Places:
    """Return a function from a claim's namespace and name to its path and capacity; None unless it is bound."""
    from kubelite.node.model.claim_names import KIND, own_volume
    from kubelite.node.storage.block_devices import place_of

    def find(namespace: str, name: str) -> tuple[str, str] | None:
        found = store.get(KIND, namespace, name)
        status = (found.doc.get("status") or {}) if found is not None else {}
        if found is None or status.get("phase") != "Bound":
            return None
        size = str((status.get("capacity") or {}).get("storage") or "0")
        held = found.doc["spec"].get("volumeName") or ""
        if held == own_volume(found.doc):
            return f"{config.claim_dir(namespace, name)}/data", size
        volume = store.get("PersistentVolume", "", held)
        if volume is None or not volume.doc["spec"].get("local"):
            return None  # as in kubelet: nothing is reported for hostPath
        return place_of(config.root, volume.doc), size

    return find


def running_volumes(running: Iterable[str], store: Store, config: NodeConfig) -> list[Volume]:
    """Return the emptyDir volumes and claims of running pods. `running`: the pods' uids."""
    claim = claim_finder(store, config)
    pods = [record.doc for uid in running if (record := store.get_uid(uid)) is not None]
    return [volume for pod in pods for volume in volumes_of(pod, config.volume_dir, claim)]


def numbers(volume: Volume, usage: Usage) -> tuple[int, int, int, int, int, int]:
    """Return capacity, available and used bytes; total, free and used inodes."""
    place = usage.file_system
    capacity = min(volume.limit, place.size) if volume.limit else place.size
    available = max(0, min(capacity - usage.bytes, place.available)) if volume.limit else place.available
    return capacity, available, usage.bytes, place.inodes, place.inodes_free, usage.inodes


LOGS = gauge(
    "kubelet_container_log_filesystem_used_bytes", "Bytes used by the container's logs on the filesystem."
)
FAMILIES = (
    gauge("kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume"),
    gauge("kubelet_volume_stats_available_bytes", "Number of available bytes in the volume"),
    gauge("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume"),
    gauge("kubelet_volume_stats_inodes", "Maximum number of inodes in the volume"),
    gauge("kubelet_volume_stats_inodes_free", "Number of free inodes in the volume"),
    gauge("kubelet_volume_stats_inodes_used", "Number of used inodes in the volume"),
)


def write_volumes(page: Page, volumes: Iterable[Volume], usage: Callable[[str], Usage | None]) -> None:
    mine: dict[tuple[str, str], Volume] = {}
    # A claim takes precedence over an emptyDir with the same name.
    for volume in sorted(volumes, key=lambda one: not one.persistent):
        mine.setdefault((volume.namespace, volume.claim), volume)
    found = [(volume, numbers(volume, used)) for volume in mine.values() if (used := usage(volume.path))]
    heads = [
        "{" + labels({"namespace": volume.namespace, "persistentvolumeclaim": volume.claim})
        for volume, _ in found
    ]
    for place, family in enumerate(FAMILIES):
        page.column(family, heads, "} ", [str(values[place]) for _, values in found])


def summary_of(at: str, volume: Volume, usage: Usage) -> Json:
    """Return a VolumeStats of the Summary API."""
    capacity, available, used, inodes, free, inodes_used = numbers(volume, usage)
    reference = {"pvcRef": {"name": volume.claim, "namespace": volume.namespace}} if volume.persistent else {}
    return {
        "name": volume.name,
        **reference,
        "time": at,
        "capacityBytes": capacity,
        "availableBytes": available,
        "usedBytes": used,
        "inodes": inodes,
        "inodesFree": free,
        "inodesUsed": inodes_used,
    }
