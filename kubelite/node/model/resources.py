"""Pure: a pod's requests and limits in the form the kernel takes: QoS class, cgroup paths, OCI linux.resources.

Units: CPU in thousandths of a core (milli), memory in bytes, CPU shares and quota as in cgroup v1. runtime/cgroups
converts shares to the v2 weight with one formula at every level. The rules are in docs/explanation/pod-semantics.md,
"Resources and quality of service".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from kubelite.node.model.node_config import NodeConfig
from manifests.types.core import Container, Pod
from manifests.types.meta import Quantity

MIN_SHARES, MAX_SHARES = 2, 262144
PERIOD = 100_000  # microseconds
MIN_QUOTA = 1_000
GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"


class Amounts(NamedTuple):
    """Requests and limits of a container or a pod; None = not set."""

    cpu_request: int | None = None
    cpu_limit: int | None = None
    memory_request: int | None = None
    memory_limit: int | None = None


def amounts(resources: Any) -> Amounts:
    """Read a ResourceRequirements. A limit without a request is also the request (API defaulting)."""
    if resources is None:
        return Amounts()
    requests, limits = resources.requests, resources.limits
    cpu_limit = _milli(limits.get("cpu"))
    memory_limit = _value(limits.get("memory"))
    cpu_request, memory_request = _milli(requests.get("cpu")), _value(requests.get("memory"))
    return Amounts(
        cpu_limit if cpu_request is None else cpu_request,
        cpu_limit,
        memory_limit if memory_request is None else memory_request,
        memory_limit,
    )


def _milli(quantity: Quantity | None) -> int | None:
    return None if quantity is None else quantity.milli()


def _value(quantity: Quantity | None) -> int | None:
    return None if quantity is None else quantity.value()


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort (Kubernetes pkg/apis/core/v1/helper/qos/qos.go). The pod's own resources take
    precedence."""
    own = amounts(pod.spec.resources)
    asked = (
        [own]
        if any(own)
        else [amounts(c.resources) for c in [*pod.spec.init_containers, *pod.spec.containers]]
    )
    if not any(value for one in asked for value in one):
        return BEST_EFFORT
    guaranteed = all(
        one.cpu_limit
        and one.memory_limit
        and one.cpu_limit == one.cpu_request
        and one.memory_limit == one.memory_request
        for one in asked
    )
    return GUARANTEED if guaranteed else BURSTABLE


def qos_of_cgroup(path: str) -> str:
    """The QoS class that a pod's cgroup was created for; "" if the path does not tell. A pod keeps the class until its
    sandbox is recreated, even if its limits change: a cgroup cannot be moved (and the API makes the class
    immutable)."""
    return next((qos for qos in (BURSTABLE, BEST_EFFORT) if f"/{qos.lower()}/pod" in path), "")


def is_sidecar(pod: Pod, container: Container) -> bool:
    """Whether this is an init container that restarts for the whole life of the pod."""
    return container.restart_policy == "Always" and any(
        c.name == container.name for c in pod.spec.init_containers
    )


def cpu_shares(milli: int) -> int:
    return min(max(milli * 1024 // 1000, MIN_SHARES), MAX_SHARES)


def cpu_quota(milli: int, period: int = PERIOD) -> int:
    return max(milli * period // 1000, MIN_QUOTA)


def oci_resources(asked: Amounts) -> dict[str, Any]:
    """OCI linux.resources of one container: always CPU shares, quota and memory limit if they are set. Memory+swap
    equals memory, so that containers do not swap (kubelet's NoSwap)."""
    cpu: dict[str, Any] = {"shares": cpu_shares(asked.cpu_request or 0)}
    cpu["period"] = PERIOD
    cpu["quota"] = cpu_quota(asked.cpu_limit) if asked.cpu_limit else -1
    limit = asked.memory_limit if asked.memory_limit else -1
    return {"cpu": cpu, "memory": {"limit": limit, "swap": limit}}


def container_resources(container: Container) -> dict[str, Any]:
    return oci_resources(amounts(container.resources))


def pod_amounts(pod: Pod) -> Amounts:
    """The requests and limits of the pod as a whole: the larger of the sum of its containers and the most that any one
    init container needs together with the sidecars started before it. A limit counts only if every container has one.
    Overhead is added (Kubernetes pkg/kubelet/cm/helpers_linux.go)."""
    own = amounts(pod.spec.resources)
    sums = Amounts(*(pod_amount(pod, index) for index in range(4)))
    asked = Amounts(*(mine if mine is not None else total for mine, total in zip(own, sums, strict=True)))
    return _with_overhead(asked, pod.spec.overhead) if pod.spec.overhead else asked


def _with_overhead(asked: Amounts, overhead: Mapping[str, Quantity]) -> Amounts:
    """Without a request, the overhead is the request; without a limit, there is still none."""
    cpu, memory = (in_units(n, overhead[n]) if n in overhead else 0 for n in ("cpu", "memory"))
    return Amounts(
        (asked.cpu_request or 0) + cpu or None,
        asked.cpu_limit + cpu if asked.cpu_limit else asked.cpu_limit,
        (asked.memory_request or 0) + memory or None,
        asked.memory_limit + memory if asked.memory_limit else asked.memory_limit,
    )


def pod_amount(pod: Pod, index: int) -> int | None:
    is_limit = index in (1, 3)
    pick: Callable[[Container], int | None] = lambda c: amounts(c.resources)[index]  # noqa: E731
    values = [pick(c) for c in [*pod.spec.init_containers, *pod.spec.containers]]
    if is_limit and any(not value for value in values):
        return None
    sidecars = largest_init = 0
    for container in pod.spec.init_containers:
        if is_sidecar(pod, container):
            sidecars += pick(container) or 0
            largest_init = max(largest_init, sidecars)
        else:
            largest_init = max(largest_init, sidecars + (pick(container) or 0))
    return max(largest_init, sidecars + _sum(pick(c) for c in pod.spec.containers)) or None


def _sum(values: Iterable[int | None]) -> int:
    return sum(value or 0 for value in values)


def pod_requests(pod: Pod) -> dict[str, int]:
    """The pod's requests by resource: cpu in thousandths, everything else in bytes or counts."""
    asked = pod_requests_exact(pod)
    return {name: in_units(name, value) for name, value in asked.items() if value.nanos}


def pod_requests_exact(pod: Pod) -> dict[str, Quantity]:
    """The larger of the sum of its containers and the most that any one init container needs with the sidecars before
    it, replaced by the pod's own requests, plus its overhead (Kubernetes component-helpers/resource, PodRequests)."""
    total = _pod_total(pod, _requests)
    _add(total, pod.spec.overhead)
    return total


def pod_limits_exact(pod: Pod) -> dict[str, Quantity]:
    """The same for limits. Overhead is added to existing limits only (Kubernetes component-helpers/resource,
    PodLimits)."""
    total = _pod_total(pod, lambda resources: {} if resources is None else resources.limits)
    _add(total, {name: value for name, value in pod.spec.overhead.items() if name in total})
    return total


def _pod_total(pod: Pod, of: Callable[[Any], Mapping[str, Quantity]]) -> dict[str, Quantity]:
    sidecars: dict[str, Quantity] = {}
    largest: dict[str, Quantity] = {}
    for container in pod.spec.init_containers:
        asked = of(container.resources)
        if is_sidecar(pod, container):
            _add(sidecars, asked)
            asked = {}
        before = dict(sidecars)
        _add(before, asked)
        for name, value in before.items():
            largest[name] = max(largest.get(name, value), value)
    total = dict(sidecars)
    for container in pod.spec.containers:
        _add(total, of(container.resources))
    for name, value in largest.items():
        total[name] = max(total.get(name, value), value)
    total.update(of(pod.spec.resources))
    return total


def _add(total: dict[str, Quantity], more: Mapping[str, Quantity]) -> None:
    for name, value in more.items():
        total[name] = total[name] + value if name in total else value


def _requests(resources: Any) -> Mapping[str, Quantity]:
    """A limit without a request is also the request."""
    return {} if resources is None else {**resources.limits, **resources.requests}


def in_units(name: str, quantity: Quantity) -> int:
    """cpu in thousandths, everything else in whole units."""
    return quantity.milli() if name == "cpu" else quantity.value()


def pod_resources(pod: Pod, config: NodeConfig) -> dict[str, Any]:
    """OCI linux.resources of the pod's own cgroup."""
    resources = oci_resources(pod_amounts(pod))
    if config.pod_pids_limit > 0:
        resources["pids"] = {"limit": config.pod_pids_limit}
    return resources


def pod_cgroup(pod: Pod, config: NodeConfig) -> str:
    """<parent>/pod<uid> for Guaranteed pods, below burstable or besteffort for all others."""
    qos = qos_class(pod)
    parent = "" if qos == GUARANTEED else f"/{qos.lower()}"
    return f"{config.cgroup_parent.rstrip('/')}{parent}/pod{pod.metadata.uid}"
