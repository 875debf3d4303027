"""Devices that device plugins give to containers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from manifests.types.core import Container, Pod

#: The kind of the store's objects that say which devices a pod has. The name is the pod's uid.
ALLOCATION = "DeviceAllocation"


@dataclass(frozen=True, slots=True)
class Device:
    """A device as its plugin reports it. `nodes`: the NUMA nodes that it is near to."""

    id: str
    healthy: bool = True
    nodes: tuple[int, ...] = ()


class DeviceMount(NamedTuple):
    """A file or directory of the host that a plugin mounts into a container."""

    path: str  # in the container
    host_path: str
    read_only: bool = False


class DeviceNode(NamedTuple):
    """A device of the host that a plugin passes to a container. `access`: of r, w and m (mknod)."""

    path: str  # in the container
    host_path: str
    access: str


@dataclass(frozen=True, slots=True)
class ContainerDevices:
    """What plugins want for one container."""

    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[DeviceMount, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    cdi: tuple[str, ...] = ()  # names of devices of the Container Device Interface


NOTHING = ContainerDevices()


class DeviceSource(Protocol):
    """Where pods get their devices from."""

    def waiting(self, uid: str) -> bool:
        """Return whether devices are reserved for the pod that its containers cannot use yet."""

    async def prefer(self, pod: Pod) -> None:
        """Ask the plugins which devices a pod should get, before it is scheduled."""

    async def allocate(self, pod: Pod) -> Refusal | None:
        """Ask the plugins for the use of the reserved devices. Return why not."""

    async def prepare(self, pod: Pod, container: Container) -> ContainerDevices:
        """Return what a container gets when it starts. Raises CreateError."""


class Refusal(NamedTuple):
    """Why a pod cannot use its devices. `gone`: the plugin has ended, and the pod waits for its return."""

    message: str
    gone: bool = False


class NoDevices:
    """The source of a node without plugins."""

    def waiting(self, uid: str) -> bool:
        return False

    async def prefer(self, pod: Pod) -> None:
        pass

    async def allocate(self, pod: Pod) -> Refusal | None:
        return None

    async def prepare(self, pod: Pod, container: Container) -> ContainerDevices:
        return NOTHING
