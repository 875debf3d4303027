"""Pure: which devices of device plugins a container gets (Kubernetes pkg/kubelet/cm/devicemanager/manager.go).

A container that requests two of example.com/gpu gets two healthy devices that no other container has. A regular init
container lends its devices to the containers that start after it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kubelite.node.devices.model import Device
from kubelite.node.model.resources import is_sidecar
from kubelite.node.scheduling.cpu_policy import NotEnough
from manifests.types.core import Container, Pod

#: container → resource → ids of devices
Assignment = Mapping[str, Mapping[str, tuple[str, ...]]]
#: (container, resource) → ids that a plugin prefers
Preferences = Mapping[tuple[str, str], Sequence[str]]


def assignment_of(doc: Mapping[str, Any]) -> Assignment:
    """The devices in a recorded allocation, which has {"ids", "response"} by container and resource."""
    return {
        container: {resource: tuple(one["ids"]) for resource, one in found.items()}
        for container, found in doc["entries"].items()
    }


class Question(NamedTuple):
    """Which `size` of the available devices a container should get. Those of `must` are among them."""

    container: str
    resource: str
    available: tuple[str, ...]
    must: tuple[str, ...]
    size: int


class DeviceBook:
    """The devices that plugins offer, and the pods that have them."""

    def __init__(self) -> None:
        self._offered: dict[str, dict[str, Device]] = {}
        self._held: dict[str, Assignment] = {}
        self._wishes: dict[str, Preferences] = {}  # of pods that wait

    # -- what plugins offer ---------------------------------------------------------------------------------------

    def offer(self, resource: str, devices: Iterable[Device]) -> None:
        """Replace the devices of a resource."""
        self._offered[resource] = {device.id: device for device in devices}

    def spoil(self, resource: str) -> None:
        """Take all devices of a resource for unhealthy: their plugin is gone."""
        self.offer(resource, (Device(one.id, False, one.nodes) for one in self.devices(resource)))

    def devices(self, resource: str) -> list[Device]:
        return list(self._offered.get(resource, {}).values())

    def capacity(self) -> dict[str, int]:
        """The number of devices of each resource."""
        return {name: len(devices) for name, devices in self._offered.items()}

    def allocatable(self) -> dict[str, int]:
        """The number of healthy devices of each resource."""
        return {name: sum(one.healthy for one in found.values()) for name, found in self._offered.items()}

    # -- what pods have -------------------------------------------------------------------------------------------

    def load(self, uid: str, assignment: Assignment) -> None:
        """Record what a pod has had since before the daemon started."""
        self._held[uid] = assignment

    def of(self, uid: str) -> Assignment:
        return self._held.get(uid, {})

    def holders(self) -> Mapping[str, Assignment]:
        """The devices of all pods, by uid."""
        return self._held

    def wish(self, uid: str, preferences: Preferences) -> None:
        """Prefer these devices when the pod is scheduled, as far as they are free then."""
        if any(preferences.values()):
            self._wishes[uid] = preferences
        else:
            self._wishes.pop(uid, None)

    def assign(self, pod: Pod) -> bool:
        """Reserve devices for a pod's containers, all or none. Return whether it got any. Raises NotEnough."""
        uid = pod.metadata.uid or ""
        if uid in self._held or not self._offered:
            return False
        wishes, choice, answer = self._wishes.pop(uid, {}), self.choose(pod), None
        while True:
            try:
                question = choice.send(answer)
            except StopIteration as end:
                if end.value:
                    self._held[uid] = end.value
                return bool(end.value)
            answer = wishes.get((question.container, question.resource), ())

    def choose(self, pod: Pod) -> Generator[Question, Sequence[str] | None, Assignment]:
        """Choose devices for each container, in the order in which they start. Where there is a choice, yield a
        question, and take the ids that are sent as far as possible. Return the assignment. Raises NotEnough."""
        made: dict[str, dict[str, tuple[str, ...]]] = {}
        lent: dict[str, set[str]] = {}  # resource → ids of earlier init containers
        taken = self._taken()
        for container in [*pod.spec.init_containers, *pod.spec.containers]:
            for resource, count in self.wanted(container):
                reuse = lent.setdefault(resource, set())
                busy = taken.setdefault(resource, set())
                first, free = self._candidates(resource, count, reuse, busy)
                wish: Sequence[str] = ()
                if len(first) < count < len(first) + len(free):
                    question = Question(container.name, resource, (*first, *free), first, count)
                    wish = (yield question) or ()
                order = dict.fromkeys([*first, *(one for one in wish if one in free), *free])
                ids = tuple(order)[:count]
                made.setdefault(container.name, {})[resource] = ids
                busy.update(ids)
                if container in pod.spec.init_containers and not is_sidecar(pod, container):
                    reuse.update(ids)
                else:
                    reuse.difference_update(ids)
        return made

    def _candidates(
        self, resource: str, count: int, reuse: set[str], busy: set[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The healthy devices that init containers lend, and those that nobody has."""
        healthy = [one.id for one in self._offered[resource].values() if one.healthy]
        if not healthy:
            raise NotEnough(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
        first = tuple(one for one in healthy if one in reuse)
        free = tuple(one for one in healthy if one not in busy)
        if (there := len(first) + len(free)) < count:
            words = f"requested number of devices unavailable for {resource}"
            raise NotEnough(f"{words}. Requested: {count}, Available: {there}")
        return first, free

    def wanted(self, container: Container) -> Iterator[tuple[str, int]]:
        """Yield the resources of plugins that the container requests, and how many devices of each."""
        if container.resources is None or not self._offered:
            return
        asked = {**container.resources.limits, **container.resources.requests}
        for name in sorted(asked):
            if name in self._offered and (count := asked[name].value()) > 0:
                yield name, count

    def _taken(self) -> dict[str, set[str]]:
        taken: dict[str, set[str]] = {}
        for assignment in self._held.values():
            for one in assignment.values():
                for resource, ids in one.items():
                    taken.setdefault(resource, set()).update(ids)
        return taken

    def release(self, uid: str) -> bool:
        """Free the devices of a pod. Return whether it had any."""
        self._wishes.pop(uid, None)
        return self._held.pop(uid, None) is not None
