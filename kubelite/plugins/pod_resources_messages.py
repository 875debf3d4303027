"""The messages of kubelet's pod resources API, v1: names and numbers of the fields as in Kubernetes
staging/src/k8s.io/kubelet/pkg/apis/podresources/v1/api.proto. Memory, dynamic resources and the resources of a pod as a
whole are left out: the node assigns none."""

from __future__ import annotations

from dataclasses import dataclass

from kubelite.plugins.device_messages import Empty, TopologyInfo
from kubelite.plugins.wire import number

#: ListPodResourcesRequest and AllocatableResourcesRequest
Request = Empty


@dataclass(frozen=True, slots=True)
class GetPodResourcesRequest:
    pod_name: str = number(1, "")
    pod_namespace: str = number(2, "")


@dataclass(frozen=True, slots=True)
class ContainerDevices:
    resource_name: str = number(1, "")
    device_ids: tuple[str, ...] = number(2, ())
    topology: TopologyInfo | None = number(3, None)


@dataclass(frozen=True, slots=True)
class ContainerResources:
    name: str = number(1, "")
    devices: tuple[ContainerDevices, ...] = number(2, ())
    cpu_ids: tuple[int, ...] = number(3, ())


@dataclass(frozen=True, slots=True)
class PodResources:
    name: str = number(1, "")
    namespace: str = number(2, "")
    containers: tuple[ContainerResources, ...] = number(3, ())


@dataclass(frozen=True, slots=True)
class ListPodResourcesResponse:
    pod_resources: tuple[PodResources, ...] = number(1, ())


@dataclass(frozen=True, slots=True)
class GetPodResourcesResponse:
    pod_resources: PodResources | None = number(1, None)


@dataclass(frozen=True, slots=True)
class AllocatableResourcesResponse:
    devices: tuple[ContainerDevices, ...] = number(1, ())
    cpu_ids: tuple[int, ...] = number(2, ())
