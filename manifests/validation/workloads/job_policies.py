"""Rules of a Job's podFailurePolicy and successPolicy (Kubernetes pkg/apis/batch/validation/validation.go)."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from manifests.names import qualified_name
from manifests.problems import Path, Problem, duplicate, invalid, not_supported, required
from manifests.types.workloads.job import (
    JobSpec,
    PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
    SuccessPolicyRule,
)
from manifests.validation.rules import formatted

ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
OPERATORS = ("In", "NotIn")
STATUSES = ("False", "True", "Unknown")
_MAX_RULES, _MAX_PATTERNS, _MAX_CODES = 20, 20, 255
_MAX_INDEXES = 64 << 10  # characters of succeededIndexes


def failure_policy_problems(spec: JobSpec, path: Path) -> Iterator[Problem]:
    rules = spec.pod_failure_policy.rules if spec.pod_failure_policy is not None else []
    yield from _too_many(rules, _MAX_RULES, (*path, "rules"))
    pod = spec.template.spec
    names = {container.name for container in (*pod.containers, *pod.init_containers)}
    for index, rule in enumerate(rules):
        yield from _rule(spec, rule, (*path, "rules", index), names)


def _too_many(values: Sequence[object], most: int, path: Path) -> Iterator[Problem]:
    if len(values) > most:
        yield Problem(path, f"Too many: {len(values)}: must have at most {most} items")


def _chosen(value: str, allowed: tuple[str, ...], path: Path) -> Iterator[Problem]:
    if not value:
        listed = " ".join(f'"{one}"' for one in allowed)
        yield required(path, f"valid values: [{listed}]")
    elif value not in allowed:
        yield not_supported(path, value, allowed)


def _rule(spec: JobSpec, rule: PodFailurePolicyRule, path: Path, names: set[str]) -> Iterator[Problem]:
    if rule.action == "FailIndex" and spec.backoff_limit_per_index is None:
        yield invalid((*path, "action"), rule.action, "requires the backoffLimitPerIndex to be set")
    yield from _chosen(rule.action, ACTIONS, (*path, "action"))
    if rule.on_exit_codes is not None:
        yield from _exit_codes(rule.on_exit_codes, (*path, "onExitCodes"), names)
    yield from _conditions(rule.on_pod_conditions, (*path, "onPodConditions"))
    if rule.on_exit_codes is not None and rule.on_pod_conditions:
        sentence = "Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"
        yield Problem(path, sentence)
    if rule.on_exit_codes is None and not rule.on_pod_conditions:
        yield Problem(path, "Invalid value: specifying one of OnExitCodes and OnPodConditions is required")


def _conditions(patterns: list[PodFailurePolicyOnPodConditionsPattern], path: Path) -> Iterator[Problem]:
    yield from _too_many(patterns, _MAX_PATTERNS, path)
    for index, pattern in enumerate(patterns):
        yield from formatted((*path, index, "type"), pattern.type, qualified_name)
        yield from _chosen(pattern.status or "", STATUSES, (*path, index, "status"))


def _exit_codes(
    codes: PodFailurePolicyOnExitCodesRequirement, path: Path, names: set[str]
) -> Iterator[Problem]:
    yield from _chosen(codes.operator, OPERATORS, (*path, "operator"))
    if codes.container_name is not None and codes.container_name not in names:
        sentence = "must be one of the container or initContainer names in the pod template"
        yield invalid((*path, "containerName"), codes.container_name, sentence)
    here, values = (*path, "values"), codes.values
    if not values:
        yield invalid(here, [], "at least one value is required")
    yield from _too_many(values, _MAX_CODES, here)
    for index, value in enumerate(values):
        if codes.operator == "In" and value == 0:
            yield invalid((*here, index), value, "must not be 0 for the In operator")
        if value in values[:index]:
            yield duplicate((*here, index), value)
    if any(before > after for before, after in pairwise(values)):
        yield invalid(here, values, "must be ordered")


def success_policy_problems(spec: JobSpec, path: Path) -> Iterator[Problem]:
    """Check the policy of an indexed Job."""
    rules = spec.success_policy.rules if spec.success_policy is not None else []
    if not rules:
        sentence = "at least one rules must be specified when the successPolicy is specified"
        yield required((*path, "rules"), sentence)
    yield from _too_many(rules, _MAX_RULES, (*path, "rules"))
    if spec.completions is not None:  # reported already if it is missing
        for index, rule in enumerate(rules):
            yield from _success(rule, spec.completions, (*path, "rules", index))


def _success(rule: SuccessPolicyRule, completions: int, path: Path) -> Iterator[Problem]:
    indexes, count = rule.succeeded_indexes, rule.succeeded_count
    if count is None and indexes is None:
        sentence = "at least one of succeededCount or succeededIndexes must be specified"
        yield required(path, sentence)
    total = 0
    if indexes is not None:
        here = (*path, "succeededIndexes")
        if len(indexes) > _MAX_INDEXES:
            yield Problem(here, f"Too long: may not be more than {_MAX_INDEXES} bytes")
        try:
            total = count_indexes(indexes, completions)
        except ValueError as error:
            yield invalid(here, indexes, f"error parsing succeededIndexes: {error}")
    if count is None:
        return
    here = (*path, "succeededCount")
    if count < 0:
        yield invalid(here, count, "must be greater than or equal to 0")
    if count > completions:
        sentence = f"must be less than or equal to {completions} (the number of specified completions)"
        yield invalid(here, count, sentence)
    if indexes is not None and count > total:
        counted = "the number of indexes in the specified succeededIndexes field"
        sentence = f"must be less than or equal to {total} ({counted})"
        yield invalid(here, count, sentence)


def count_indexes(text: str, completions: int) -> int:
    """Return the number of indexes in a list such as `1,3-5`. Raises ValueError for a list that is malformed or whose
    indexes do not increase (Kubernetes: validateIndexesFormat)."""
    total, last = 0, -1
    for interval in text.split(",") if text else ():
        parts = interval.split("-")
        if len(parts) > 2:
            raise ValueError(
                f'the fragment "{interval}" violates the requirement that an index interval can have at most two '
                "parts separated by '-'"
            )
        start, end = _index(parts[0], completions), _index(parts[-1], completions)
        for before, after, proper in ((last, start, True), (start, end, len(parts) == 2)):
            if proper and before >= after:
                raise ValueError(f"non-increasing order, previous: {before}, current: {after}")
        total += end - start + 1
        last = end
    return total


def _index(text: str, completions: int) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'cannot convert string to integer for index: "{text}"')
    if int(text) >= completions:
        raise ValueError(f'too large index: "{text}"')
    return int(text)
