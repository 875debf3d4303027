"""Rules of Deployments (Kubernetes pkg/apis/apps/validation/validation.go)."""

from collections.abc import Iterator

from manifests.problems import Path, Problem, forbidden, invalid, not_supported
from manifests.types.workloads.deployment import Deployment, DeploymentStrategy, RollingUpdateDeployment
from manifests.validation.meta import validate_meta
from manifests.validation.rules import not_negative
from manifests.validation.workloads.template import (
    always_running,
    amount,
    immutable,
    int_or_percent,
    selector_problems,
    template_problems,
)

STRATEGIES = ("Recreate", "RollingUpdate")


def deployment_problems(found: Deployment) -> Iterator[Problem]:
    spec = found.spec
    yield from validate_meta(found.metadata)
    yield from not_negative(("spec", "replicas"), spec.replicas)
    yield from selector_problems(spec.selector, spec.template, "deployment")
    yield from template_problems(spec.template)
    yield from always_running(spec.template, "Deployment")
    yield from _strategy(spec.strategy, ("spec", "strategy"))
    yield from not_negative(("spec", "minReadySeconds"), spec.min_ready_seconds)
    yield from not_negative(("spec", "revisionHistoryLimit"), spec.revision_history_limit)
    deadline = spec.progress_deadline_seconds
    yield from not_negative(("spec", "progressDeadlineSeconds"), deadline)
    if deadline is not None and deadline <= (spec.min_ready_seconds or 0):
        yield invalid(("spec", "progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds")


def deployment_update_problems(old: Deployment, new: Deployment) -> Iterator[Problem]:
    yield from immutable(old.spec.selector, new.spec.selector, ("spec", "selector"))


def _strategy(strategy: DeploymentStrategy, path: Path) -> Iterator[Problem]:
    kind, rolling = strategy.type or "", strategy.rolling_update
    if kind not in STRATEGIES:
        yield not_supported((*path, "type"), kind, STRATEGIES)
    elif kind == "Recreate" and rolling is not None:
        sentence = "may not be specified when strategy `type` is 'Recreate'"
        yield forbidden((*path, "rollingUpdate"), sentence)
    elif rolling is not None:
        yield from _rolling(rolling, (*path, "rollingUpdate"))


def _rolling(rolling: RollingUpdateDeployment, path: Path) -> Iterator[Problem]:
    unavailable, surge = rolling.max_unavailable, rolling.max_surge
    yield from int_or_percent(unavailable, (*path, "maxUnavailable"), at_most_all=True)
    yield from int_or_percent(surge, (*path, "maxSurge"))
    if amount(unavailable) == 0 and amount(surge) == 0:
        sentence = "may not be 0 when `maxSurge` is 0"
        yield invalid((*path, "maxUnavailable"), unavailable, sentence)
