"""core/v1: LimitRange and ResourceQuota (Kubernetes 1.36), with Kubernetes' defaults."""

from typing import Literal

from pydantic import Field

from manifests.types.meta import Model, Object, ObjectMeta, Quantities, Str, empty_dict, empty_list


def _rounded(amounts: Quantities) -> Quantities:
    """Round amounts up to a thousandth (SetDefaults_ResourceList)."""
    return {name: amount.rounded_to_milli() for name, amount in amounts.items()}


class LimitRangeItem(Model):
    type: Str
    default: Quantities = Field(default_factory=empty_dict)
    default_request: Quantities = Field(default_factory=empty_dict)
    max: Quantities = Field(default_factory=empty_dict)
    max_limit_request_ratio: Quantities = Field(default_factory=empty_dict)
    min: Quantities = Field(default_factory=empty_dict)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_LimitRangeItem: for containers, limits default to the maximum, and requests to
        limits, then to the minimum."""
        for name in ("default", "default_request", "max", "max_limit_request_ratio", "min"):
            setattr(self, name, _rounded(getattr(self, name)))
        if self.type == "Container":
            self.default = {**self.max, **self.default}
            self.default_request = {**self.min, **self.default, **self.default_request}


class LimitRangeSpec(Model):
    limits: list[LimitRangeItem]


class LimitRange(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["LimitRange"] = "LimitRange"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: LimitRangeSpec

    def set_defaults(self) -> None:
        for item in self.spec.limits:
            item.set_defaults()


class ScopedResourceSelectorRequirement(Model):
    operator: Str
    scope_name: Str
    values: list[Str] = Field(default_factory=empty_list)


class ScopeSelector(Model):
    match_expressions: list[ScopedResourceSelectorRequirement] = Field(default_factory=empty_list)


class ResourceQuotaSpec(Model):
    hard: Quantities = Field(default_factory=empty_dict)
    scope_selector: ScopeSelector | None = None
    scopes: list[Str] = Field(default_factory=empty_list)


class ResourceQuotaStatus(Model):
    hard: Quantities = Field(default_factory=empty_dict)
    used: Quantities = Field(default_factory=empty_dict)


class ResourceQuota(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["ResourceQuota"] = "ResourceQuota"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: ResourceQuotaSpec = Field(default_factory=ResourceQuotaSpec)
    status: ResourceQuotaStatus = Field(default_factory=ResourceQuotaStatus)

    def set_defaults(self) -> None:
        self.spec.hard = _rounded(self.spec.hard)
