"""PURE: what a pod's priority is: the rank in which pods get room, keep it, and give it back."""

from __future__ import annotations

from manifests.core import Pod

#: Kubernetes' own PriorityClasses; others are the node's setting priority_classes.
PRIORITY_CLASSES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


def priority(pod: Pod) -> int:
    """As admission computed it (`manifest_plan.bound`), or by one of the classes that are always there."""
    if pod.spec.priority is not None:
        return pod.spec.priority
    return PRIORITY_CLASSES.get(pod.spec.priority_class_name or "", 0)
