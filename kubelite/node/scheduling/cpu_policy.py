"""Pure: which processors a container may run on (kubelet's --cpu-manager-policy).

With `none`, a container runs on any processor. With `static`, a container of a Guaranteed pod that requests whole
processors gets processors of its own, and all other containers share the rest (Kubernetes pkg/kubelet/cm/cpumanager).
Reserved processors (`reserved_cpus`, otherwise enough to cover the node's reservations) always stay shared. Whole cores
are assigned first, so that two containers do not share a core's caches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kubelite.node.model.capacity import parse_cpus
from kubelite.node.model.resources import GUARANTEED, amounts, is_sidecar, qos_class
from manifests.types.core import Container, Pod


class NotEnough(Exception):
    """Fewer processors are free than a container needs. The message is kubelet's."""


def cpus_text(cpus: Iterable[int]) -> str:
    """{0, 1, 2, 5} → 0-2,5."""
    parts: list[str] = []
    ordered = sorted(cpus)
    for index, cpu in enumerate(ordered):
        if index and ordered[index - 1] == cpu - 1:
            parts[-1] = f"{parts[-1].partition('-')[0]}-{cpu}"
        else:
            parts.append(str(cpu))
    return ",".join(parts)


def exclusive(pod: Pod, container: Container) -> int:
    """How many exclusive processors the container gets."""
    if qos_class(pod) != GUARANTEED:
        return 0
    milli = amounts(container.resources).cpu_request or 0
    return milli // 1000 if milli % 1000 == 0 else 0


@dataclass(frozen=True, slots=True)
class Machine:
    """The online processors by core, and the processors that are never assigned exclusively."""

    cores: Mapping[int, int]  # processor → core
    reserved: frozenset[int]


class CpuBook:
    """The exclusively assigned processors: pod's uid → container → processors."""

    def __init__(self, machine: Machine, held: Mapping[str, Mapping[str, str]]) -> None:
        self._machine = machine
        self._held = {
            uid: {name: parse_cpus(text) for name, text in one.items()} for uid, one in held.items()
        }

    def shared(self) -> frozenset[int]:
        taken = {cpu for one in self._held.values() for cpus in one.values() for cpu in cpus}
        return frozenset(self._machine.cores) - taken

    def assign(self, pod: Pod) -> bool:
        """Assign exclusive processors to a pod's containers, all or none. Return whether anything changed.

        Containers that start later reuse the processors of regular init containers. Raises NotEnough.
        """
        uid = pod.metadata.uid or ""
        if uid in self._held:
            return False
        made: dict[str, frozenset[int]] = {}
        free = self.shared() - self._machine.reserved
        lent: frozenset[int] = frozenset()
        for container in [*pod.spec.init_containers, *pod.spec.containers]:
            wanted = exclusive(pod, container)
            if not wanted:
                continue
            chosen = self._choose(wanted, free, lent)
            made[container.name] = chosen
            if container in pod.spec.init_containers and not is_sidecar(pod, container):
                lent |= chosen
            else:
                free, lent = free - chosen, lent - chosen
        if made:
            self._held[uid] = made
        return bool(made)

    def _choose(self, wanted: int, free: frozenset[int], first: frozenset[int]) -> frozenset[int]:
        if len(free) < wanted:
            raise NotEnough(
                f"not enough cpus available to satisfy request: requested={wanted}, available={len(free)}"
            )
        cores: dict[int, list[int]] = {}
        for cpu in sorted(free):
            cores.setdefault(self._machine.cores[cpu], []).append(cpu)
        order = sorted(first & free)
        # whole cores while one fits, then the free processors of partly used cores
        sizes = sorted(cores.values(), key=lambda cpus: (-len(cpus), cpus))
        for cpus in sizes:
            if len([c for c in order if c not in first]) + len(cpus) <= wanted:
                order += [c for c in cpus if c not in order]
        order += [c for cpus in reversed(sizes) for c in cpus if c not in order]
        return frozenset(order[:wanted])

    def differs(self, pod: Pod) -> bool:
        """Whether the number of exclusive processors that the pod requests differs from the number that it has."""
        given = self._held.get(pod.metadata.uid or "")
        every = [*pod.spec.init_containers, *pod.spec.containers]
        return given is not None and any(exclusive(pod, c) != len(given.get(c.name, ())) for c in every)

    def release(self, uid: str) -> bool:
        return self._held.pop(uid, None) is not None

    def of(self, pod: Pod) -> dict[str, str]:
        """Each container's processors. Containers without exclusive processors share the rest."""
        held, rest = self._held.get(pod.metadata.uid or "", {}), cpus_text(self.shared())
        return {
            c.name: cpus_text(held[c.name]) if c.name in held else rest
            for c in [*pod.spec.init_containers, *pod.spec.containers]
        }

    def to_json(self) -> dict[str, dict[str, str]]:
        return {uid: {name: cpus_text(cpus) for name, cpus in one.items()} for uid, one in self._held.items()}
