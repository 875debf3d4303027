"""policy/v1: PodDisruptionBudget (Kubernetes 1.36). It has no defaults."""

from typing import Literal

from pydantic import Field

from manifests.types.meta import (
    Int32,
    Int64,
    IntOrString,
    LabelSelector,
    Model,
    Object,
    ObjectMeta,
    StatusCondition,
    Str,
    Time,
    empty_dict,
    empty_list,
)


class Condition(StatusCondition):
    """meta/v1 Condition, which newer kinds share."""

    observed_generation: Int64 | None = None


class PodDisruptionBudgetSpec(Model):
    max_unavailable: IntOrString | None = None
    min_available: IntOrString | None = None
    selector: LabelSelector | None = None
    unhealthy_pod_eviction_policy: Str | None = None


class PodDisruptionBudgetStatus(Model):
    conditions: list[Condition] = Field(default_factory=empty_list)
    current_healthy: Int32 | None = None
    desired_healthy: Int32 | None = None
    disrupted_pods: dict[Str, Time] = Field(default_factory=empty_dict)
    disruptions_allowed: Int32 | None = None
    expected_pods: Int32 | None = None
    observed_generation: Int64 | None = None


class PodDisruptionBudget(Object):
    api_version: Literal["policy/v1"] = "policy/v1"
    kind: Literal["PodDisruptionBudget"] = "PodDisruptionBudget"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: PodDisruptionBudgetSpec = Field(default_factory=PodDisruptionBudgetSpec)
    status: PodDisruptionBudgetStatus = Field(default_factory=PodDisruptionBudgetStatus)
