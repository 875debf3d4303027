"""Rules of LimitRanges and ResourceQuotas (Kubernetes pkg/apis/core/validation/validation.go and
pkg/apis/core/helper/helpers.go)."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction

from manifests.names import qualified_name
from manifests.problems import Path, Problem, duplicate, forbidden, invalid, required
from manifests.types.meta import Quantity
from manifests.types.workloads.limits import (
    LimitRange,
    LimitRangeItem,
    ResourceQuota,
    ResourceQuotaSpec,
    ScopedResourceSelectorRequirement,
)
from manifests.validation.meta import validate_meta
from manifests.validation.rules import formatted
from manifests.validation.workloads.template import immutable

TYPES = ("Container", "PersistentVolumeClaim", "Pod")
_HUGE = ("hugepages-", "requests.hugepages-")
_CONTAINER = frozenset(("cpu", "memory", "ephemeral-storage"))
_COMPUTE = frozenset(("cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"))
_COUNTS = frozenset(
    (
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    )
)
_QUOTA = (
    _CONTAINER
    | _COMPUTE
    | _COUNTS
    | {"requests.storage", "requests.ephemeral-storage", "limits.ephemeral-storage"}
)
_EXISTS_ONLY = (
    "BestEffort",
    "NotBestEffort",
    "Terminating",
    "NotTerminating",
    "CrossNamespacePodAffinity",
)
#: scope → resources that it can limit
SCOPES: Mapping[str, frozenset[str]] = {
    "Terminating": _COMPUTE | {"pods"},
    "NotTerminating": _COMPUTE | {"pods"},
    "NotBestEffort": _COMPUTE | {"pods"},
    "PriorityClass": _COMPUTE | {"pods"},
    "CrossNamespacePodAffinity": _COMPUTE | {"pods"},
    "BestEffort": frozenset(("pods",)),
    "VolumeAttributesClass": frozenset(("persistentvolumeclaims", "requests.storage")),
}
_CONFLICTS = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})


def limit_range_problems(found: LimitRange) -> Iterator[Problem]:
    yield from validate_meta(found.metadata)
    seen: set[str] = set()
    for index, item in enumerate(found.spec.limits):
        here: Path = ("spec", "limits", index)
        yield from _type(item.type, (*here, "type"))
        if item.type in seen:
            yield duplicate((*here, "type"), item.type)
        seen.add(item.type)
        yield from _item(item, here)


def _type(value: str, path: Path) -> Iterator[Problem]:
    wrong = list(formatted(path, value, qualified_name))
    yield from wrong
    if not wrong and "/" not in value and value not in TYPES:
        yield invalid(path, value, "must be a standard limit type or fully qualified")


def _item(item: LimitRangeItem, path: Path) -> Iterator[Problem]:
    given = {
        "max": item.max,
        "min": item.min,
        "default": item.default,
        "defaultRequest": item.default_request,
        "maxLimitRequestRatio": item.max_limit_request_ratio,
    }
    if item.type == "Pod":
        for alias in ("default", "defaultRequest"):
            if given.pop(alias):
                yield forbidden((*path, alias), "may not be specified when `type` is 'Pod'")
    names: dict[str, None] = {}
    for alias, amounts in given.items():
        for name in amounts:
            if name not in names:  # a default repeats the name of another field, where it is reported
                yield from resource_name_problems(
                    name, (*path, alias, name), containers=item.type in ("Pod", "Container")
                )
            names[name] = None
    if item.type == "PersistentVolumeClaim" and "storage" not in {*item.min, *item.max}:
        sentence = "either minimum or maximum storage value is required, but neither was provided"
        yield required((*path, "limits"), sentence)
    for name in names:
        yield from _amounts({alias: amounts.get(name) for alias, amounts in given.items()}, name, path)


def resource_name_problems(name: str, path: Path, *, containers: bool) -> Iterator[Problem]:
    """Check the name of a resource, of containers only or of any kind (validateLimitRangeResourceName)."""
    wrong = list(formatted(path, name, qualified_name))
    yield from wrong
    if wrong or "/" in name:
        return
    if containers and name not in _CONTAINER and not name.startswith(_HUGE[0]):
        yield invalid(path, name, "must be a standard resource for containers")
    elif not containers and name not in _QUOTA | {"storage"} and not name.startswith(_HUGE):
        yield invalid(path, name, "must be a standard resource type or fully qualified")


def _amounts(given: Mapping[str, Quantity | None], name: str, path: Path) -> Iterator[Problem]:
    """Check the amounts of one resource against each other."""
    least, most, limit, request = (given.get(one) for one in ("min", "max", "default", "defaultRequest"))
    for alias, low, words, high in (
        ("min", least, "min value {} is greater than max value {}", most),
        ("defaultRequest", least, "min value {} is greater than default request value {}", request),
        ("defaultRequest", request, "default request value {} is greater than max value {}", most),
        ("defaultRequest", request, "default request value {} is greater than default limit value {}", limit),
        ("default", least, "min value {} is greater than default value {}", limit),
        ("default", limit, "default value {} is greater than max value {}", most),
    ):
        if low is not None and high is not None and low > high:
            yield invalid((*path, alias, name), str(given[alias]), words.format(low, high))
    ratio, here = given.get("maxLimitRequestRatio"), (*path, "maxLimitRequestRatio", name)
    if ratio is not None and ratio < Quantity(1):
        yield invalid(here, str(ratio), f"ratio {ratio} is less than 1")
    if ratio is not None and least is not None and most is not None and least.nanos:
        largest = Fraction(most.nanos, least.nanos)
        if ratio.exact() > largest:
            shown = Decimal(largest.numerator) / largest.denominator  # a float can be too small for it
            yield invalid(here, str(ratio), f"ratio {ratio} is greater than max/min = {shown:.6f}")
    overcommit = ("/" not in name or "kubernetes.io/" in name) and not name.startswith(_HUGE[0])
    if not overcommit and limit is not None and request is not None and limit != request:
        sentence = f"default value {limit} must equal to defaultRequest value {request} in {name}"
        yield invalid((*path, "defaultRequest", name), str(request), sentence)


def resource_quota_problems(found: ResourceQuota) -> Iterator[Problem]:
    spec, path = found.spec, ("spec",)
    yield from validate_meta(found.metadata)
    for name, amount in spec.hard.items():
        here = (*path, "hard", name)
        wrong = list(formatted(here, name, qualified_name))
        yield from wrong
        if not wrong and "/" not in name and name not in _QUOTA and not name.startswith(_HUGE):
            yield invalid(here, name, "must be a standard resource for quota")
        if amount < Quantity(0):
            yield invalid(here, str(amount), "must be greater than or equal to 0")
        elif (name in _COUNTS or _is_extended(name)) and amount.exact().denominator != 1:
            yield invalid(here, str(amount), "must be an integer")
    if spec.scopes:
        yield from _scopes(spec, spec.scopes, (*path, "scopes"), spec.scopes)
    if spec.scope_selector is not None:
        selector, here = spec.scope_selector, (*path, "scopeSelector", "matchExpressions")
        for index, requirement in enumerate(selector.match_expressions):
            yield from _requirement(requirement, (*here, index))
        names = [requirement.scope_name for requirement in selector.match_expressions]
        yield from _scopes(spec, names, here, selector.to_json())


def _is_extended(name: str) -> bool:
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")


def _scopes(spec: ResourceQuotaSpec, scopes: list[str], path: Path, shown: object) -> Iterator[Problem]:
    standard = [name for name in spec.hard if name in _QUOTA or name.startswith(_HUGE)]
    for scope in scopes:
        if scope not in SCOPES:
            yield invalid(path, scope, "unsupported scope")
        elif any(name not in SCOPES[scope] for name in standard):
            yield invalid(path, shown, "unsupported scope applied to resource")
    if any(pair <= set(scopes) for pair in _CONFLICTS):
        yield invalid(path, shown, "conflicting scopes")


def _requirement(found: ScopedResourceSelectorRequirement, path: Path) -> Iterator[Problem]:
    operator, values = found.operator, found.values
    if found.scope_name in _EXISTS_ONLY and operator != "Exists":
        scopes = ", ".join(_EXISTS_ONLY[:-1])
        sentence = f"must be 'Exists' when scope is any of {scopes} or {_EXISTS_ONLY[-1]}"
        yield invalid((*path, "operator"), operator, sentence)
    if operator in ("In", "NotIn"):
        if not values:
            sentence = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            yield required((*path, "values"), sentence)
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            sentence = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            yield invalid((*path, "values"), values, sentence)
    else:
        yield invalid((*path, "operator"), operator, "not a valid selector operator")


def resource_quota_update_problems(old: ResourceQuota, new: ResourceQuota) -> Iterator[Problem]:
    yield from immutable(sorted(old.spec.scopes), sorted(new.spec.scopes), ("spec", "scopes"))
