"""core/v1 PersistentVolume and storage.k8s.io/v1 StorageClass (Kubernetes 1.36).

Sources of other storage systems are accepted without a check of their fields. The node agent decides which sources it
supports.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from manifests.types.meta import (
    Bool,
    Model,
    Object,
    ObjectMeta,
    ObjectReference,
    Quantities,
    Str,
    StrMap,
    Time,
    empty_dict,
    empty_list,
)
from manifests.types.pod import NodeSelector
from manifests.types.volume import HostPathVolumeSource, NFSVolumeSource

Foreign = dict[str, Any]


class LocalVolumeSource(Model):
    path: Str
    fs_type: Str | None = None


class VolumeNodeAffinity(Model):
    required: NodeSelector | None = None


class PersistentVolumeSpec(Model):
    access_modes: list[Str] = Field(default_factory=empty_list)
    capacity: Quantities = Field(default_factory=empty_dict)
    claim_ref: ObjectReference | None = None
    mount_options: list[Str] = Field(default_factory=empty_list)
    node_affinity: VolumeNodeAffinity | None = None
    persistent_volume_reclaim_policy: Str | None = None
    storage_class_name: Str | None = None
    volume_attributes_class_name: Str | None = None
    volume_mode: Str | None = None
    # the source: exactly one of the following is set
    host_path: HostPathVolumeSource | None = None
    local: LocalVolumeSource | None = None
    nfs: NFSVolumeSource | None = None
    aws_elastic_block_store: Foreign | None = None
    azure_disk: Foreign | None = None
    azure_file: Foreign | None = None
    cephfs: Foreign | None = None
    cinder: Foreign | None = None
    csi: Foreign | None = None
    fc: Foreign | None = None
    flex_volume: Foreign | None = None
    flocker: Foreign | None = None
    gce_persistent_disk: Foreign | None = None
    glusterfs: Foreign | None = None
    iscsi: Foreign | None = None
    photon_persistent_disk: Foreign | None = None
    portworx_volume: Foreign | None = None
    quobyte: Foreign | None = None
    rbd: Foreign | None = None
    scale_io: Foreign | None = Field(None, alias="scaleIO")
    storageos: Foreign | None = None
    vsphere_volume: Foreign | None = None

    def sources(self) -> list[str]:
        """Return the camelCase names of the sources that are set; a valid volume has one."""
        names = list(type(self).model_fields)
        return [
            type(self).model_fields[name].alias or name
            for name in names[names.index("host_path") :]
            if getattr(self, name) is not None
        ]


class PersistentVolumeStatus(Model):
    last_phase_transition_time: Time | None = None
    message: Str | None = None
    phase: Str | None = None
    reason: Str | None = None


class PersistentVolume(Object):
    namespaced: ClassVar[bool] = False
    api_version: Literal["v1"] = "v1"
    kind: Literal["PersistentVolume"] = "PersistentVolume"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: PersistentVolumeSpec = Field(default_factory=PersistentVolumeSpec)
    status: PersistentVolumeStatus = Field(default_factory=PersistentVolumeStatus)


class TopologySelectorLabelRequirement(Model):
    key: Str
    values: list[Str]


class TopologySelectorTerm(Model):
    match_label_expressions: list[TopologySelectorLabelRequirement] = Field(default_factory=empty_list)


class StorageClass(Object):
    namespaced: ClassVar[bool] = False
    api_version: Literal["storage.k8s.io/v1"] = "storage.k8s.io/v1"
    kind: Literal["StorageClass"] = "StorageClass"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    provisioner: Str
    allow_volume_expansion: Bool | None = None
    allowed_topologies: list[TopologySelectorTerm] = Field(default_factory=empty_list)
    mount_options: list[Str] = Field(default_factory=empty_list)
    parameters: StrMap = Field(default_factory=empty_dict)
    reclaim_policy: Str | None = None
    volume_binding_mode: Str | None = None


def default_volume(volume: PersistentVolume) -> PersistentVolume:
    """Return a copy with Kubernetes' defaults (pkg/apis/core/v1/defaults.go)."""
    volume = volume.model_copy(deep=True)
    spec = volume.spec
    spec.persistent_volume_reclaim_policy = spec.persistent_volume_reclaim_policy or "Retain"
    spec.volume_mode = spec.volume_mode or "Filesystem"
    if spec.host_path is not None:
        spec.host_path.type = spec.host_path.type or ""
    return volume


def default_storage_class(found: StorageClass) -> StorageClass:
    """Return a copy with Kubernetes' defaults (pkg/apis/storage/v1/defaults.go)."""
    found = found.model_copy(deep=True)
    found.reclaim_policy = found.reclaim_policy or "Delete"
    found.volume_binding_mode = found.volume_binding_mode or "Immediate"
    return found
