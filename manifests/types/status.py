"""core/v1: PodStatus and everything below it (Kubernetes 1.36).

The node agent writes the status; a manifest never sets it.
"""

from pydantic import Field

from manifests.types.container import ResourceRequirements
from manifests.types.meta import (
    Bool,
    Int32,
    Int64,
    Model,
    Quantities,
    StatusCondition,
    Str,
    Time,
    empty_dict,
    empty_list,
)


class PodCondition(StatusCondition):
    last_probe_time: Time | None = None
    observed_generation: Int64 | None = None


class ResourceHealth(Model):
    resource_id: Str = Field(alias="resourceID")
    health: Str | None = None
    message: Str | None = None


class ResourceStatus(Model):
    name: Str
    resources: list[ResourceHealth] = Field(default_factory=empty_list)


class ContainerStateRunning(Model):
    started_at: Time | None = None


class ContainerStateTerminated(Model):
    exit_code: Int32
    container_id: Str | None = Field(None, alias="containerID")
    finished_at: Time | None = None
    message: Str | None = None
    reason: Str | None = None
    signal: Int32 | None = None
    started_at: Time | None = None


class ContainerStateWaiting(Model):
    message: Str | None = None
    reason: Str | None = None


class ContainerState(Model):
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None
    waiting: ContainerStateWaiting | None = None


class LinuxContainerUser(Model):
    gid: Int64
    uid: Int64
    supplemental_groups: list[Int64] = Field(default_factory=empty_list)


class ContainerUser(Model):
    linux: LinuxContainerUser | None = None


class ImageVolumeStatus(Model):
    image_ref: Str


class VolumeStatus(Model):
    image: ImageVolumeStatus | None = None


class VolumeMountStatus(Model):
    name: Str
    mount_path: Str
    read_only: Bool | None = None
    recursive_read_only: Str | None = None
    volume_status: VolumeStatus | None = None


class ContainerStatus(Model):
    name: Str
    image: Str
    image_id: Str = Field(alias="imageID")
    ready: Bool
    restart_count: Int32
    allocated_resources: Quantities = Field(default_factory=empty_dict)
    allocated_resources_status: list[ResourceStatus] = Field(default_factory=empty_list)
    container_id: Str | None = Field(None, alias="containerID")
    last_state: ContainerState | None = None
    resources: ResourceRequirements | None = None
    started: Bool | None = None
    state: ContainerState | None = None
    stop_signal: Str | None = None
    user: ContainerUser | None = None
    volume_mounts: list[VolumeMountStatus] = Field(default_factory=empty_list)


class ContainerExtendedResourceRequest(Model):
    container_name: Str
    request_name: Str
    resource_name: Str


class PodExtendedResourceClaimStatus(Model):
    request_mappings: list[ContainerExtendedResourceRequest]
    resource_claim_name: Str


class HostIP(Model):
    ip: Str


class NodeAllocatableResourceClaimStatus(Model):
    resource_claim_name: Str
    resources: Quantities
    containers: list[Str] = Field(default_factory=empty_list)


class PodIP(Model):
    ip: Str


class PodResourceClaimStatus(Model):
    name: Str
    resource_claim_name: Str | None = None


class PodStatus(Model):
    allocated_resources: Quantities = Field(default_factory=empty_dict)
    conditions: list[PodCondition] = Field(default_factory=empty_list)
    container_statuses: list[ContainerStatus] = Field(default_factory=empty_list)
    ephemeral_container_statuses: list[ContainerStatus] = Field(default_factory=empty_list)
    extended_resource_claim_status: PodExtendedResourceClaimStatus | None = None
    host_ip: Str | None = Field(None, alias="hostIP")
    host_ips: list[HostIP] = Field(default_factory=empty_list, alias="hostIPs")
    init_container_statuses: list[ContainerStatus] = Field(default_factory=empty_list)
    message: Str | None = None
    node_allocatable_resource_claim_statuses: list[NodeAllocatableResourceClaimStatus] = Field(
        default_factory=empty_list
    )
    nominated_node_name: Str | None = None
    observed_generation: Int64 | None = None
    phase: Str | None = None
    pod_ip: Str | None = Field(None, alias="podIP")
    pod_ips: list[PodIP] = Field(default_factory=empty_list, alias="podIPs")
    qos_class: Str | None = None
    reason: Str | None = None
    resize: Str | None = None
    resource_claim_statuses: list[PodResourceClaimStatus] = Field(default_factory=empty_list)
    resources: ResourceRequirements | None = None
    start_time: Time | None = None
