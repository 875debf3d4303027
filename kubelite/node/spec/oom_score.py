"""The OOM score of a container: which processes the kernel kills first when the machine runs out of memory."""

from __future__ import annotations

from kubelite.node.model.resources import BEST_EFFORT, GUARANTEED, amounts, is_sidecar, pod_amount, qos_class
from manifests.types.core import Container, Pod


def oom_score_adj(pod: Pod, container: Container, memory_capacity: int) -> int:
    """-997 for Guaranteed, 1000 for BestEffort, else 1000 less the requested share of the node's memory, within 3..999
    (Kubernetes pkg/kubelet/qos/policy.go). A sidecar has at most the value of the containers it serves. A request of
    the whole pod that exceeds the sum of its containers' requests is divided evenly among the containers."""
    qos = qos_class(pod)
    if qos == GUARANTEED or (pod.spec.priority_class_name or "") == "system-node-critical":
        return -997
    if qos == BEST_EFFORT:
        return 1000
    shared = 0
    if whole := amounts(pod.spec.resources).memory_request:
        shared = (whole - (pod_amount(pod, 2) or 0)) // len([*pod.spec.init_containers, *pod.spec.containers])
    own = _burstable_adj(container, shared, memory_capacity)
    if is_sidecar(pod, container):
        return min([own, *(_burstable_adj(main, shared, memory_capacity) for main in pod.spec.containers)])
    return own


def _burstable_adj(container: Container, shared: int, memory_capacity: int) -> int:
    request = (amounts(container.resources).memory_request or 0) + shared
    adj = 1000 - (1000 * request) // max(memory_capacity, 1)
    return 999 if adj >= 1000 else max(adj, 3)
