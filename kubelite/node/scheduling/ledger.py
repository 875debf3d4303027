"""What the pods scheduled to this node reserve: a ledger of reservations, maintained by the pod worker.

The ledger does no I/O and holds nothing that the store does not: after a restart it is rebuilt from the pods whose
status says that they were scheduled. Sums are updated with each reservation, so that scheduling one of 500 pods does
not visit the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kubelite.kube.objects import TERMINAL_PHASES
from kubelite.node.model import resources
from kubelite.node.model.claim_names import claim_names
from kubelite.node.model.pod_view import statuses
from kubelite.node.model.priority import priority
from kubelite.node.model.schedule import RESIZE_PENDING, Port, Reservation
from manifests.types.core import Container, Pod


def reservation_of(pod: Pod) -> Reservation:
    """Pure: what the pod reserves."""
    affinity = pod.spec.affinity
    repels = affinity.pod_anti_affinity if affinity is not None else None
    return Reservation(
        uid=pod.metadata.uid or "",
        namespace=pod.metadata.namespace or "default",
        name=pod.metadata.name or "",
        labels=pod.metadata.labels,
        requests=resources.pod_requests(pod),
        ports=tuple(_ports(pod)),
        repels=tuple(repels.required_during_scheduling_ignored_during_execution) if repels else (),
        terminating=bool(pod.metadata.deletion_timestamp) or pod.status.phase in TERMINAL_PHASES,
        qos=(pod.status.qos_class if _is_scheduled(pod) else "") or resources.qos_class(pod),
        priority=priority(pod),
        since=pod.status.start_time or "",
        volumes=claim_names(pod),
    )


def _is_scheduled(pod: Pod) -> bool:
    """Whether the pod's status records the QoS class of its cgroup."""
    return any(c.type == "PodScheduled" and c.status == "True" for c in pod.status.conditions)


def as_allocated(pod: Pod) -> Pod:
    """Pure: the pod with the resources that its containers have now. Decisions, starts and status use it while a resize
    cannot be carried out."""
    has = {status.name: status.resources for status in statuses(pod.status) if status.resources is not None}

    def one(container: Container) -> Container:
        return (
            container.model_copy(update={"resources": has[container.name]})
            if container.name in has
            else container
        )

    changed = {
        "containers": [one(c) for c in pod.spec.containers],
        "init_containers": [one(c) for c in pod.spec.init_containers],
    }
    return pod.model_copy(update={"spec": pod.spec.model_copy(update=changed)})


def resize_pending(pod: Pod) -> bool:
    """Pure: whether the last recorded status has the condition PodResizePending."""
    return any(c.type == RESIZE_PENDING and c.status == "True" for c in pod.status.conditions)


def _ports(pod: Pod) -> Iterator[Port]:
    """The ports that the pod needs on the host. With hostNetwork these are the containers' own ports.

    All containers count, as in the scheduler, although a regular init container frees its ports when it ends.
    """
    for container in [*pod.spec.init_containers, *pod.spec.containers]:
        for port in container.ports:
            number = port.container_port if pod.spec.host_network else port.host_port
            if number:
                ip = "" if port.host_ip in (None, "0.0.0.0") else port.host_ip
                yield Port(number, port.protocol or "TCP", ip or "")


def _overlap(one: str, other: str) -> bool:
    """Whether no two pods can have a port at these addresses ("": every address). For the scheduler, :: is an address
    like others (HostPortInfo.CheckConflict). The node cannot publish a port there and at another IPv6 address, and says
    so before the pod starts."""
    if not one or not other or one == other:
        return True
    return "::" in (one, other) and ":" in one and ":" in other


class Ledger:
    """The reservations by uid, and their sums."""

    def __init__(self, reservations: Iterable[Reservation] = ()) -> None:
        self._reservations: dict[str, Reservation] = {}
        self._sums: dict[bool, dict[str, int]] = {False: {}, True: {}}  # by whether the pods are terminating
        self._holders: dict[tuple[int, str], dict[str, set[str]]] = {}  # (number, protocol) → uid → ips
        self._repelling: set[str] = set()
        for reservation in reservations:
            self.add(reservation)

    def __iter__(self) -> Iterator[Reservation]:
        return iter(self._reservations.values())

    def __contains__(self, uid: object) -> bool:
        return uid in self._reservations

    def add(self, reservation: Reservation) -> None:
        """Record a pod's reservation and replace its earlier one."""
        if self._reservations.get(reservation.uid) == reservation:
            return
        self.remove(reservation.uid)
        self._reservations[reservation.uid] = reservation
        self._add(reservation, 1)
        for port in reservation.ports:
            holders = self._holders.setdefault((port.number, port.protocol), {})
            holders.setdefault(reservation.uid, set()).add(port.ip)
        if reservation.repels:
            self._repelling.add(reservation.uid)

    def get(self, uid: str) -> Reservation | None:
        return self._reservations.get(uid)

    def remove(self, uid: str) -> bool:
        """Delete a pod's reservation. Return whether it had one."""
        reservation = self._reservations.pop(uid, None)
        if reservation is None:
            return False
        self._add(reservation, -1)
        for port in reservation.ports:
            self._holders.get((port.number, port.protocol), {}).pop(uid, None)
        self._repelling.discard(uid)
        return True

    def _add(self, reservation: Reservation, sign: int) -> None:
        sums = self._sums[reservation.terminating]
        for name, amount in (*reservation.requests.items(), ("pods", 1)):
            sums[name] = sums.get(name, 0) + sign * amount

    def used(self, name: str, *, but: str = "", terminating: bool | None = None) -> int:
        """The amount of a resource that all pods except `but` reserve. `terminating`: count only the terminating pods
        (True) or only the others (False)."""
        which = (True, False) if terminating is None else (terminating,)
        total = sum(self._sums[one].get(name, 0) for one in which)
        own = self._reservations.get(but)
        if own is not None and own.terminating in which:
            total -= 1 if name == "pods" else own.requests.get(name, 0)
        return total

    def holder(self, port: Port, *, but: str = "") -> Reservation | None:
        """The pod whose host port conflicts with `port`: same number and protocol, and the same address or either on
        every address."""
        for uid, ips in self._holders.get((port.number, port.protocol), {}).items():
            if uid != but and any(_overlap(port.ip, ip) for ip in ips):
                return self._reservations[uid]
        return None

    def user(self, reservation: Reservation, volume: str) -> Reservation | None:
        """Another pod in the same namespace that mounts this PersistentVolumeClaim."""
        return next(
            (
                c
                for c in self
                if c.uid != reservation.uid and c.namespace == reservation.namespace and volume in c.volumes
            ),
            None,
        )

    def where(self, stays: Callable[[Reservation], bool]) -> Ledger:
        """A copy of the ledger with only the reservations for which `stays` is true."""
        return Ledger(reservation for reservation in self if stays(reservation))

    def others(self, pod: Pod) -> Iterator[Reservation]:
        return (reservation for uid, reservation in self._reservations.items() if uid != pod.metadata.uid)

    def repelling(self) -> list[Reservation]:
        return [self._reservations[uid] for uid in self._repelling]
