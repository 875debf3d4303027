"""What each volume of a pod is on this node, and the content of its files. storage/mounts.py sets them up.

A volume is planned as a directory below the pod's own (in kubelet's layout) or as a path of the host. The content of
configMap, secret, downwardAPI and projected volumes is a payload: relative path → bytes and mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from kubelite.node.model import resources
from kubelite.node.model.claim_names import claim_name, not_owner, own_volume, owner_of
from kubelite.node.model.errors import ConfigError, MountError
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.spec import env
from kubelite.node.spec.tokens import file_user
from kubelite.node.spec.trust_bundles import trust_anchors
from manifests.types.core import (
    ConfigMapProjection,
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    KeyToPath,
    Pod,
    SecretProjection,
    SecretVolumeSource,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from manifests.types.meta import Quantity

DEFAULT_MODE = 0o644
SHM_BYTES = 64 << 20


class Kind(StrEnum):
    DIRECTORY = "directory"  # emptyDir on disk
    MEMORY = "memory"  # emptyDir on a tmpfs
    HUGE_PAGES = "huge pages"  # emptyDir on a hugetlbfs
    HOST = "host"  # hostPath
    FILES = "files"  # a payload, replaced as a whole
    CLAIM = "claim"  # the directory of a PersistentVolumeClaim
    IMAGE = "image"  # the files of an image, read-only
    NFS = "nfs"  # an NFS export, mounted in advance (storage/nfs.py)
    BLOCK = "block"  # a block device, or a file for a loop device


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    mode: int
    owner: int | None = None  # None: root


class BlockDevice(NamedTuple):
    """A block device to mount a volume from."""

    device: str
    fs_type: str = ""  # "": the file system that it has, or the default for an empty device
    options: tuple[str, ...] = ()  # the volume's mountOptions


class NfsExport(NamedTuple):
    """An exported directory of an NFS server."""

    server: str
    path: str
    options: tuple[str, ...] = ()  # the volume's mountOptions


@dataclass(frozen=True, slots=True)
class VolumePlan:
    name: str
    kind: Kind
    path: str  # on the host
    host_type: str = ""  # hostPath's type
    #: Bytes: of a tmpfs (0 = no own limit), of a page of a hugetlbfs, or of a claim's block device.
    size: int = 0
    files: Mapping[str, File] = field(default_factory=dict)
    fs_group: int | None = None
    #: fsGroupChangePolicy Always: fs_group applies to all files, whatever the root's group is.
    whole_tree: bool = True
    done: str = ""  # where it is recorded that fs_group was applied; "" = beside the volume
    secret: bool = False  # its files are never written to disk
    layers: tuple[str, ...] = ()  # directories of an image's layers, topmost first
    share: NfsExport | None = None  # the NFS export to mount
    disk: BlockDevice | None = None  # what to mount at `path`, if that is a block device
    held: str = ""  # the PersistentVolume from a manifest that the claim is bound to
    users: str = ""  # path of the user namespace whose ids apply to an image's files; "" = the host's


#: A volume's field → kubelet's plugin for it (Kubernetes pkg/volume). Claims are directories on the node's own disk.
PLUGINS = {
    "emptyDir": "empty-dir",
    "hostPath": "host-path",
    "configMap": "configmap",
    "secret": "secret",
    "downwardAPI": "downward-api",
    "projected": "projected",
    "image": "image",
    "nfs": "nfs",
    "persistentVolumeClaim": "local-volume",
    "ephemeral": "local-volume",
}


def plugin(volume: Volume) -> str:
    """kubelet's name of the plugin for this volume. A volume without a source is an emptyDir."""
    named = PLUGINS.keys() & volume.to_json().keys()
    return PLUGINS[named.pop()] if named else PLUGINS["emptyDir"]


def plan_volumes(pod: Pod, names: Iterable[str], sources: env.Sources) -> tuple[VolumePlan, ...]:
    """The plans of the volumes with these names. Raises MountError if content is missing."""
    wanted = set(names)
    return tuple(plan_volume(pod, volume, sources) for volume in pod.spec.volumes if volume.name in wanted)


def plan_volume(pod: Pod, volume: Volume, sources: env.Sources) -> VolumePlan:
    group = pod.spec.security_context.fs_group if pod.spec.security_context is not None else None
    config, uid, name = sources.config, pod.metadata.uid or "", volume.name
    if volume.host_path is not None:
        return VolumePlan(name, Kind.HOST, volume.host_path.path, volume.host_path.type or "")
    if volume.empty_dir is not None or len(volume.model_fields_set) == 1:
        path = config.volume_dir(uid, "kubernetes.io~empty-dir", name)
        empty = volume.empty_dir
        if empty is not None and (empty.medium or "").startswith("HugePages"):
            size = _page_size(pod, name, empty.medium or "")
            return VolumePlan(name, Kind.HUGE_PAGES, path, size=size, fs_group=group)
        if empty is None or empty.medium != "Memory":
            return VolumePlan(name, Kind.DIRECTORY, path, fs_group=group, whole_tree=_whole_tree(pod))
        size = empty.size_limit.value() if empty.size_limit is not None else _pod_memory(pod)
        return VolumePlan(name, Kind.MEMORY, path, size=size, fs_group=group)
    if path := content_dir(volume, uid, config):
        files = payload(pod, volume, sources)
        return VolumePlan(name, Kind.FILES, path, files=files, fs_group=group, secret=has_secrets(volume))
    if claim_name(pod, volume):
        return _claim(pod, volume, sources)
    if (nfs := volume.nfs) is not None:
        share = NfsExport(nfs.server, nfs.path, ("ro",) if nfs.read_only else ())
        return VolumePlan(name, Kind.NFS, config.volume_dir(uid, "kubernetes.io~nfs", name), share=share)
    if volume.image is not None:
        reference = volume.image.reference or ""
        found = sources.image(reference) if sources.image is not None else None
        if found is None:
            raise MountError(f'MountVolume.SetUp failed for volume "{name}" : image {reference} is gone')
        return VolumePlan(
            name, Kind.IMAGE, config.volume_dir(uid, "kubernetes.io~image", name), layers=found.layers
        )
    raise ConfigError(f'volume "{name}": volumes of this kind are not available on this node')


def content_dir(volume: Volume, uid: str, config: NodeConfig) -> str:
    """The directory of a configMap, secret, downwardAPI or projected volume; "" for any other."""
    for plugin, source in (
        ("kubernetes.io~configmap", volume.config_map),
        ("kubernetes.io~secret", volume.secret),
        ("kubernetes.io~downward-api", volume.downward_api),
        ("kubernetes.io~projected", volume.projected),
    ):
        if source is not None:
            return config.volume_dir(uid, plugin, volume.name)
    return ""


def _claim(pod: Pod, volume: Volume, sources: env.Sources) -> VolumePlan:
    """The plan for a bound claim: its directory or block device, or a PersistentVolume from a manifest. The claim of an
    ephemeral volume must belong to the pod."""
    namespace, name = pod.metadata.namespace or "default", claim_name(pod, volume)
    found = sources.find("PersistentVolumeClaim", namespace, name)
    why = ""
    if found is None:
        why = f'persistentvolumeclaim "{name}" not found'
    elif volume.ephemeral is not None and owner_of(found) != pod.metadata.uid:
        why = not_owner(pod, name)
    elif (found.get("status") or {}).get("phase") != "Bound":
        why = f'persistentvolumeclaim "{name}" is not bound'
    if why or found is None:
        raise MountError(f'MountVolume.SetUp failed for volume "{volume.name}" : {why}')
    config, security = sources.config, pod.spec.security_context
    plan = VolumePlan(
        volume.name,
        Kind.CLAIM,
        f"{config.claim_dir(namespace, name)}/data",
        fs_group=security.fs_group if security is not None else None,
        whole_tree=_whole_tree(pod),
        done=config.pod_dir(pod.metadata.uid or ""),
    )
    held = found["spec"].get("volumeName") or ""
    if held != own_volume(found):
        return _by_hand(plan, held, sources, pod.metadata.uid or "")
    if found["spec"].get("volumeMode") != "Block":
        return plan
    size = Quantity((found["status"].get("capacity") or {}).get("storage", "0")).value()
    return VolumePlan(volume.name, Kind.BLOCK, f"{config.claim_dir(namespace, name)}/block", size=size)


def _by_hand(plan: VolumePlan, held: str, sources: env.Sources, uid: str) -> VolumePlan:
    """The plan for a PersistentVolume from a manifest. As with kubelet, fsGroup does not apply to a hostPath."""
    found = sources.find("PersistentVolume", "", held)
    if found is None:
        why = f'persistentvolume "{held}" not found'
        raise MountError(f'MountVolume.SetUp failed for volume "{plan.name}" : {why}')
    spec = found["spec"]
    if spec.get("volumeMode") == "Block" and (local := spec.get("local")) is not None:
        return VolumePlan(plan.name, Kind.BLOCK, local["path"])
    if (host := spec.get("hostPath")) is not None:
        return VolumePlan(plan.name, Kind.HOST, host["path"], host.get("type") or "")
    if (local := spec.get("local")) is not None:
        disk = BlockDevice(local["path"], local.get("fsType") or "", tuple(spec.get("mountOptions", ())))
        return replace(plan, path=local["path"], disk=disk, held=held)
    if (nfs := spec.get("nfs")) is not None:
        options = (*spec.get("mountOptions", ()), *(("ro",) if nfs.get("readOnly") else ()))
        path = sources.config.volume_dir(uid, "kubernetes.io~nfs", held)
        return VolumePlan(plan.name, Kind.NFS, path, share=NfsExport(nfs["server"], nfs["path"], options))
    raise ConfigError(f'persistentvolume "{held}": volumes of this kind are not available on this node')


def has_secrets(volume: Volume) -> bool:
    sources = volume.projected.sources if volume.projected is not None else []
    return volume.secret is not None or any(
        source.secret is not None or source.service_account_token is not None for source in sources
    )


def _whole_tree(pod: Pod) -> bool:
    security = pod.spec.security_context
    return security is None or security.fs_group_change_policy != "OnRootMismatch"


def shm_plan(pod: Pod, config: NodeConfig) -> VolumePlan | None:
    """The /dev/shm that a pod's containers share. None if the pod has only one container, which then gets its own
    tmpfs."""
    if pod.spec.host_ipc or len(pod.spec.containers) + len(pod.spec.init_containers) < 2:
        return None
    return VolumePlan("shm", Kind.MEMORY, f"{config.pod_dir(pod.metadata.uid or '')}/shm", size=SHM_BYTES)


def _page_size(pod: Pod, volume: str, medium: str) -> int:
    """The page size in bytes of `HugePages-<size>`. `HugePages` alone means the size that the pod requests (Kubernetes
    emptydir, getPageSizeMountOption). Raises MountError if it requests no size or several."""
    _, _, given = medium.partition("-")
    prefix = "hugepages-"
    asked = {name.removeprefix(prefix) for name in resources.pod_requests(pod) if name.startswith(prefix)}
    found = {given} if given else asked
    if len(found) != 1 or not found <= asked:
        words = f"medium {medium}: the pod requests huge pages of {', '.join(sorted(asked)) or 'no size'}"
        raise MountError(f'MountVolume.SetUp failed for volume "{volume}" : {words}')
    return Quantity(found.pop()).value()


def _pod_memory(pod: Pod) -> int:
    """An emptyDir in memory may grow up to the pod's memory limit (kubelet's SizeMemoryBackedVolumes)."""
    return resources.pod_amounts(pod).memory_limit or 0


def payload(pod: Pod, volume: Volume, sources: env.Sources) -> dict[str, File]:
    """The files of a configMap, secret, downwardAPI or projected volume."""
    try:
        if volume.config_map is not None:
            return _config_map(pod, volume.config_map, volume.config_map.default_mode, sources)
        if volume.secret is not None:
            return _secret(pod, volume.secret.secret_name, volume.secret, volume.secret.default_mode, sources)
        if volume.downward_api is not None:
            return _downward(pod, volume.downward_api.items, volume.downward_api.default_mode, sources)
        files: dict[str, File] = {}
        assert volume.projected is not None
        for projection in volume.projected.sources:
            files.update(_projected(pod, volume, projection, sources))
    except ConfigError as error:
        raise MountError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error
    return files


def _projected(
    pod: Pod, volume: Volume, projection: VolumeProjection, sources: env.Sources
) -> dict[str, File]:
    mode = volume.projected.default_mode if volume.projected is not None else None
    if projection.config_map is not None:
        return _config_map(pod, projection.config_map, mode, sources)
    if projection.secret is not None:
        return _secret(pod, projection.secret.name, projection.secret, mode, sources)
    if projection.downward_api is not None:
        return _downward(pod, projection.downward_api.items, mode, sources)
    if (wanted := projection.service_account_token) is not None:
        return _token(pod, wanted, mode, sources.token(volume, wanted))
    if (bundle := projection.cluster_trust_bundle) is not None:
        content = trust_anchors(bundle, sources.every)
        return {checked_path(bundle.path): File(content, DEFAULT_MODE if mode is None else mode)}
    raise ConfigError("a projected source of this kind is not available on this node")


def _token(pod: Pod, wanted: ServiceAccountTokenProjection, mode: int | None, text: str) -> dict[str, File]:
    """The file of a token. Nobody else may read it if it is known who does (Kubernetes pkg/volume/projected,
    collectData)."""
    owner, security = file_user(pod), pod.spec.security_context
    if owner is not None or (security is not None and security.fs_group is not None):
        mode = 0o600
    path = checked_path(wanted.path)
    return {path: File(text.encode(), DEFAULT_MODE if mode is None else mode, owner)} if text else {}


def _config_map(
    pod: Pod, source: ConfigMapVolumeSource | ConfigMapProjection, mode: int | None, sources: env.Sources
) -> dict[str, File]:
    found = sources.find("ConfigMap", pod.metadata.namespace or "default", source.name or "")
    if found is None and not source.optional:
        raise ConfigError(f'configmap "{source.name}" not found')
    data = env.configmap_data(found or {})
    return _picked(data, source.items, mode, bool(source.optional), f'configmap "{source.name}"')


def _secret(
    pod: Pod,
    name: str | None,
    source: SecretVolumeSource | SecretProjection,
    mode: int | None,
    sources: env.Sources,
) -> dict[str, File]:
    found = sources.find("Secret", pod.metadata.namespace or "default", name or "")
    if found is None and not source.optional:
        raise ConfigError(f'secret "{name}" not found')
    return _picked(
        env.secret_data(found or {}), source.items, mode, bool(source.optional), f'secret "{name}"'
    )


def _picked(
    data: Mapping[str, bytes], items: list[KeyToPath], mode: int | None, optional: bool, owner: str
) -> dict[str, File]:
    """All keys, or the keys of `items` at their paths."""
    default = DEFAULT_MODE if mode is None else mode
    if not items:
        return {key: File(value, default) for key, value in data.items()}
    files: dict[str, File] = {}
    for item in items:
        if item.key not in data:
            if optional:
                continue
            raise ConfigError(f"{owner} references non-existent config key: {item.key}")
        files[checked_path(item.path)] = File(data[item.key], default if item.mode is None else item.mode)
    return files


def _downward(
    pod: Pod, items: list[DownwardAPIVolumeFile], mode: int | None, sources: env.Sources
) -> dict[str, File]:
    files: dict[str, File] = {}
    for item in items:
        if item.field_ref is not None:
            text = env.field_value(pod, item.field_ref.field_path, sources)
        elif item.resource_field_ref is not None:
            text = env.resource_value(pod, pod.spec.containers[0], item.resource_field_ref, sources.config)
        else:
            continue
        default = DEFAULT_MODE if mode is None else mode
        files[checked_path(item.path)] = File(text.encode(), default if item.mode is None else item.mode)
    return files


def checked_path(path: str) -> str:
    """Return the path if it is relative and stays below its directory. Raises ConfigError otherwise."""
    if (
        path.startswith("/")
        or any(part in ("", ".", "..") for part in path.split("/"))
        or path.startswith("..")
    ):
        raise ConfigError(f'invalid path "{path}": must be relative, without ".." in it')
    return path
