"""The messages of kubelet's device plugin API, v1beta1: names and numbers of the fields as in Kubernetes
staging/src/k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/api.proto."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubelite.plugins.wire import number

VERSION = "v1beta1"
HEALTHY = "Healthy"


@dataclass(frozen=True, slots=True)
class Empty:
    pass


@dataclass(frozen=True, slots=True)
class DevicePluginOptions:
    pre_start_required: bool = number(1, False)
    get_preferred_allocation_available: bool = number(2, False)


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    version: str = number(1, "")
    endpoint: str = number(2, "")  # the name of the plugin's socket, beside the node's
    resource_name: str = number(3, "")
    options: DevicePluginOptions | None = number(4, None)


@dataclass(frozen=True, slots=True)
class NUMANode:
    id: int = number(1, 0)


@dataclass(frozen=True, slots=True)
class TopologyInfo:
    nodes: tuple[NUMANode, ...] = number(1, ())


@dataclass(frozen=True, slots=True)
class PluginDevice:
    id: str = number(1, "")
    health: str = number(2, "")
    topology: TopologyInfo | None = number(3, None)


@dataclass(frozen=True, slots=True)
class ListAndWatchResponse:
    devices: tuple[PluginDevice, ...] = number(1, ())


@dataclass(frozen=True, slots=True)
class DeviceIds:
    """A request that names devices: ContainerAllocateRequest, PreStartContainerRequest,
    ContainerPreferredAllocationResponse."""

    ids: tuple[str, ...] = number(1, ())


@dataclass(frozen=True, slots=True)
class AllocateRequest:
    container_requests: tuple[DeviceIds, ...] = number(1, ())


@dataclass(frozen=True, slots=True)
class PluginMount:
    container_path: str = number(1, "")
    host_path: str = number(2, "")
    read_only: bool = number(3, False)


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    container_path: str = number(1, "")
    host_path: str = number(2, "")
    permissions: str = number(3, "")  # of r, w, m


@dataclass(frozen=True, slots=True)
class CDIDevice:
    name: str = number(1, "")


@dataclass(frozen=True, slots=True)
class ContainerAllocateResponse:
    envs: Mapping[str, str] = number(1)
    mounts: tuple[PluginMount, ...] = number(2, ())
    devices: tuple[DeviceSpec, ...] = number(3, ())
    annotations: Mapping[str, str] = number(4)
    cdi_devices: tuple[CDIDevice, ...] = number(5, ())


@dataclass(frozen=True, slots=True)
class AllocateResponse:
    container_responses: tuple[ContainerAllocateResponse, ...] = number(1, ())


@dataclass(frozen=True, slots=True)
class ContainerPreferredAllocationRequest:
    available: tuple[str, ...] = number(1, ())
    must_include: tuple[str, ...] = number(2, ())
    size: int = number(3, 0)


@dataclass(frozen=True, slots=True)
class PreferredAllocationRequest:
    container_requests: tuple[ContainerPreferredAllocationRequest, ...] = number(1, ())


@dataclass(frozen=True, slots=True)
class PreferredAllocationResponse:
    container_responses: tuple[DeviceIds, ...] = number(1, ())
