"""What an update of a Job must not change.

Rows follow Kubernetes 1.36: TestValidateJobUpdate in pkg/apis/batch/validation/validation_test.go, and
shouldAllowMutablePodTemplate in pkg/registry/batch/job/strategy.go.
"""

from __future__ import annotations

from typing import Any

import pytest

from manifests.validation.workloads.kinds import workload_update_problems
from tests.unit.manifests.workloads.kit import Doc, altered, one, read
from tests.unit.manifests.workloads.test_jobs import INDEXED, J, cron, job


def changes(before: Doc, **changed: Any) -> list[str]:
    (old, _), (new, _) = read(before), read(altered(before, changed))
    assert old is not None and new is not None
    return [str(problem) for problem in workload_update_problems(old, new)]


IMAGE = {"spec.template.spec.containers.0.image": "busybox:2"}
FREE: Doc = {
    "spec.template.spec.nodeSelector": {"a": "b"},
    "spec.template.spec.tolerations": [{"operator": "Exists"}],
    "spec.template.metadata.labels": {"x": "y"},
    "spec.template.spec.containers.0.resources": {"requests": {"cpu": "1"}},
    "spec.template.spec.schedulingGates": [{"name": "a/b"}],
    "spec.template.spec.affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
            }
        }
    },
}
SPREAD = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}]}}


@pytest.mark.parametrize(
    ("before", "changed", "sentence"),
    [
        ({"spec.completions": 4}, {"spec.parallelism": 3, "spec.backoffLimit": 1, "spec.suspend": True}, ""),
        ({}, {"spec.parallelism": 3}, "spec.completions: Invalid value: null: field is immutable"),
        (
            {},
            {"spec.completions": 2, "spec.parallelism": 1},
            "spec.completions: Invalid value: 2: field is immu",
        ),
        (INDEXED, {"spec.completions": 6, "spec.parallelism": 6}, ""),
        (
            INDEXED,
            {"spec.completions": 6, "spec.parallelism": 5},
            "spec.completions: Invalid value: 6: can only be",
        ),
        (
            INDEXED,
            {"spec.completionMode": "NonIndexed"},
            'spec.completionMode: Invalid value: "NonIndexed": field',
        ),
        (
            {},
            {"spec.podFailurePolicy": {"rules": []}},
            'spec.podFailurePolicy: Invalid value: {"rules":[]}: field ',
        ),
        (
            INDEXED,
            {"spec.backoffLimitPerIndex": 1},
            "spec.backoffLimitPerIndex: Invalid value: 1: field is immu",
        ),
        ({}, {"spec.managedBy": "a.b/c"}, 'spec.managedBy: Invalid value: "a.b/c": field is immutable'),
        ({}, IMAGE, "spec.template: Forbidden: field is immutable: "),
        ({"spec.suspend": True}, IMAGE, "spec.template: Forbidden: field is immutable: "),
        *(
            ({}, {path: value}, "spec.template: Forbidden: field is immutable: ")
            for path, value in FREE.items()
        ),
        ({"spec.suspend": True}, FREE, ""),
        ({"spec.suspend": True, **FREE}, dict.fromkeys(FREE), ""),
        (
            {"spec.suspend": True},
            {"spec.template.spec.affinity": SPREAD},
            "spec.template: Forbidden: field is immut",
        ),
        ({"spec.suspend": True, "status.active": 1}, FREE, "spec.template: Forbidden: field is immutable: "),
        (
            {"spec.suspend": True, "status.startTime": "2026-01-01T00:00:00Z"},
            FREE,
            "spec.template: Forbidden: field is immutable: ",
        ),
        (
            {
                "spec.suspend": True,
                "status.startTime": "2026-01-01T00:00:00Z",
                "status.conditions": [{"type": "Suspended", "status": "True"}],
            },
            FREE,
            "",
        ),
    ],
)
def test_what_a_job_must_not_change(before: Doc, changed: Doc, sentence: str) -> None:
    found = changes(job(**before), **changed)
    if sentence:
        one(found, sentence)
    else:
        assert found == []


def test_a_cron_job_can_change_anything() -> None:
    changed = {"spec.schedule": "@daily", f"{J}.template.spec.containers.0.image": "x:2"}
    assert changes(cron(), **changed) == []
