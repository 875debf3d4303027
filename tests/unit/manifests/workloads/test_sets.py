"""StatefulSets, DaemonSets and ControllerRevisions: defaults, rules, and what an update must not change.

Rows follow Kubernetes 1.36: pkg/apis/apps/v1/defaults_test.go (TestSetDefaultStatefulSet, TestSetDefaultDaemonSetSpec)
and pkg/apis/apps/validation/validation_test.go (TestValidateStatefulSet, TestValidateStatefulSetUpdate,
TestValidateDaemonSet, TestDaemonSetUpdateMaxSurge, TestValidateControllerRevision).
"""

from __future__ import annotations

from typing import Any

import pytest

from manifests.validation.workloads.kinds import workload_update_problems
from tests.unit.manifests.workloads.kit import (
    SELECTOR,
    TEMPLATE,
    Doc,
    altered,
    defaulted,
    document,
    one,
    problems,
    read,
)

SPEC: Doc = {"selector": SELECTOR, "template": TEMPLATE}
BOTH = ("StatefulSet", "DaemonSet")
CLAIM: Doc = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
CLAIMS: Doc = {"spec.volumeClaimTemplates": [CLAIM]}
MOUNTS: Doc = {"spec.template.spec.containers.0.volumeMounts": [{"name": "data", "mountPath": "/data"}]}
RETAIN = {"whenDeleted": "Retain", "whenScaled": "Retain"}


def stateful(**changed: Any) -> Doc:
    return document("StatefulSet", SPEC, **changed)


def daemon(**changed: Any) -> Doc:
    return document("DaemonSet", SPEC, **changed)


@pytest.mark.parametrize(
    ("given", "done"),
    [
        (
            {},
            {
                "replicas": 1,
                "revisionHistoryLimit": 10,
                "podManagementPolicy": "OrderedReady",
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "persistentVolumeClaimRetentionPolicy": RETAIN,
            },
        ),
        ({"spec.updateStrategy": {"type": "OnDelete"}}, {"updateStrategy": {"type": "OnDelete"}}),
        ({"spec.updateStrategy": {"type": "RollingUpdate"}}, {"updateStrategy": {"type": "RollingUpdate"}}),
        (
            {"spec.updateStrategy": {"rollingUpdate": {"partition": 42}}},
            {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 42}}},
        ),
        (
            {"spec.updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}},
            {
                "updateStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": "50%", "partition": 0},
                }
            },
        ),
        ({"spec.podManagementPolicy": "Parallel"}, {"podManagementPolicy": "Parallel"}),
        (
            {"spec.persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}},
            {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"}},
        ),
        (
            {"spec.persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}},
            {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}},
        ),
        ({"spec.ordinals": {}}, {"ordinals": {"start": 0}}),
    ],
)
def test_defaults_of_a_stateful_set(given: Doc, done: Doc) -> None:
    spec = defaulted(stateful(**given))["spec"]
    assert {name: spec[name] for name in done} == done
    assert spec["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


def test_claims_have_their_defaults() -> None:
    (claim,) = defaulted(stateful(**CLAIMS))["spec"]["volumeClaimTemplates"]
    assert claim == {"metadata": {"name": "data"}, "spec": {**CLAIM["spec"], "volumeMode": "Filesystem"}}


@pytest.mark.parametrize(
    ("given", "done"),
    [
        (
            {},
            {
                "revisionHistoryLimit": 10,
                "updateStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
                },
            },
        ),
        ({"spec.revisionHistoryLimit": 1}, {"revisionHistoryLimit": 1}),
        ({"spec.updateStrategy": {"type": "OnDelete"}}, {"updateStrategy": {"type": "OnDelete"}}),
        (
            {"spec.updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
            {
                "updateStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
                }
            },
        ),
    ],
)
def test_defaults_of_a_daemon_set(given: Doc, done: Doc) -> None:
    spec = defaulted(daemon(**given))["spec"]
    assert {name: spec[name] for name in done} == done
    assert spec["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"metadata": {}}, "metadata.name: Required value"),
        ({"spec.selector": None}, "spec.selector: Required value"),
        ({"spec.selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for {kind}"),
        (
            {"spec.selector": {"matchLabels": {"foo": "bar"}}},
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template',
        ),
        ({"spec.template": None}, "spec.template: Required value"),
        ({"metadata.labels": {"A=B": "bar"}}, 'metadata.labels[A=B]: Invalid value: "A=B": name part must'),
        (
            {"metadata.annotations": {"A=B": "bar"}},
            'metadata.annotations[A=B]: Invalid value: "A=B": name part',
        ),
        *(
            (
                {"spec.template.spec.restartPolicy": policy},
                f'spec.template.spec.restartPolicy: Unsupported value: "{policy}": supported values: "Always"',
            )
            for policy in ("OnFailure", "Never")
        ),
        (
            {"spec.template.spec.activeDeadlineSeconds": 100},
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in {Kind} is not Supported",
        ),
        (
            {"spec.template.spec.ephemeralContainers": [{"name": "debug", "image": "x"}]},
            "spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template",
        ),
        ({"spec.template.spec.containers": []}, "spec.template.spec.containers: Required value"),
        (
            {"spec.minReadySeconds": -1},
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal",
        ),
    ],
)
def test_rules_of_both(kind: str, given: Doc, sentence: str) -> None:
    words = sentence.replace("{kind}", kind.lower()).replace("{Kind}", kind)
    one(problems(document(kind, SPEC, **given)), words)


U, P = "spec.updateStrategy", "spec.persistentVolumeClaimRetentionPolicy"


def rolling(**fields: Any) -> Doc:
    return {U: {"type": "RollingUpdate", "rollingUpdate": fields}}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"metadata.name": "abc.123"}, 'metadata.name: Invalid value: "abc.123": a lowercase RFC 1123 label'),
        ({"metadata.name": "a" * 64}, f'metadata.name: Invalid value: "{"a" * 64}": must be no more than 63'),
        ({"spec.replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({U: {"type": "foo"}}, f"""{U}.type: Invalid value: "foo": must be 'RollingUpdate' or 'OnDelete'"""),
        (
            {U: {"type": "OnDelete", "rollingUpdate": {"partition": 1}}},
            f"{U}.rollingUpdate: Invalid value: {{\"partition\":1}}: only allowed for updateStrategy 'RollingUpdate'",
        ),
        (rolling(partition=-1), f"{U}.rollingUpdate.partition: Invalid value: -1: must be greater than or"),
        (rolling(maxUnavailable=0), f"{U}.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"),
        (rolling(maxUnavailable="0%"), f'{U}.rollingUpdate.maxUnavailable: Invalid value: "0%": cannot be 0'),
        (
            rolling(maxUnavailable="101%"),
            f'{U}.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
        ),
        (
            {"spec.podManagementPolicy": "foo"},
            "spec.podManagementPolicy: Invalid value: \"foo\": must be 'OrderedReady' or 'Parallel'",
        ),
        (
            {P: {"whenDeleted": "x"}},
            f'{P}.whenDeleted: Unsupported value: "x": supported values: "Delete", "Ret',
        ),
        (
            {P: {"whenScaled": "x"}},
            f'{P}.whenScaled: Unsupported value: "x": supported values: "Delete", "Ret',
        ),
        ({"spec.ordinals": {"start": -2}}, "spec.ordinals.start: Invalid value: -2: must be greater than or"),
        ({"spec.serviceName": "A.b"}, 'spec.serviceName: Invalid value: "A.b": a lowercase RFC 1123 label'),
        (MOUNTS, 'spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"'),
        (
            altered(CLAIMS, {})
            | {"spec.volumeClaimTemplates": [{**CLAIM, "spec": {"accessModes": ["ReadWriteOnce"]}}]},
            "spec.volumeClaimTemplates[0].spec.resources.requests[storage]: Required value",
        ),
        (
            {"spec.volumeClaimTemplates": [CLAIM, {**CLAIM, "metadata": {"name": "A"}}]},
            'spec.volumeClaimTemplates[1].metadata.name: Invalid value: "A": a lowercase RFC 1123 label',
        ),
        (
            {"spec.volumeClaimTemplates": [{**CLAIM, "metadata": {}}]},
            "spec.volumeClaimTemplates[0].metadata.name: Required value",
        ),
    ],
)
def test_rules_of_a_stateful_set(given: Doc, sentence: str) -> None:
    one(problems(stateful(**given)), sentence)


@pytest.mark.parametrize(
    "given",
    [
        {"metadata.name": "abc-123"},
        rolling(partition=2, maxUnavailable=2),
        {U: {"type": "RollingUpdate"}},
        {P: {"whenDeleted": "Delete"}},
        {"spec.ordinals": {"start": 2}},
        {"spec.template.spec.subdomain": "No=", "spec.template.spec.hostname": "No="},
        {**CLAIMS, **MOUNTS},
        {**CLAIMS, **MOUNTS, "spec.template.spec.volumes": [{"name": "data"}, {"name": "other"}]},
        {"spec.serviceName": "db"},
    ],
)
def test_valid_stateful_sets(given: Doc) -> None:
    assert problems(stateful(**given)) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {U: {"type": "foo"}},
            f'{U}.type: Unsupported value: "foo": supported values: "OnDelete", "RollingUp',
        ),
        (
            rolling(maxUnavailable=0),
            f"{U}.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSur",
        ),
        (
            rolling(maxUnavailable="0%"),
            f"{U}.rollingUpdate.maxUnavailable: Required value: cannot be 0 when max",
        ),
        (
            rolling(maxUnavailable=0, maxSurge="0%"),
            f"{U}.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
        ),
        (
            rolling(maxUnavailable="101%"),
            f'{U}.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
        ),
        (
            rolling(maxUnavailable=0, maxSurge="101%"),
            f'{U}.rollingUpdate.maxSurge: Invalid value: "101%": must not be greater than 100%',
        ),
        (
            rolling(maxUnavailable="1%", maxSurge="1%"),
            f'{U}.rollingUpdate.maxSurge: Invalid value: "1%": may not be set when maxUnavailable is non-zero',
        ),
        (
            rolling(maxSurge=1),
            f"{U}.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable",
        ),
        (
            rolling(maxUnavailable="x"),
            f'{U}.rollingUpdate.maxUnavailable: Invalid value: "x": a valid percent st',
        ),
        ({"spec.revisionHistoryLimit": -1}, "spec.revisionHistoryLimit: Invalid value: -1: must be greater"),
    ],
)
def test_rules_of_a_daemon_set(given: Doc, sentence: str) -> None:
    one(problems(daemon(**given)), sentence)


@pytest.mark.parametrize(
    "given",
    [
        rolling(maxUnavailable=1),
        rolling(maxUnavailable="1%"),
        rolling(maxUnavailable="100%"),
        rolling(maxUnavailable=0, maxSurge=1),
        rolling(maxUnavailable=0, maxSurge="100%"),
        {U: {"type": "OnDelete"}},
    ],
)
def test_valid_daemon_sets(given: Doc) -> None:
    assert problems(daemon(**given)) == []


def changes(before: Doc, **changed: Any) -> list[str]:
    (old, _), (new, _) = read(before), read(altered(before, changed))
    assert old is not None and new is not None
    return [str(problem) for problem in workload_update_problems(old, new)]


FORBIDDEN = "Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template',"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {
                "spec.replicas": 3,
                "spec.ordinals": {"start": 1},
                "spec.template.spec.containers.0.image": "x:2",
                U: {"type": "OnDelete"},
                "spec.revisionHistoryLimit": 1,
                P: {"whenDeleted": "Delete"},
                "spec.minReadySeconds": 5,
            },
            "",
        ),
        ({"spec.serviceName": "db"}, f"spec.serviceName: {FORBIDDEN}"),
        ({"spec.podManagementPolicy": "Parallel"}, f"spec.podManagementPolicy: {FORBIDDEN}"),
        (CLAIMS, f"spec.volumeClaimTemplates: {FORBIDDEN}"),
        (
            {"spec.selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}},
            f"spec.selector: {FORBIDDEN}",
        ),
    ],
)
def test_what_a_stateful_set_must_not_change(changed: Doc, sentence: str) -> None:
    found = changes(stateful(), **changed)
    if sentence:
        one(found, sentence)
    else:
        assert found == []


def test_the_selector_of_a_daemon_set_cannot_change() -> None:
    other = {"spec.selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}
    one(changes(daemon(), **other), "spec.selector: Invalid value: ")
    assert changes(daemon(), **{"spec.template.spec.containers.0.image": "x:2"}) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, ""),
        ({"revision": -1}, "revision: Invalid value: -1: must be greater than or equal to 0"),
        ({"revision": None}, "revision: Required value"),
        ({"data": None}, "data: Required value: data is mandatory"),
        ({"data": True}, "data: must be a map of fields, got true"),
        ({"data": []}, "data: must be a map of fields, got a list"),
        ({"metadata": {}}, "metadata.name: Required value"),
        ({"metadata.namespace": "A="}, 'metadata.namespace: Invalid value: "A="'),
    ],
)
def test_rules_of_a_controller_revision(given: Doc, sentence: str) -> None:
    doc = altered({**document("ControllerRevision", None), "data": {}, "revision": 1}, given)
    if sentence:
        one(problems(doc), sentence)
    else:
        assert problems(doc) == []


def test_the_data_of_a_controller_revision_cannot_change() -> None:
    doc = {**document("ControllerRevision", None), "data": {"a": 1}, "revision": 1}
    one(changes(doc, data={"a": 2}), 'data: Invalid value: {"a":2}: field is immutable')
    assert changes(doc, revision=2) == []
