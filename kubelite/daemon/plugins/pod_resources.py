"""Kubelet's pod resources API, v1: which pod has which devices and processors, for monitoring agents (Kubernetes
pkg/kubelet/apis/podresources/server_v1.go)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from kubelite.node.devices.model import Device
from kubelite.node.model.capacity import parse_cpus
from kubelite.node.model.resources import is_sidecar
from kubelite.node.scheduling.scheduler import Scheduler
from kubelite.plugins.device_messages import NUMANode, TopologyInfo
from kubelite.plugins.pod_resources_messages import (
    AllocatableResourcesResponse,
    ContainerDevices,
    ContainerResources,
    GetPodResourcesRequest,
    GetPodResourcesResponse,
    ListPodResourcesResponse,
    PodResources,
    Request,
)
from manifests.types.core import Pod

_SERVICE = "/v1.PodResourcesLister"


class PodResourcesLister:
    """The service. Every answer is read from the ledger of scheduled pods."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def __mapping__(self) -> Mapping[str, Handler]:
        unary = Cardinality.UNARY_UNARY
        return {
            f"{_SERVICE}/List": Handler(self._list, unary, Request, ListPodResourcesResponse),
            f"{_SERVICE}/Get": Handler(self._get, unary, GetPodResourcesRequest, GetPodResourcesResponse),
            f"{_SERVICE}/GetAllocatableResources": Handler(
                self._allocatable, unary, Request, AllocatableResourcesResponse
            ),
        }

    async def _list(self, stream: Stream[Request, ListPodResourcesResponse]) -> None:
        await stream.recv_message()
        found = sorted(map(self._of, self._scheduler.pods()), key=lambda one: (one.namespace, one.name))
        await stream.send_message(ListPodResourcesResponse(tuple(found)))

    async def _get(self, stream: Stream[GetPodResourcesRequest, GetPodResourcesResponse]) -> None:
        request = await stream.recv_message()
        if request is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "the request has no message")
        name, namespace = request.pod_name, request.pod_namespace
        for pod in self._scheduler.pods():
            if (pod.metadata.name, pod.metadata.namespace or "default") == (name, namespace):
                await stream.send_message(GetPodResourcesResponse(self._of(pod)))
                return
        raise GRPCError(Status.NOT_FOUND, f"pod {name} in namespace {namespace} not found")

    async def _allocatable(self, stream: Stream[Request, AllocatableResourcesResponse]) -> None:
        await stream.recv_message()
        book = self._scheduler.devices
        devices = [
            _device(resource, device)
            for resource in sorted(book.capacity())
            for device in book.devices(resource)
            if device.healthy
        ]
        cpus = tuple(sorted(self._scheduler.assignable_cpus()))
        await stream.send_message(AllocatableResourcesResponse(tuple(devices), cpus))

    def _of(self, pod: Pod) -> PodResources:
        scheduler, uid = self._scheduler, pod.metadata.uid or ""
        held, cpus = scheduler.devices.of(uid), scheduler.exclusive_cpus(uid)
        known = {name: {one.id: one for one in scheduler.devices.devices(name)} for name in _names(held)}
        containers = tuple(
            ContainerResources(
                name,
                tuple(_devices(held.get(name, {}), known)),
                tuple(sorted(parse_cpus(cpus.get(name, "")))),
            )
            for name in _containers(pod)
        )
        return PodResources(pod.metadata.name or "", pod.metadata.namespace or "default", containers)


# -- pure -----------------------------------------------------------------------------------------------------------


def _containers(pod: Pod) -> Iterator[str]:
    """Yield the containers that the API lists: sidecars and regular containers."""
    yield from (one.name for one in pod.spec.init_containers if is_sidecar(pod, one))
    yield from (one.name for one in pod.spec.containers)


def _names(held: Mapping[str, Mapping[str, Iterable[str]]]) -> set[str]:
    return {resource for found in held.values() for resource in found}


def _devices(
    found: Mapping[str, Iterable[str]], known: Mapping[str, Mapping[str, Device]]
) -> Iterator[ContainerDevices]:
    """Yield one entry a device, as kubelet does. A device that its plugin no longer reports has no NUMA nodes."""
    for resource in sorted(found):
        for identity in found[resource]:
            yield _device(resource, known[resource].get(identity, Device(identity)))


def _device(resource: str, device: Device) -> ContainerDevices:
    topology = TopologyInfo(tuple(map(NUMANode, device.nodes))) if device.nodes else None
    return ContainerDevices(resource, (device.id,), topology)
