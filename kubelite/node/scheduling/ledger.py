"""What the pods that were placed on this node hold of it: a ledger of claims, kept by the pod worker.

No I/O, nothing remembered that the store could not tell again: after a restart it is written anew from the pods whose
status says that they were placed. Sums are kept as claims come and go: placing one of 500 pods looks at no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kubelite.node.model import resources
from kubelite.node.model.claim_names import claim_names
from kubelite.node.model.pod_view import statuses
from kubelite.node.model.priority import priority
from kubelite.node.model.schedule import RESIZE_PENDING, Port, Reservation
from manifests.types.core import Container, Pod


def claim_of(pod: Pod) -> Reservation:
    """PURE."""
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
        ending=bool(pod.metadata.deletion_timestamp),
        qos=(pod.status.qos_class if _placed(pod) else "") or resources.qos_class(pod),
        priority=priority(pod),
        since=pod.status.start_time or "",
        volumes=claim_names(pod),
    )


def _placed(pod: Pod) -> bool:
    """Its status tells the class of the cgroup that it is in."""
    return any(c.type == "PodScheduled" and c.status == "True" for c in pod.status.conditions)


def as_allocated(pod: Pod) -> Pod:
    """PURE: the pod with the resources that its containers have, where an edit of them could not be carried out: what
    is decided, started and reported goes by these."""
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
    """PURE: whether the last written status says so."""
    return any(c.type == RESIZE_PENDING and c.status == "True" for c in pod.status.conditions)


def _ports(pod: Pod) -> Iterator[Port]:
    """With hostNetwork a container's ports are the host's (C12). A regular init container's are free again when the
    others begin, but a sidecar's are not; all of them count, as for the scheduler."""
    for container in [*pod.spec.init_containers, *pod.spec.containers]:
        for port in container.ports:
            number = port.container_port if pod.spec.host_network else port.host_port
            if number:
                ip = "" if port.host_ip in (None, "0.0.0.0", "::") else port.host_ip
                yield Port(number, port.protocol or "TCP", ip or "")


class Ledger:
    """The claims by uid, with their sums."""

    def __init__(self, claims: Iterable[Reservation] = ()) -> None:
        self._claims: dict[str, Reservation] = {}
        self._sums: dict[bool, dict[str, int]] = {False: {}, True: {}}  # by whether the pods are ending
        self._holders: dict[tuple[int, str], dict[str, set[str]]] = {}  # (number, protocol) → uid → ips
        self._repelling: set[str] = set()
        for claim in claims:
            self.enter(claim)

    def __iter__(self) -> Iterator[Reservation]:
        return iter(self._claims.values())

    def __contains__(self, uid: object) -> bool:
        return uid in self._claims

    def enter(self, claim: Reservation) -> None:
        """Enter a pod's claim, in place of the one it had."""
        if self._claims.get(claim.uid) == claim:
            return
        self.strike(claim.uid)
        self._claims[claim.uid] = claim
        self._add(claim, 1)
        for port in claim.ports:
            holders = self._holders.setdefault((port.number, port.protocol), {})
            holders.setdefault(claim.uid, set()).add(port.ip)
        if claim.repels:
            self._repelling.add(claim.uid)

    def get(self, uid: str) -> Reservation | None:
        return self._claims.get(uid)

    def strike(self, uid: str) -> bool:
        """The pod holds nothing any more; whether it did."""
        claim = self._claims.pop(uid, None)
        if claim is None:
            return False
        self._add(claim, -1)
        for port in claim.ports:
            self._holders.get((port.number, port.protocol), {}).pop(uid, None)
        self._repelling.discard(uid)
        return True

    def _add(self, claim: Reservation, sign: int) -> None:
        sums = self._sums[claim.ending]
        for name, amount in (*claim.requests.items(), ("pods", 1)):
            sums[name] = sums.get(name, 0) + sign * amount

    def used(self, name: str, *, but: str = "", ending: bool | None = None) -> int:
        """How much of a resource is held, by pods other than `but`; with `ending`, by those that are going alone."""
        which = (True, False) if ending is None else (ending,)
        total = sum(self._sums[one].get(name, 0) for one in which)
        own = self._claims.get(but)
        if own is not None and own.ending in which:
            total -= 1 if name == "pods" else own.requests.get(name, 0)
        return total

    def holder(self, port: Port, *, but: str = "") -> Reservation | None:
        """Who holds a port that cannot be had beside `port`: the same number and protocol at the same address, or
        either at every address (C12)."""
        for uid, ips in self._holders.get((port.number, port.protocol), {}).items():
            if uid != but and (not port.ip or "" in ips or port.ip in ips):
                return self._claims[uid]
        return None

    def user(self, claim: Reservation, volume: str) -> Reservation | None:
        """Another pod that mounts a PersistentVolumeClaim of the pod's namespace."""
        return next(
            (
                c
                for c in self
                if c.uid != claim.uid and c.namespace == claim.namespace and volume in c.volumes
            ),
            None,
        )

    def where(self, stays: Callable[[Reservation], bool]) -> Ledger:
        """The ledger as it would be with these claims alone."""
        return Ledger(claim for claim in self if stays(claim))

    def others(self, pod: Pod) -> Iterator[Reservation]:
        return (claim for uid, claim in self._claims.items() if uid != pod.metadata.uid)

    def repelling(self) -> list[Reservation]:
        return [self._claims[uid] for uid in self._repelling]
