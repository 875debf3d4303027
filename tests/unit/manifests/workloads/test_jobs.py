"""Jobs and CronJobs: defaults and rules.

Rows follow Kubernetes 1.36: pkg/apis/batch/v1/defaults_test.go (TestSetDefaultJob, TestSetDefaultCronJob) and
pkg/apis/batch/validation/validation_test.go (TestValidateJob, TestValidateCronJob).
"""

from __future__ import annotations

from typing import Any

import pytest

from manifests.validation.workloads.job_policies import count_indexes
from tests.unit.manifests.workloads.kit import LABELS, Doc, defaulted, document, one, problems

TEMPLATE: Doc = {
    "metadata": {"labels": LABELS},
    "spec": {"containers": [{"name": "c", "image": "busybox:1"}], "restartPolicy": "Never"},
}
SPEC: Doc = {"template": TEMPLATE}
CRON: Doc = {"schedule": "* * * * ?", "jobTemplate": {"spec": SPEC}}
INDEXED: Doc = {"spec.completionMode": "Indexed", "spec.completions": 5}
MANY = {"spec.completionMode": "Indexed", "spec.backoffLimitPerIndex": 1}
RESTART = "spec.template.spec.restartPolicy"


def job(**changed: Any) -> Doc:
    return document("Job", SPEC, **changed)


def cron(**changed: Any) -> Doc:
    return document("CronJob", CRON, **changed)


@pytest.mark.parametrize(
    ("given", "done"),
    [
        (
            {},
            {
                "completions": 1,
                "parallelism": 1,
                "backoffLimit": 6,
                "completionMode": "NonIndexed",
                "suspend": False,
                "podReplacementPolicy": "TerminatingOrFailed",
                "manualSelector": False,
            },
        ),
        ({"spec.parallelism": 0}, {"completions": None, "parallelism": 0, "backoffLimit": 6}),
        ({"spec.parallelism": 2}, {"completions": None, "parallelism": 2}),
        ({"spec.completions": 2}, {"completions": 2, "parallelism": 1}),
        ({"spec.backoffLimit": 5}, {"completions": 1, "backoffLimit": 5}),
        (
            {**INDEXED, "spec.backoffLimitPerIndex": 1},
            {"backoffLimit": 2147483647, "completionMode": "Indexed"},
        ),
        ({**INDEXED, "spec.backoffLimitPerIndex": 1, "spec.backoffLimit": 3}, {"backoffLimit": 3}),
        ({"spec.suspend": True}, {"suspend": True}),
        (
            {"spec.podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "A"}]}]}},
            {
                "podReplacementPolicy": "Failed",
                "podFailurePolicy": {
                    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "A", "status": "True"}]}]
                },
            },
        ),
        ({"spec.podReplacementPolicy": "Failed"}, {"podReplacementPolicy": "Failed"}),
    ],
)
def test_defaults_of_a_job(given: Doc, done: Doc) -> None:
    spec = defaulted(job(**given))["spec"]
    assert {name: spec.get(name) for name in done} == done


def test_a_job_takes_the_labels_of_its_template_unless_it_has_its_own() -> None:
    assert defaulted(job())["metadata"]["labels"] == LABELS
    assert defaulted(job(**{"metadata.labels": {"a": "b"}}))["metadata"]["labels"] == {"a": "b"}


def test_defaults_of_a_cron_job() -> None:
    """Its Jobs get the defaults of a Job when they are created; their pods' template has its own already."""
    spec = defaulted(cron())["spec"]
    template = spec.pop("jobTemplate")["spec"]
    assert spec == {
        "concurrencyPolicy": "Allow",
        "failedJobsHistoryLimit": 1,
        "schedule": "* * * * ?",
        "successfulJobsHistoryLimit": 3,
        "suspend": False,
    }
    assert list(template) == ["template"]
    assert template["template"]["spec"]["dnsPolicy"] == "ClusterFirst"
    own = {"spec.concurrencyPolicy": "Forbid", "spec.failedJobsHistoryLimit": 0, "spec.suspend": True}
    done = defaulted(cron(**own))["spec"]
    assert (done["concurrencyPolicy"], done["failedJobsHistoryLimit"], done["suspend"]) == ("Forbid", 0, True)


def failure(*rules: Doc) -> Doc:
    return {"spec.podFailurePolicy": {"rules": list(rules)}}


def codes(*values: int, operator: str = "In", **more: Any) -> Doc:
    return {"action": "Ignore", "onExitCodes": {"operator": operator, "values": list(values), **more}}


def success(*rules: Doc) -> Doc:
    return {**INDEXED, "spec.successPolicy": {"rules": list(rules)}}


CONDITION = {"type": "DisruptionTarget", "status": "True"}
F, G = "spec.podFailurePolicy.rules[0]", "spec.successPolicy.rules[0]"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"spec.parallelism": -1}, "spec.parallelism: Invalid value: -1: must be greater than or equal to 0"),
        ({"spec.completions": -1}, "spec.completions: Invalid value: -1: must be greater than or equal to 0"),
        ({"spec.backoffLimit": -1}, "spec.backoffLimit: Invalid value: -1: must be greater than or equal"),
        ({"spec.activeDeadlineSeconds": -1}, "spec.activeDeadlineSeconds: Invalid value: -1: must be gr"),
        ({"spec.ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished: Invalid value: -1: must be gr"),
        ({"spec.backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed c"),
        ({**INDEXED, "spec.backoffLimitPerIndex": -1}, "spec.backoffLimitPerIndex: Invalid value: -1: must"),
        (
            {**INDEXED, "spec.backoffLimitPerIndex": 1, "spec.maxFailedIndexes": 6},
            "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions",
        ),
        (
            {**INDEXED, "spec.backoffLimitPerIndex": 1, "spec.maxFailedIndexes": -1},
            "spec.maxFailedIndexes: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {**INDEXED, "spec.maxFailedIndexes": 2},
            "spec.backoffLimitPerIndex: Required value: when maxFailed",
        ),
        (
            {**MANY, "spec.completions": 100_001},
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
        ),
        (
            {**MANY, "spec.completions": 100_001, "spec.maxFailedIndexes": 1, "spec.parallelism": 50_000},
            "spec.parallelism: Invalid value: 50000: must be less than or equal to 10000 when completions are above",
        ),
        (
            {**MANY, "spec.completions": 100_001, "spec.maxFailedIndexes": 50_000},
            "spec.maxFailedIndexes: Invalid value: 50000: must be less than or equal to 10000 when completions are",
        ),
        (
            {**INDEXED, "spec.parallelism": 100_001},
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is",
        ),
        (
            {"spec.completionMode": "Indexed", "spec.parallelism": 1},
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            {"spec.completionMode": "x"},
            'spec.completionMode: Unsupported value: "x": supported values: "Indexed", "NonIndexed"',
        ),
        (
            {**INDEXED, "metadata.name": "a" * 62},
            f'metadata.name: Invalid value: "{"a" * 62}": will not able to create pod with invalid DNS label: ',
        ),
        ({"spec.managedBy": ""}, "spec.managedBy: Required value"),
        (
            {"spec.managedBy": "x y"},
            'spec.managedBy: Invalid value: "x y": must be a domain-prefixed path (such',
        ),
        ({"spec.managedBy": "a.b/x y"}, 'spec.managedBy: Invalid value: "x y": Invalid path'),
        ({"spec.managedBy": f"a.b/{'x' * 60}"}, "spec.managedBy: Too long: may not be more than 63 bytes"),
        (
            {"spec.podReplacementPolicy": ""},
            'spec.podReplacementPolicy: Unsupported value: "": supported values: "Failed", "TerminatingOrFailed"',
        ),
        (
            {**failure(codes(1)), "spec.podReplacementPolicy": "TerminatingOrFailed"},
            'spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"',
        ),
        ({RESTART: None}, f'{RESTART}: Required value: valid values: "OnFailure", "Never"'),
        ({RESTART: "Always"}, f'{RESTART}: Required value: valid values: "OnFailure", "Never"'),
        ({RESTART: "Invalid"}, f'{RESTART}: Unsupported value: "Invalid"'),
        (
            {**failure(codes(1)), RESTART: "OnFailure"},
            f'{RESTART}: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified',
        ),
        ({"spec.template.spec.containers": []}, "spec.template.spec.containers: Required value"),
    ],
)
def test_rules_of_a_job(given: Doc, sentence: str) -> None:
    one(problems(job(**given)), sentence)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            failure({"action": "Ignore"}),
            f"{F}: Invalid value: specifying one of OnExitCodes and OnPodConditions",
        ),
        (
            failure({**codes(1), "onPodConditions": [CONDITION]}),
            f"{F}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
        ),
        (failure(codes(11, 11)), f"{F}.onExitCodes.values[1]: Duplicate value: 11"),
        (failure(codes(19, 11)), f"{F}.onExitCodes.values: Invalid value: [19,11]: must be ordered"),
        (failure(codes()), f"{F}.onExitCodes.values: Invalid value: []: at least one value is required"),
        (
            failure(codes(*range(1, 257))),
            f"{F}.onExitCodes.values: Too many: 256: must have at most 255 items",
        ),
        (
            failure(codes(0)),
            f"{F}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
        ),
        (
            failure(codes(1, containerName="xyz")),
            f'{F}.onExitCodes.containerName: Invalid value: "xyz": must be one of the container or initContainer',
        ),
        (
            failure(codes(1, operator="")),
            f'{F}.onExitCodes.operator: Required value: valid values: ["In" "NotIn"]',
        ),
        (
            failure(codes(1, operator="x")),
            f'{F}.onExitCodes.operator: Unsupported value: "x": supported values: "In", "NotIn"',
        ),
        (failure(*[codes(1)] * 21), "spec.podFailurePolicy.rules: Too many: 21: must have at most 20 items"),
        (
            failure({"action": "Ignore", "onPodConditions": [CONDITION] * 21}),
            f"{F}.onPodConditions: Too many: 21: must have at most 20 items",
        ),
        (
            failure({**codes(1), "action": ""}),
            f'{F}.action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]',
        ),
        (
            failure({**codes(1), "action": "x"}),
            f'{F}.action: Unsupported value: "x": supported values: "Count", ',
        ),
        (
            failure({**codes(1), "action": "FailIndex"}),
            f'{F}.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set',
        ),
        (
            failure({"action": "Ignore", "onPodConditions": [{"type": "A", "status": "x"}]}),
            f'{F}.onPodConditions[0].status: Unsupported value: "x": supported values: "False", "True", "Unknown"',
        ),
        (
            failure({"action": "Ignore", "onPodConditions": [{"type": "A B", "status": "True"}]}),
            f'{F}.onPodConditions[0].type: Invalid value: "A B": name part must consist of',
        ),
        (
            {"spec.successPolicy": {"rules": []}},
            'spec.successPolicy: Invalid value: {"rules":[]}: requires indexed completion mode',
        ),
        (
            success(),
            "spec.successPolicy.rules: Required value: at least one rules must be specified when the",
        ),
        (
            success({}),
            f"{G}: Required value: at least one of succeededCount or succeededIndexes must be specified",
        ),
        (
            success({"succeededIndexes": "invalid-format"}),
            f'{G}.succeededIndexes: Invalid value: "invalid-format": error parsing succeededIndexes: cannot convert '
            'string to integer for index: "invalid"',
        ),
        (
            success({"succeededCount": -1}),
            f"{G}.succeededCount: Invalid value: -1: must be greater than or equal",
        ),
        (
            success({"succeededCount": 6}),
            f"{G}.succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified com",
        ),
        (
            success({"succeededCount": 4, "succeededIndexes": "0-2"}),
            f"{G}.succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the",
        ),
        (
            success(*[{"succeededCount": 1}] * 21),
            "spec.successPolicy.rules: Too many: 21: must have at most 20",
        ),
    ],
)
def test_rules_of_its_policies(given: Doc, sentence: str) -> None:
    one(problems(job(**given)), sentence)


@pytest.mark.parametrize(
    "given",
    [
        success({"succeededCount": 1, "succeededIndexes": "0,2-4"}, {"succeededIndexes": "1,3"}),
        failure(codes(-1, 1, 5, operator="NotIn", containerName="c")),
        failure({"action": "Count", "onPodConditions": [CONDITION]}),
        {**INDEXED, "spec.backoffLimitPerIndex": 1, **failure({**codes(1), "action": "FailIndex"})},
        {"spec.managedBy": "example.com/foo"},
        {**MANY, "spec.completions": 100_000, "spec.parallelism": 100_000, "spec.maxFailedIndexes": 100_000},
        {**MANY, "spec.completions": 1_000_000, "spec.parallelism": 10_000, "spec.maxFailedIndexes": 10_000},
        {"spec.manualSelector": True, "spec.selector": {"matchLabels": LABELS}},
        {RESTART: "OnFailure"},
        {**INDEXED, "spec.completions": 0},
    ],
)
def test_valid_jobs(given: Doc) -> None:
    assert problems(job(**given)) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"spec.manualSelector": True}, "spec.selector: Required value"),
        (
            {"spec.manualSelector": True, "spec.selector": {"matchLabels": {"y": "z"}}},
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template',
        ),
        (
            {"spec.selector": {"matchLabels": {"a": "b"}}},
            'spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: `selector` not auto-generated',
        ),
        (
            {"spec.template.metadata.labels": {"job-name": "other"}},
            "spec.template.metadata.labels[job-name]: Invalid value: \"other\": must be 'web'",
        ),
        (
            {"spec.template.metadata.labels": {"batch.kubernetes.io/controller-uid": "x"}},
            'spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: Invalid value: "x": is generated by',
        ),
    ],
)
def test_selectors_are_generated_or_manual(given: Doc, sentence: str) -> None:
    one(problems(job(**given)), sentence)


def test_a_generated_selector_is_valid() -> None:
    own = {"batch.kubernetes.io/controller-uid": "1a2b3c", "controller-uid": "1a2b3c", "job-name": "web"}
    given = {
        "metadata.uid": "1a2b3c",
        "spec.selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "1a2b3c"}},
        "spec.template.metadata.labels": own,
    }
    assert problems(job(**given)) == []
    one(
        problems(job(**{**given, "spec.selector": {"matchLabels": {"controller-uid": "no"}}})),
        "spec.selector: Inv",
    )


@pytest.mark.parametrize(
    ("text", "completions", "expected"),
    [
        ("", 5, 0),
        ("0", 5, 1),
        ("0-4", 5, 5),
        ("0,2-3,4", 5, 4),
        (
            "0-1-2",
            5,
            'the fragment "0-1-2" violates the requirement that an index interval can have at most two',
        ),
        ("5", 5, 'too large index: "5"'),
        ("1-5", 5, 'too large index: "5"'),
        ("1,1", 5, "non-increasing order, previous: 1, current: 1"),
        ("2,1", 5, "non-increasing order, previous: 2, current: 1"),
        ("2-2", 5, "non-increasing order, previous: 2, current: 2"),
        ("3-1", 5, "non-increasing order, previous: 3, current: 1"),
        ("a", 5, 'cannot convert string to integer for index: "a"'),
        ("1,", 5, 'cannot convert string to integer for index: ""'),
    ],
)
def test_lists_of_indexes(text: str, completions: int, expected: int | str) -> None:
    """Kubernetes: validateIndexesFormat, and TestValidateIndexesFormat's cases."""
    if isinstance(expected, int):
        assert count_indexes(text, completions) == expected
        return
    with pytest.raises(ValueError) as failed:
        count_indexes(text, completions)
    assert str(failed.value).startswith(expected)


J = "spec.jobTemplate.spec"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"spec.schedule": ""}, "spec.schedule: Required value"),
        (
            {"spec.schedule": "error"},
            'spec.schedule: Invalid value: "error": expected exactly 5 fields, found 1: [er',
        ),
        (
            {"spec.schedule": "TZ=UTC 0 * * * *"},
            'spec.schedule: Invalid value: "TZ=UTC 0 * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone',
        ),
        ({"spec.timeZone": ""}, 'spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string'),
        (
            {"spec.timeZone": "LOCAL"},
            'spec.timeZone: Invalid value: "LOCAL": timeZone must be an explicit time zone',
        ),
        ({"spec.timeZone": " A/Zone"}, 'spec.timeZone: Invalid value: " A/Zone": unknown time zone  A/Zone'),
        ({"spec.timeZone": "A/Zone"}, 'spec.timeZone: Invalid value: "A/Zone": unknown time zone A/Zone'),
        ({"spec.timeZone": "../etc"}, 'spec.timeZone: Invalid value: "../etc": unknown time zone ../etc'),
        ({"spec.timeZone": "-A"}, 'spec.timeZone: Invalid value: "-A": unknown time zone -A'),
        ({"spec.timeZone": " "}, 'spec.timeZone: Invalid value: " ": unknown time zone  '),
        (
            {"spec.startingDeadlineSeconds": -1},
            "spec.startingDeadlineSeconds: Invalid value: -1: must be greater",
        ),
        (
            {"spec.successfulJobsHistoryLimit": -1},
            "spec.successfulJobsHistoryLimit: Invalid value: -1: must be gr",
        ),
        (
            {"spec.failedJobsHistoryLimit": -1},
            "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater",
        ),
        (
            {"spec.concurrencyPolicy": "x"},
            'spec.concurrencyPolicy: Unsupported value: "x": supported values: "Allow", "Forbid", "Replace"',
        ),
        ({f"{J}.parallelism": -1}, f"{J}.parallelism: Invalid value: -1: must be greater than or equal to 0"),
        (
            {f"{J}.selector": {"matchLabels": {"a": "b"}}},
            f'{J}.selector: Invalid value: {{"matchLabels":{{"a":"b"}}}}: `selector` will be auto-generated',
        ),
        (
            {f"{J}.manualSelector": True},
            f'{J}.manualSelector: Unsupported value: "true": supported values: "false"',
        ),
        (
            {f"{J}.template.spec.restartPolicy": None},
            f"{J}.template.spec.restartPolicy: Required value: valid val",
        ),
        (
            {f"{J}.template.spec.containers.0.image": ""},
            f"{J}.template.spec.containers[0].image: Required value",
        ),
        (
            {"metadata.name": "a" * 53},
            f'metadata.name: Invalid value: "{"a" * 53}": must be no more than 52 char',
        ),
        ({"spec.jobTemplate": None}, "spec.jobTemplate: Required value"),
    ],
)
def test_rules_of_a_cron_job(given: Doc, sentence: str) -> None:
    one(problems(cron(**given)), sentence)


@pytest.mark.parametrize(
    "given",
    [{"spec.schedule": "@hourly"}, {"spec.timeZone": "UTC"}, {"metadata.name": "a" * 52}],
)
def test_valid_cron_jobs(given: Doc) -> None:
    assert problems(cron(**given)) == []
