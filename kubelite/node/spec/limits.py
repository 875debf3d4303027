"""The complete OCI linux.resources of containers, pods and QoS cgroups: CPU and memory (see model/resources.py), and
what depends on the machine and the settings: huge pages, MemoryQoS, swap, and the processors a container may run on.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from typing import Any

from kubelite.node.model import resources
from kubelite.node.model.node_config import LIMITED_SWAP, TIERED, NodeConfig
from kubelite.node.model.resources import BEST_EFFORT, BURSTABLE, GUARANTEED, Amounts, amounts, qos_class
from manifests.types.core import Container, Pod

HUGE = "hugepages-"


def container_limits(pod: Pod, container: Container, config: NodeConfig, cpus: str = "") -> dict[str, Any]:
    """The limits of a container. `cpus`: the processors that the node's CPU policy assigns to it; "" = any."""
    made = resources.container_resources(container)
    if cpus:
        made["cpu"]["cpus"] = cpus
    asked = amounts(container.resources)
    wanted = container.resources.limits if container.resources is not None else {}
    _add(made, config, {name: amount.value() for name, amount in wanted.items() if name.startswith(HUGE)})
    unified = {**_swap(pod, asked, config), **_memory_qos(pod, asked, config)}
    if config.cgroup_v2 and config.single_process_oom_kill:
        unified["memory.oom.group"] = "0"  # by default an OOM kill ends the whole container
    if unified:
        made["unified"] = unified
    return made


def pod_limits(pod: Pod, config: NodeConfig) -> dict[str, Any]:
    """The limits of the pod's own cgroup."""
    made = resources.pod_resources(pod, config)
    requests = resources.pod_requests(pod)
    _add(made, config, {name: amount for name, amount in requests.items() if name.startswith(HUGE)})
    reserved = _reserved(pod, resources.pod_amounts(pod).memory_request or 0, config)
    if reserved:
        made["unified"] = reserved
    return made


def _add(made: dict[str, Any], config: NodeConfig, wanted: Mapping[str, int]) -> None:
    """Add a limit for each size of huge pages that the kernel reserves. It is 0 unless the pod requests such pages
    (Kubernetes GetHugepageLimitsFromResources). Sizes without reserved pages need no limit."""
    kept = [name for name, amount in config.huge_pages.items() if amount]
    if kept:
        made["hugepageLimits"] = [
            {"pageSize": _page_size(name), "limit": wanted.get(name, 0)} for name in sorted(kept)
        ]


def _page_size(resource: str) -> str:
    """hugepages-2Mi → 2MB, the kernel's name in file names (hugetlb.2MB.max)."""
    return resource.removeprefix(HUGE).replace("Mi", "MB").replace("Gi", "GB")


# -- swap ---------------------------------------------------------------------------------------------------------


def _swap(pod: Pod, asked: Amounts, config: NodeConfig) -> dict[str, str]:
    """memory.swap.max if the machine has swap: 0 (kubelet's NoSwap) or, with LimitedSwap, a share of the swap for
    Burstable containers in proportion to their memory request (Kubernetes kuberuntime_container_linux.go,
    configureContainerSwapResources)."""
    if not (config.cgroup_v2 and config.swap_bytes):
        return {}
    request = asked.memory_request or 0
    limited = config.swap_behavior == LIMITED_SWAP and qos_class(pod) == BURSTABLE
    if not limited or not request or request == asked.memory_limit:
        return {"memory.swap.max": "0"}
    share = request * config.swap_bytes // max(config.memory_bytes, 1)
    return {"memory.swap.max": str(share // mmap.PAGESIZE * mmap.PAGESIZE)}


# -- MemoryQoS ----------------------------------------------------------------------------------------------------


def _memory_qos(pod: Pod, asked: Amounts, config: NodeConfig) -> dict[str, str]:
    """memory.high: where reclaim starts, before the limit causes an OOM kill (KEP-2570); not set if request and limit
    are equal. memory.min or memory.low protects the requested memory, if the reservation policy says so."""
    if not (config.memory_qos and config.cgroup_v2):
        return {}
    request, limit = asked.memory_request or 0, asked.memory_limit
    found = _reserved(pod, request, config)
    if request == limit:
        return found
    top = limit or config.allocatable["memory"]
    high = int(request + config.memory_throttling_factor * (top - request)) // mmap.PAGESIZE * mmap.PAGESIZE
    return {**found, "memory.high": str(high)} if high > request else found


def _reserved(pod: Pod, request: int, config: NodeConfig) -> dict[str, str]:
    if not (config.memory_qos and config.cgroup_v2 and config.memory_reservation == TIERED and request):
        return {}
    file = {GUARANTEED: "memory.min", BURSTABLE: "memory.low"}.get(qos_class(pod))
    return {file: str(request)} if file else {}


# -- QoS cgroups --------------------------------------------------------------------------------------------------


def qos_cgroup_limits(
    pods: Iterable[tuple[str, Mapping[str, int]]], config: NodeConfig
) -> dict[str, dict[str, Any]]:
    """The limits of the QoS cgroups by name ("" is the node's own), from the class and requests of each pod.

    Burstable gets the CPU shares of all its pods' requests. BestEffort gets the minimum, or the shares of pods that
    got requests after their start (Kubernetes pkg/kubelet/cm/qos_container_manager_linux.go). With MemoryQoS the memory
    of the QoS cgroups is protected too, because the kernel limits a pod's protection to that of its parents.
    """
    sums: dict[str, dict[str, int]] = {}
    for qos, requests in pods:
        one = sums.setdefault(qos, {})
        for name in ("cpu", "memory"):
            one[name] = one.get(name, 0) + requests.get(name, 0)
    burstable, guaranteed = sums.get(BURSTABLE, {}), sums.get(GUARANTEED, {})
    made: dict[str, dict[str, Any]] = {
        "burstable": {"cpu": {"shares": resources.cpu_shares(burstable.get("cpu", 0))}},
        "besteffort": {"cpu": {"shares": resources.cpu_shares(sums.get(BEST_EFFORT, {}).get("cpu", 0))}},
    }
    if config.memory_qos and config.cgroup_v2 and config.memory_reservation == TIERED:
        low = str(burstable.get("memory", 0))
        made["burstable"]["unified"] = {"memory.low": low}
        made[""] = {"unified": {"memory.min": str(guaranteed.get("memory", 0)), "memory.low": low}}
    return made


def node_limits(config: NodeConfig, *, evicted_below: int) -> dict[str, Any]:
    """The limits of the node's own cgroup if resources are reserved: pods together get the rest, plus the memory below
    which pods are evicted (kubelet's enforceNodeAllocatable=pods). `evicted_below`: bytes of memory.available."""
    made: dict[str, Any] = {}
    apart = {name: amount for name, amount in config.reserved.items() if amount}
    if apart.get("cpu"):
        made["cpu"] = {"shares": resources.cpu_shares(config.allocatable["cpu"])}
    if apart.get("memory", 0) > evicted_below:
        made["memory"] = {"limit": config.allocatable["memory"] + evicted_below}
    return made
