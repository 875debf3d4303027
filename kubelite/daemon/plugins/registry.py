"""The device plugins that have registered (Kubernetes pkg/kubelet/cm/devicemanager, plugin/v1beta1).

A plugin calls Register at the node's socket. The node then calls the plugin at the plugin's own socket: its options,
the stream of its devices, the allocations of pods. When the stream ends, the devices are unhealthy and none is
allocatable. If the plugin does not register again within five minutes, the capacity is 0, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from kubelite.daemon.plugins.known_resources import remember
from kubelite.node.devices.model import Device
from kubelite.node.model.capacity import parse_extended
from kubelite.node.scheduling.scheduler import Scheduler
from kubelite.plugins.calls import PluginChannel, PluginError, PluginGone
from kubelite.plugins.device_messages import (
    HEALTHY,
    VERSION,
    AllocateRequest,
    AllocateResponse,
    ContainerAllocateResponse,
    ContainerPreferredAllocationRequest,
    DeviceIds,
    DevicePluginOptions,
    Empty,
    ListAndWatchResponse,
    PluginDevice,
    PreferredAllocationRequest,
    PreferredAllocationResponse,
    RegisterRequest,
)
from state.store import Store

log = logging.getLogger(__name__)

GRACE = 300.0  # seconds until a resource without its plugin has no capacity (endpointStopGracePeriod)
ALLOCATE_SECONDS = 60.0  # kubelet waits without end, and admits no other pod meanwhile
PRE_START_SECONDS = 30.0  # KubeletPreStartContainerRPCTimeoutInSecs
OPTIONS_SECONDS = 10.0
PREFER_SECONDS = 10.0
_SERVICE = f"/{VERSION}.DevicePlugin"


@dataclass(slots=True, eq=False)
class _Endpoint:
    """A registered plugin."""

    resource: str
    channel: PluginChannel
    options: DevicePluginOptions
    following: asyncio.Task[None] | None = field(default=None)


class Registry:
    """The registered plugins by resource, and the service at which they register."""

    def __init__(self, directory: str, store: Store, scheduler: Scheduler) -> None:
        self._directory = directory
        self._store = store
        self._scheduler = scheduler
        self._endpoints: dict[str, _Endpoint] = {}
        self._graces: dict[str, asyncio.TimerHandle] = {}
        self._saving: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for grace in self._graces.values():
            grace.cancel()
        for endpoint in self._endpoints.values():
            await _end(endpoint)
        await asyncio.gather(*self._saving)

    # -- registration -----------------------------------------------------------------------------------------------

    def __mapping__(self) -> Mapping[str, Handler]:
        name = f"/{VERSION}.Registration/Register"
        return {name: Handler(self._register, Cardinality.UNARY_UNARY, RegisterRequest, Empty)}

    async def _register(self, stream: Stream[RegisterRequest, Empty]) -> None:
        request = await stream.recv_message()
        if request is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "the request has no message")
        if wrong := problem(request):
            log.warning("a device plugin cannot register: %s", wrong)
            raise GRPCError(Status.INVALID_ARGUMENT, wrong)
        try:
            await self._connect(request)
        except (PluginError, OSError) as error:
            log.warning("the device plugin of %s cannot register: %s", request.resource_name, error)
            words = f"the node cannot call the plugin at {self._directory}/{request.endpoint}: {error}"
            raise GRPCError(Status.UNAVAILABLE, words) from error
        await stream.send_message(Empty())

    async def _connect(self, request: RegisterRequest) -> None:
        """Raises PluginError."""
        resource = request.resource_name
        channel = PluginChannel(self._directory, request.endpoint)
        try:
            await channel.connect()
            method = f"{_SERVICE}/GetDevicePluginOptions"
            options = await channel.call(method, Empty(), DevicePluginOptions, OPTIONS_SECONDS)
        except BaseException:
            channel.close()
            raise
        old = self._endpoints.get(resource)
        endpoint = self._endpoints[resource] = _Endpoint(resource, channel, options)
        if old is not None:
            await _end(old)
        if (grace := self._graces.pop(resource, None)) is not None:
            grace.cancel()
        log.info("device plugin of %s registered at %s", resource, request.endpoint)
        endpoint.following = asyncio.create_task(self._follow(endpoint), name=f"devices-{resource}")
        self._remember(resource, known=True)

    # -- devices ----------------------------------------------------------------------------------------------------

    async def _follow(self, endpoint: _Endpoint) -> None:
        """Take the plugin's lists of devices until it ends."""
        reason = "it has ended the stream of its devices"
        try:
            lists = endpoint.channel.stream(f"{_SERVICE}/ListAndWatch", Empty(), ListAndWatchResponse)
            async for found in lists:
                self._offer(endpoint.resource, found)
        except PluginError as error:
            reason = str(error)
        self._gone(endpoint, reason)

    def _offer(self, resource: str, found: ListAndWatchResponse) -> None:
        book = self._scheduler.devices
        book.offer(resource, map(device, found.devices))
        log.info(
            "%s has %d devices, %d of them healthy",
            resource, book.capacity()[resource], book.allocatable()[resource],
        )  # fmt: skip
        self._scheduler.offers_changed()

    def _gone(self, endpoint: _Endpoint, reason: str) -> None:
        """The plugin has ended. Its devices are unhealthy, and after the grace period the node has none."""
        resource = endpoint.resource
        if self._endpoints.get(resource) is not endpoint:
            return
        log.warning("device plugin of %s is gone: %s", resource, reason)
        del self._endpoints[resource]
        endpoint.channel.close()
        self._scheduler.devices.spoil(resource)
        self._scheduler.offers_changed()
        self._graces[resource] = asyncio.get_running_loop().call_later(GRACE, self._withdraw, resource)

    def _withdraw(self, resource: str) -> None:
        log.warning("device plugin of %s has not come back in %.0f s", resource, GRACE)
        self._graces.pop(resource, None)
        self._scheduler.devices.offer(resource, ())
        self._scheduler.offers_changed()
        self._remember(resource, known=False)

    def _remember(self, resource: str, *, known: bool) -> None:
        task = asyncio.create_task(remember(self._store, resource, known=known))
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    # -- calls ------------------------------------------------------------------------------------------------------

    async def allocate(self, resource: str, ids: tuple[str, ...]) -> ContainerAllocateResponse:
        """Return what the plugin wants for a container with these devices. Raises PluginError."""
        endpoint = self._endpoints.get(resource)
        if endpoint is None:
            raise PluginGone(f"no device plugin is registered for {resource}")
        request = AllocateRequest((DeviceIds(ids),))
        try:
            found = await endpoint.channel.call(
                f"{_SERVICE}/Allocate", request, AllocateResponse, ALLOCATE_SECONDS
            )
        except PluginGone as error:
            await _stop_following(endpoint)
            self._gone(endpoint, str(error))
            raise
        if not found.container_responses:
            raise PluginError(f"no containers return in allocation response of {resource}")
        return found.container_responses[0]

    async def prefer(
        self, resource: str, available: tuple[str, ...], must: tuple[str, ...], count: int
    ) -> tuple[str, ...]:
        """Return which of the available devices the plugin prefers together; () if it has no preferences. Raises
        PluginError."""
        endpoint = self._endpoints.get(resource)
        if endpoint is None or not endpoint.options.get_preferred_allocation_available:
            return ()
        request = PreferredAllocationRequest((ContainerPreferredAllocationRequest(available, must, count),))
        found = await endpoint.channel.call(
            f"{_SERVICE}/GetPreferredAllocation", request, PreferredAllocationResponse, PREFER_SECONDS
        )
        return found.container_responses[0].ids if found.container_responses else ()

    async def before_start(self, resource: str, ids: tuple[str, ...]) -> None:
        """Tell the plugin that a container with these devices starts, if it has asked for that. Raises PluginError."""
        endpoint = self._endpoints.get(resource)
        if endpoint is not None and endpoint.options.pre_start_required:
            method = f"{_SERVICE}/PreStartContainer"
            await endpoint.channel.call(method, DeviceIds(ids), Empty, PRE_START_SECONDS)


async def _end(endpoint: _Endpoint) -> None:
    await _stop_following(endpoint)
    endpoint.channel.close()


async def _stop_following(endpoint: _Endpoint) -> None:
    if endpoint.following is not None:
        endpoint.following.cancel()
        await asyncio.gather(endpoint.following, return_exceptions=True)


# -- pure -----------------------------------------------------------------------------------------------------------


def problem(request: RegisterRequest) -> str:
    """Return what is wrong with a registration; "" if nothing is."""
    if request.version != VERSION:
        return (
            f"requested API version {request.version!r} is not supported by the node; it supports {VERSION}"
        )
    if not request.endpoint or "/" in request.endpoint or request.endpoint in (".", ".."):
        return f"endpoint {request.endpoint!r} is not the name of a socket beside the node's"
    try:
        valid = list(parse_extended(f"{request.resource_name}=0")) == [request.resource_name]
    except ValueError:
        valid = False
    if not valid:
        return f"the ResourceName {request.resource_name!r} is invalid: it must be DOMAIN/NAME, as example.com/gpu"
    return ""


def device(found: PluginDevice) -> Device:
    nodes = tuple(node.id for node in found.topology.nodes) if found.topology is not None else ()
    return Device(found.id, found.health == HEALTHY, nodes)
