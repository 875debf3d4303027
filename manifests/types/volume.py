"""core/v1: volumes, every source of Kubernetes 1.36, and the claim template of ephemeral volumes.

The sources of cloud and storage systems are typed too, so that a manifest from a cluster is read, checked and reported
field by field. The node agent decides which of them it supports.
"""

from pydantic import Field

from manifests.types.container import ObjectFieldSelector, ResourceFieldSelector
from manifests.types.meta import (
    Bool,
    Int32,
    Int64,
    LabelSelector,
    LocalObjectReference,
    Model,
    ObjectMeta,
    Quantities,
    Quantity,
    Str,
    StrMap,
    empty_dict,
    empty_list,
)


class AWSElasticBlockStoreVolumeSource(Model):
    volume_id: Str = Field(alias="volumeID")
    fs_type: Str | None = None
    partition: Int32 | None = None
    read_only: Bool | None = None


class AzureDiskVolumeSource(Model):
    disk_name: Str
    disk_uri: Str = Field(alias="diskURI")
    caching_mode: Str | None = None
    fs_type: Str | None = None
    kind: Str | None = None
    read_only: Bool | None = None


class AzureFileVolumeSource(Model):
    secret_name: Str
    share_name: Str
    read_only: Bool | None = None


class CephFSVolumeSource(Model):
    monitors: list[Str]
    path: Str | None = None
    read_only: Bool | None = None
    secret_file: Str | None = None
    secret_ref: LocalObjectReference | None = None
    user: Str | None = None


class CinderVolumeSource(Model):
    volume_id: Str = Field(alias="volumeID")
    fs_type: Str | None = None
    read_only: Bool | None = None
    secret_ref: LocalObjectReference | None = None


class KeyToPath(Model):
    key: Str
    path: Str
    mode: Int32 | None = None


class ConfigMapVolumeSource(Model):
    name: Str | None = None
    default_mode: Int32 | None = None
    items: list[KeyToPath] = Field(default_factory=empty_list)
    optional: Bool | None = None


class CSIVolumeSource(Model):
    driver: Str
    fs_type: Str | None = None
    node_publish_secret_ref: LocalObjectReference | None = None
    read_only: Bool | None = None
    volume_attributes: StrMap = Field(default_factory=empty_dict)


class DownwardAPIVolumeFile(Model):
    path: Str
    field_ref: ObjectFieldSelector | None = None
    mode: Int32 | None = None
    resource_field_ref: ResourceFieldSelector | None = None


class DownwardAPIVolumeSource(Model):
    default_mode: Int32 | None = None
    items: list[DownwardAPIVolumeFile] = Field(default_factory=empty_list)


class EmptyDirVolumeSource(Model):
    medium: Str | None = None
    size_limit: Quantity | None = None


class TypedLocalObjectReference(Model):
    name: Str
    kind: Str
    api_group: Str | None = None


class TypedObjectReference(Model):
    name: Str
    kind: Str
    api_group: Str | None = None
    namespace: Str | None = None


class VolumeResourceRequirements(Model):
    limits: Quantities = Field(default_factory=empty_dict)
    requests: Quantities = Field(default_factory=empty_dict)


class PersistentVolumeClaimSpec(Model):
    access_modes: list[Str] = Field(default_factory=empty_list)
    data_source: TypedLocalObjectReference | None = None
    data_source_ref: TypedObjectReference | None = None
    resources: VolumeResourceRequirements | None = None
    selector: LabelSelector | None = None
    storage_class_name: Str | None = None
    volume_attributes_class_name: Str | None = None
    volume_mode: Str | None = None
    volume_name: Str | None = None


class PersistentVolumeClaimTemplate(Model):
    spec: PersistentVolumeClaimSpec
    metadata: ObjectMeta | None = None


class EphemeralVolumeSource(Model):
    volume_claim_template: PersistentVolumeClaimTemplate | None = None


class FCVolumeSource(Model):
    fs_type: Str | None = None
    lun: Int32 | None = None
    read_only: Bool | None = None
    target_wwns: list[Str] = Field(default_factory=empty_list, alias="targetWWNs")
    wwids: list[Str] = Field(default_factory=empty_list)


class FlexVolumeSource(Model):
    driver: Str
    fs_type: Str | None = None
    options: StrMap = Field(default_factory=empty_dict)
    read_only: Bool | None = None
    secret_ref: LocalObjectReference | None = None


class FlockerVolumeSource(Model):
    dataset_name: Str | None = None
    dataset_uuid: Str | None = Field(None, alias="datasetUUID")


class GCEPersistentDiskVolumeSource(Model):
    pd_name: Str
    fs_type: Str | None = None
    partition: Int32 | None = None
    read_only: Bool | None = None


class GitRepoVolumeSource(Model):
    repository: Str
    directory: Str | None = None
    revision: Str | None = None


class GlusterfsVolumeSource(Model):
    endpoints: Str
    path: Str
    read_only: Bool | None = None


class HostPathVolumeSource(Model):
    path: Str
    type: Str | None = None


class ImageVolumeSource(Model):
    pull_policy: Str | None = None
    reference: Str | None = None


class ISCSIVolumeSource(Model):
    iqn: Str
    lun: Int32
    target_portal: Str
    chap_auth_discovery: Bool | None = None
    chap_auth_session: Bool | None = None
    fs_type: Str | None = None
    initiator_name: Str | None = None
    iscsi_interface: Str | None = None
    portals: list[Str] = Field(default_factory=empty_list)
    read_only: Bool | None = None
    secret_ref: LocalObjectReference | None = None


class NFSVolumeSource(Model):
    path: Str
    server: Str
    read_only: Bool | None = None


class PersistentVolumeClaimVolumeSource(Model):
    claim_name: Str
    read_only: Bool | None = None


class PhotonPersistentDiskVolumeSource(Model):
    pd_id: Str = Field(alias="pdID")
    fs_type: Str | None = None


class PortworxVolumeSource(Model):
    volume_id: Str = Field(alias="volumeID")
    fs_type: Str | None = None
    read_only: Bool | None = None


class ClusterTrustBundleProjection(Model):
    path: Str
    name: Str | None = None
    label_selector: LabelSelector | None = None
    optional: Bool | None = None
    signer_name: Str | None = None


class ConfigMapProjection(Model):
    name: Str | None = None
    items: list[KeyToPath] = Field(default_factory=empty_list)
    optional: Bool | None = None


class DownwardAPIProjection(Model):
    items: list[DownwardAPIVolumeFile] = Field(default_factory=empty_list)


class PodCertificateProjection(Model):
    key_type: Str
    signer_name: Str
    certificate_chain_path: Str | None = None
    credential_bundle_path: Str | None = None
    key_path: Str | None = None
    max_expiration_seconds: Int32 | None = None
    user_annotations: StrMap = Field(default_factory=empty_dict)


class SecretProjection(Model):
    name: Str | None = None
    items: list[KeyToPath] = Field(default_factory=empty_list)
    optional: Bool | None = None


class ServiceAccountTokenProjection(Model):
    path: Str
    audience: Str | None = None
    expiration_seconds: Int64 | None = None


class VolumeProjection(Model):
    cluster_trust_bundle: ClusterTrustBundleProjection | None = None
    config_map: ConfigMapProjection | None = None
    downward_api: DownwardAPIProjection | None = Field(None, alias="downwardAPI")
    pod_certificate: PodCertificateProjection | None = None
    secret: SecretProjection | None = None
    service_account_token: ServiceAccountTokenProjection | None = None


class ProjectedVolumeSource(Model):
    default_mode: Int32 | None = None
    sources: list[VolumeProjection] = Field(default_factory=empty_list)


class QuobyteVolumeSource(Model):
    registry: Str
    volume: Str
    group: Str | None = None
    read_only: Bool | None = None
    tenant: Str | None = None
    user: Str | None = None


class RBDVolumeSource(Model):
    image: Str
    monitors: list[Str]
    fs_type: Str | None = None
    keyring: Str | None = None
    pool: Str | None = None
    read_only: Bool | None = None
    secret_ref: LocalObjectReference | None = None
    user: Str | None = None


class ScaleIOVolumeSource(Model):
    gateway: Str
    secret_ref: LocalObjectReference
    system: Str
    fs_type: Str | None = None
    protection_domain: Str | None = None
    read_only: Bool | None = None
    ssl_enabled: Bool | None = None
    storage_mode: Str | None = None
    storage_pool: Str | None = None
    volume_name: Str | None = None


class SecretVolumeSource(Model):
    default_mode: Int32 | None = None
    items: list[KeyToPath] = Field(default_factory=empty_list)
    optional: Bool | None = None
    secret_name: Str | None = None


class StorageOSVolumeSource(Model):
    fs_type: Str | None = None
    read_only: Bool | None = None
    secret_ref: LocalObjectReference | None = None
    volume_name: Str | None = None
    volume_namespace: Str | None = None


class VsphereVirtualDiskVolumeSource(Model):
    volume_path: Str
    fs_type: Str | None = None
    storage_policy_id: Str | None = Field(None, alias="storagePolicyID")
    storage_policy_name: Str | None = None


class Volume(Model):
    """A named volume. Exactly one of the fields beside `name`, its source, is set."""

    name: Str
    aws_elastic_block_store: AWSElasticBlockStoreVolumeSource | None = None
    azure_disk: AzureDiskVolumeSource | None = None
    azure_file: AzureFileVolumeSource | None = None
    cephfs: CephFSVolumeSource | None = None
    cinder: CinderVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    csi: CSIVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = Field(None, alias="downwardAPI")
    empty_dir: EmptyDirVolumeSource | None = None
    ephemeral: EphemeralVolumeSource | None = None
    fc: FCVolumeSource | None = None
    flex_volume: FlexVolumeSource | None = None
    flocker: FlockerVolumeSource | None = None
    gce_persistent_disk: GCEPersistentDiskVolumeSource | None = None
    git_repo: GitRepoVolumeSource | None = None
    glusterfs: GlusterfsVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    image: ImageVolumeSource | None = None
    iscsi: ISCSIVolumeSource | None = None
    nfs: NFSVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    photon_persistent_disk: PhotonPersistentDiskVolumeSource | None = None
    portworx_volume: PortworxVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    quobyte: QuobyteVolumeSource | None = None
    rbd: RBDVolumeSource | None = None
    scale_io: ScaleIOVolumeSource | None = Field(None, alias="scaleIO")
    secret: SecretVolumeSource | None = None
    storageos: StorageOSVolumeSource | None = None
    vsphere_volume: VsphereVirtualDiskVolumeSource | None = None

    def sources(self) -> list[str]:
        """Return the camelCase names of the sources that are set; a valid volume has one."""
        return [
            field.alias or name
            for name, field in type(self).model_fields.items()
            if name != "name" and getattr(self, name) is not None
        ]
