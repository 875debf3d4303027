"""Rules that kinds with a pod template share (Kubernetes pkg/apis/core/validation and pkg/apis/apps/validation)."""

import re
from collections.abc import Iterator

from manifests.names import percent
from manifests.problems import Path, Problem, forbidden, invalid, not_supported
from manifests.types.annotations import validate_annotations
from manifests.types.meta import LabelSelector, Model
from manifests.types.pod import PodTemplateSpec
from manifests.validation.meta import validate_annotation_keys
from manifests.validation.pod import validate_labels, validate_pod_spec, validate_selector
from manifests.validation.rules import formatted, not_negative

TEMPLATE: Path = ("spec", "template")
_NO_MATCH = "`selector` does not match template `labels`"


def template_problems(template: PodTemplateSpec, path: Path = TEMPLATE) -> Iterator[Problem]:
    """Check a template (ValidatePodTemplateSpec). Labels are reported where they are, below `metadata`."""
    meta = (*path, "metadata")
    yield from validate_labels(template.metadata.labels, (*meta, "labels"))
    yield from validate_annotation_keys(template.metadata.annotations, (*meta, "annotations"))
    yield from validate_annotations(template, (*meta, "annotations"))
    yield from validate_pod_spec(template, (*path, "spec"))


def always_running(template: PodTemplateSpec, kind: str, path: Path = TEMPLATE) -> Iterator[Problem]:
    """Check what a template must have if its pods are replaced whenever they end."""
    policy = template.spec.restart_policy or ""
    if policy in ("OnFailure", "Never"):  # any other value is reported by the rules of the pod
        yield not_supported((*path, "spec", "restartPolicy"), policy, ("Always",))
    if template.spec.active_deadline_seconds is not None:
        yield forbidden(
            (*path, "spec", "activeDeadlineSeconds"), f"activeDeadlineSeconds in {kind} is not Supported"
        )


def selector_problems(
    selector: LabelSelector, template: PodTemplateSpec, kind: str, path: Path = ("spec",)
) -> Iterator[Problem]:
    """Check a selector, that it is not empty, and that it matches the template's labels."""
    wrong = list(validate_selector(selector, (*path, "selector")))
    yield from wrong
    if not (selector.match_labels or selector.match_expressions):
        yield invalid((*path, "selector"), {}, f"empty selector is invalid for {kind}")
    elif not wrong and not selector.matches(template.metadata.labels):
        yield invalid((*path, "template", "metadata", "labels"), template.metadata.labels, _NO_MATCH)


def not_matching(template: PodTemplateSpec, path: Path = TEMPLATE) -> Problem:
    return invalid((*path, "metadata", "labels"), template.metadata.labels, _NO_MATCH)


def int_or_percent(value: int | str | None, path: Path, *, at_most_all: bool = False) -> Iterator[Problem]:
    """Check a count, or a share like 25% (ValidatePositiveIntOrPercent). `at_most_all`: no more than 100 %."""
    if isinstance(value, str):
        yield from formatted(path, value, percent)
        if at_most_all and not percent(value) and amount(value) > 100:
            yield invalid(path, value, "must not be greater than 100%")
    else:
        yield from not_negative(path, value)


def amount(value: int | str | None) -> int:
    """Return the number of a count or of a share, 0 if it has none (getIntOrPercentValue)."""
    if isinstance(value, str):
        digits = re.fullmatch("([0-9]+)%?", value)
        return int(digits[1]) if digits else 0
    return value or 0


def immutable(old: object, new: object, path: Path) -> Iterator[Problem]:
    """Check that a field did not change (ValidateImmutableField)."""
    if old != new:
        yield invalid(path, new.to_json() if isinstance(new, Model) else new, "field is immutable")
