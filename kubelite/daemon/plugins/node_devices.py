"""The devices of pods: what plugins gave to whom, recorded in the store, and the socket at which plugins register.

A record (DeviceAllocation, named as the pod's uid) is written before a container of the pod starts, and deleted when
the pod releases its reservation. A restarted daemon therefore knows who has which device before any plugin is back.
gRPC is imported with the first connection to the socket.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from kubelite.daemon.plugins.sockets import LazyServer
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.node.devices.model import (
    ALLOCATION,
    NOTHING,
    ContainerDevices,
    DeviceMount,
    DeviceNode,
    Refusal,
)
from kubelite.node.model.errors import ConfigError
from kubelite.node.scheduling.cpu_policy import NotEnough
from kubelite.node.scheduling.scheduler import Scheduler
from manifests.types.core import Container, Pod
from state.store import Store

if TYPE_CHECKING:
    from kubelite.daemon.plugins.pod_resources import PodResourcesLister
    from kubelite.daemon.plugins.registry import Registry
    from kubelite.plugins.device_messages import ContainerAllocateResponse

log = logging.getLogger(__name__)


class NodeDevices:
    """The source of devices of this node's pods. `directory`: the setting plugin_dir; "" if there are no plugins."""

    def __init__(self, store: Store, scheduler: Scheduler, events: EventRecorder, directory: str) -> None:
        self._store = store
        self._scheduler = scheduler
        self._events = events
        self._directory = directory
        self._registry: Registry | None = None

    # -- of pods --------------------------------------------------------------------------------------------------

    def waiting(self, uid: str) -> bool:
        return bool(self._scheduler.devices.of(uid)) and self._store.get(ALLOCATION, "", uid) is None

    async def prefer(self, pod: Pod) -> None:
        """Ask the plugins which devices they prefer for a pod. One that does not answer has no preferences."""
        if self._registry is None:
            return
        from kubelite.plugins.calls import PluginError

        book, found = self._scheduler.devices, {}
        choice = book.choose(pod)
        answer: tuple[str, ...] = ()
        with contextlib.suppress(StopIteration, NotEnough):
            while True:
                question = choice.send(answer or None)
                try:
                    answer = await self._registry.prefer(
                        question.resource, question.available, question.must, question.size
                    )
                except PluginError as error:
                    log.warning("device plugin of %s has no preferences: %s", question.resource, error)
                    answer = ()
                found[question.container, question.resource] = answer
        book.wish(pod.metadata.uid or "", found)

    async def allocate(self, pod: Pod) -> Refusal | None:
        """Ask the plugins, and record what they answer. Raises StoreError."""
        from kubelite.plugins.calls import PluginError, PluginGone
        from kubelite.plugins.wire import encode

        uid = pod.metadata.uid or ""
        entries: Json = {}
        for container, found in self._scheduler.devices.of(uid).items():
            for resource, ids in found.items():
                try:
                    if self._registry is None:
                        raise PluginGone(f"no device plugin is registered for {resource}")
                    response = await self._registry.allocate(resource, ids)
                except PluginError as error:
                    return Refusal(str(error), isinstance(error, PluginGone))
                kept = base64.b64encode(encode(response)).decode()
                entries.setdefault(container, {})[resource] = {"ids": list(ids), "response": kept}
        log.info("devices allocated: %s", entries_text(entries), extra={"uid": uid, "pod": pod.metadata.name})
        await self._store.create(
            ALLOCATION, {"metadata": {"name": uid, "uid": f"devices:{uid}"}, "entries": entries}
        )
        return None

    async def prepare(self, pod: Pod, container: Container) -> ContainerDevices:
        uid, book = pod.metadata.uid or "", self._scheduler.devices
        if not book.of(uid):
            if not any(book.wanted(container)):
                return NOTHING
            try:  # the pod was scheduled before a plugin offered the resource
                book.assign(pod)
            except NotEnough as error:
                raise ConfigError(f"devices of container {container.name}: {error}") from error
        if self.waiting(uid) and (refusal := await self.allocate(pod)) is not None:
            raise ConfigError(f"devices of container {container.name}: {refusal.message}")
        record = self._store.get(ALLOCATION, "", uid)
        found = record.doc["entries"].get(container.name, {}) if record is not None else {}
        if self._registry is not None:
            for resource, one in found.items():
                await self._before_start(resource, tuple(one["ids"]))
        return container_devices(found)

    async def _before_start(self, resource: str, ids: tuple[str, ...]) -> None:
        from kubelite.plugins.calls import PluginError

        assert self._registry is not None
        try:
            await self._registry.before_start(resource, ids)
        except PluginError as error:
            raise ConfigError(f"device plugin PreStartContainer of {resource} failed: {error}") from error

    # -- the sockets ----------------------------------------------------------------------------------------------

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Listen for plugins, and for those that ask who has which device, until `stack` is closed. Where that does not
        work, pods with recorded devices keep them."""
        if not self._directory:
            return
        from kubelite.daemon.plugins.known_resources import known_resources

        for resource in known_resources(self._store):
            self._scheduler.devices.offer(resource, ())
        self._scheduler.offers_changed()
        for name, service in (("device-plugins", self._open_registry), ("pod-resources", self._open_lister)):
            failed = partial(self._unavailable, name)
            server = LazyServer(f"{self._directory}/{name}", service, failed)
            if await server.start(clear=name == "device-plugins"):
                stack.push_async_callback(server.close)
        stack.push_async_callback(self._close)

    def _open_registry(self) -> Registry:
        from kubelite.daemon.plugins.registry import Registry

        self._registry = Registry(f"{self._directory}/device-plugins", self._store, self._scheduler)
        return self._registry

    def _open_lister(self) -> PodResourcesLister:
        from kubelite.daemon.plugins.pod_resources import PodResourcesLister

        return PodResourcesLister(self._scheduler)

    def _unavailable(self, name: str, why: str) -> None:
        about = (
            "Device plugins cannot register" if name == "device-plugins" else "The pod resources API is off"
        )
        log.error("%s: %s", about, why)
        self._events.node_event("DevicePluginsUnavailable", f"{about}: {why}")

    async def _close(self) -> None:
        if self._registry is not None:
            await self._registry.close()


# -- pure ---------------------------------------------------------------------------------------------------------


def container_devices(found: Json) -> ContainerDevices:
    """Return what a container gets, from its entry in the record. Where two plugins name the same variable, annotation
    or path, the first by the resource's name wins."""
    env: dict[str, str] = {}
    annotations: dict[str, str] = {}
    mounts: dict[str, DeviceMount] = {}
    nodes: dict[str, DeviceNode] = {}
    cdi: dict[str, None] = {}
    for resource in sorted(found):
        response = _response(found[resource])
        env = {**response.envs, **env}
        annotations = {**response.annotations, **annotations}
        for mount in response.mounts:
            mounts.setdefault(
                mount.container_path, DeviceMount(mount.container_path, mount.host_path, mount.read_only)
            )
        for device in response.devices:
            node = DeviceNode(device.container_path, device.host_path, device.permissions)
            nodes.setdefault(device.container_path, node)
        cdi |= dict.fromkeys(_cdi_names(response))
    return ContainerDevices(env, tuple(mounts.values()), tuple(nodes.values()), annotations, tuple(cdi))


def _response(one: Json) -> ContainerAllocateResponse:
    from kubelite.plugins.device_messages import ContainerAllocateResponse
    from kubelite.plugins.wire import decode

    return decode(base64.b64decode(one["response"]), ContainerAllocateResponse)


def _cdi_names(response: ContainerAllocateResponse) -> list[str]:
    """Return the CDI devices of a response: of its own field, and of annotations, as older plugins have them."""
    named = [one.name for one in response.cdi_devices]
    for key in sorted(response.annotations):
        if key.startswith("cdi.k8s.io/"):
            named += response.annotations[key].split(",")
    return named


def entries_text(entries: Json) -> str:
    """Return `main: example.com/gpu=0,1` for each container and resource."""
    return "; ".join(
        f"{container}: {resource}={','.join(one['ids'])}"
        for container, found in entries.items()
        for resource, one in found.items()
    )
