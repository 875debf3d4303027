"""scheduling.k8s.io/v1: PriorityClass (Kubernetes 1.36)."""

from typing import ClassVar, Literal

from pydantic import Field

from manifests.types.meta import Bool, Int32, Object, ObjectMeta, Str

#: Kubernetes' own classes, which exist in every cluster.
SYSTEM_CLASSES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


class PriorityClass(Object):
    namespaced: ClassVar[bool] = False
    api_version: Literal["scheduling.k8s.io/v1"] = "scheduling.k8s.io/v1"
    kind: Literal["PriorityClass"] = "PriorityClass"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    value: Int32
    description: Str | None = None
    global_default: Bool | None = None
    preemption_policy: Str | None = None


def default_priority_class(found: PriorityClass) -> PriorityClass:
    """Return a copy with Kubernetes' defaults (pkg/apis/scheduling/v1/defaults.go)."""
    found = found.model_copy(deep=True)
    found.preemption_policy = found.preemption_policy or "PreemptLowerPriority"
    return found
