"""Deployments, ReplicaSets and ReplicationControllers: defaults, rules, and what an update must not change.

Rows follow Kubernetes 1.36: pkg/apis/apps/v1/defaults_test.go (TestSetDefaultDeployment, TestSetDefaultReplicaSet),
pkg/apis/core/v1/defaults_test.go (TestSetDefaultReplicationController), pkg/apis/apps/validation/validation_test.go
(TestValidateDeployment, TestValidateReplicaSet, …Update) and pkg/apis/core/validation/validation_test.go
(TestValidateReplicationController).
"""

from __future__ import annotations

from typing import Any

import pytest

from manifests.validation.workloads.kinds import workload_update_problems
from tests.unit.manifests.workloads.kit import (
    LABELS,
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
RC: Doc = {"template": TEMPLATE}
DEFAULT_TEMPLATE = {
    "metadata": {"labels": LABELS},
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "nginx:1",
                "imagePullPolicy": "IfNotPresent",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    },
}


def deployment(**changed: Any) -> Doc:
    return document("Deployment", SPEC, **changed)


def test_a_bare_deployment() -> None:
    """Field by field the result of `kubectl apply --dry-run=server`."""
    assert defaulted(deployment()) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "progressDeadlineSeconds": 600,
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "selector": SELECTOR,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            },
            "template": DEFAULT_TEMPLATE,
        },
    }


@pytest.mark.parametrize(
    ("given", "done"),
    [
        ({"spec.replicas": 0}, {"replicas": 0}),
        ({"spec.replicas": 5}, {"replicas": 5}),
        ({"spec.strategy": {"type": "Recreate"}}, {"strategy": {"type": "Recreate"}}),
        (
            {"spec.strategy": {"rollingUpdate": {"maxSurge": 0}}},
            {
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"},
                }
            },
        ),
        (
            {"spec.strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}},
            {
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0},
                }
            },
        ),
        ({"spec.progressDeadlineSeconds": 30}, {"progressDeadlineSeconds": 30}),
        ({"spec.revisionHistoryLimit": 0}, {"revisionHistoryLimit": 0}),
    ],
)
def test_what_a_deployment_sets_stays(given: Doc, done: Doc) -> None:
    spec = defaulted(deployment(**given))["spec"]
    assert {name: spec[name] for name in done} == done


def test_a_replica_set_gets_one_replica_and_a_template() -> None:
    assert defaulted(document("ReplicaSet", SPEC))["spec"] == {
        "replicas": 1,
        "selector": SELECTOR,
        "template": DEFAULT_TEMPLATE,
    }


@pytest.mark.parametrize(
    ("given", "selector", "labels"),
    [
        ({}, LABELS, LABELS),
        ({"metadata.labels": {"bar": "foo"}}, LABELS, {"bar": "foo"}),
        ({"metadata.labels": {"bar": "foo"}, "spec.selector": {"app": "web"}}, LABELS, {"bar": "foo"}),
        (
            {"spec.selector": {"a": "b"}, "spec.template.metadata.labels": {"a": "b", "c": "d"}},
            {"a": "b"},
            {"a": "b", "c": "d"},
        ),
    ],
)
def test_a_replication_controller_takes_the_labels_of_its_template(
    given: Doc, selector: Doc, labels: Doc
) -> None:
    done = defaulted(document("ReplicationController", RC, **given))
    assert done["spec"]["selector"] == selector and done["metadata"]["labels"] == labels
    assert done["spec"]["replicas"] == 1


def test_a_template_has_the_defaults_of_a_template_only() -> None:
    """Requests, the host's ports and enableServiceLinks are filled in when a pod is made (SetDefaults_Pod)."""
    given = {
        "spec.template.spec": {
            "hostNetwork": True,
            "containers": [
                {
                    "name": "c",
                    "image": "nginx",
                    "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": "0.0001", "memory": "1Gi"}},
                    "readinessProbe": {"httpGet": {"port": 80}},
                }
            ],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}],
        }
    }
    spec = defaulted(deployment(**given))["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["resources"] == {"limits": {"cpu": "1m", "memory": "1Gi"}}
    assert container["readinessProbe"]["httpGet"] == {"path": "/", "port": 80, "scheme": "HTTP"}
    assert container["imagePullPolicy"] == "Always"
    assert spec["volumes"] == [
        {"name": "v", "emptyDir": {}},
        {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
    ]
    assert "enableServiceLinks" not in spec


BOTH = ("Deployment", "ReplicaSet")
ALL = (*BOTH, "ReplicationController")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"metadata": {}}, "metadata.name: Required value"),
        ({"metadata.name": "Web"}, 'metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain'),
        ({"metadata.namespace": "a.b"}, 'metadata.namespace: Invalid value: "a.b"'),
        ({"metadata.labels": {"a": "-"}}, 'metadata.labels[a]: Invalid value: "-"'),
        ({"spec.replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"spec.replicas": "3"}, "spec.replicas: must be an integer: remove the quotes around 3"),
        (
            {"spec.minReadySeconds": -1},
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal",
        ),
        ({"spec.template": None}, "spec.template: Required value"),
        ({"spec.template.spec": None}, "spec.template.spec: Required value"),
        (
            {"spec.template.spec.restartPolicy": "Never"},
            'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
        ),
        (
            {"spec.template.spec.restartPolicy": "OnFailure"},
            'spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always"',
        ),
        (
            {"spec.template.spec.restartPolicy": "x"},
            'spec.template.spec.restartPolicy: Unsupported value: "x": supported values: "Always", "Never", "OnF',
        ),
        (
            {"spec.template.spec.activeDeadlineSeconds": 5},
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in {kind} is not Supported",
        ),
        (
            {"spec.template.spec.ephemeralContainers": [{"name": "e", "image": "x"}]},
            "spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template",
        ),
        (
            {"spec.template.spec.containers.0.image": ""},
            "spec.template.spec.containers[0].image: Required value",
        ),
        (
            {"spec.template.spec.containers.0.imagee": "x"},
            'spec.template.spec.containers[0].imagee: unknown field, did you mean "image"?',
        ),
        (
            {"spec.template.metadata.labels": {"app": "web", "x": "a b"}},
            'spec.template.metadata.labels[x]: Invalid value: "a b": a valid label must be',
        ),
        (
            {"spec.template.metadata.annotations": {"a b": "x"}},
            'spec.template.metadata.annotations[a b]: Invalid value: "a b": name part must consist',
        ),
        ({"spec.selektor": {}}, 'spec.selektor: unknown field, did you mean "selector"?'),
    ],
)
def test_rules_of_all_three(kind: str, given: Doc, sentence: str) -> None:
    own = {"metadata.labels": LABELS, **given} if kind == "ReplicationController" else given
    doc = document(kind, {"selector": LABELS, **RC} if kind == "ReplicationController" else SPEC, **own)
    one(problems(doc), sentence.replace("{kind}", kind))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"spec.selector": None}, "spec.selector: Required value"),
        ({"spec.selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for "),
        (
            {"spec.selector": {"matchLabels": {"app": "db"}}},
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `l',
        ),
        (
            {"spec.selector": {"matchLabels": {"app": "a b"}}},
            'spec.selector.matchLabels[app]: Invalid value: "a b": a valid label must be',
        ),
        (
            {"spec.selector": {"matchExpressions": [{"key": "app", "operator": "Is"}]}},
            'spec.selector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator',
        ),
        (
            {"spec.selector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a b"]}]}},
            'spec.selector.matchExpressions[0].values[0]: Invalid value: "a b": a valid label must be',
        ),
        (
            {"spec.template.metadata": None},
            "spec.template.metadata.labels: Invalid value: {}: `selector` does",
        ),
    ],
)
def test_rules_of_selectors(kind: str, given: Doc, sentence: str) -> None:
    one(problems(document(kind, SPEC, **given)), sentence)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "selector",
    [
        {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]},
        {"matchExpressions": [{"key": "other", "operator": "DoesNotExist"}]},
        {"matchLabels": LABELS, "matchExpressions": [{"key": "app", "operator": "Exists"}]},
    ],
)
def test_selectors_that_match(kind: str, selector: Doc) -> None:
    assert problems(document(kind, SPEC, **{"spec.selector": selector})) == []


def rolling(**fields: Any) -> Doc:
    return {"spec.strategy": {"type": "RollingUpdate", "rollingUpdate": fields}}


S = "spec.strategy"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"spec.strategy": {"type": "randomType"}},
            f'{S}.type: Unsupported value: "randomType": supported values: "Recreate", "RollingUpdate"',
        ),
        (
            {"spec.strategy": {"type": "Recreate", "rollingUpdate": {}}},
            f"{S}.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            rolling(maxSurge="20Percent"),
            f'{S}.rollingUpdate.maxSurge: Invalid value: "20Percent": a valid percent string must be',
        ),
        (
            rolling(maxSurge="0%", maxUnavailable=0),
            f"{S}.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            rolling(maxUnavailable="110%"),
            f'{S}.rollingUpdate.maxUnavailable: Invalid value: "110%": must not be greater than 100%',
        ),
        (rolling(maxUnavailable=-1), f"{S}.rollingUpdate.maxUnavailable: Invalid value: -1: must be greater"),
        (
            rolling(maxSurge=-1),
            f"{S}.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal",
        ),
        ({"spec.revisionHistoryLimit": -1}, "spec.revisionHistoryLimit: Invalid value: -1: must be greater"),
        (
            {"spec.progressDeadlineSeconds": 600, "spec.minReadySeconds": 600},
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ),
        (
            {"spec.progressDeadlineSeconds": 0},
            "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
        ),
    ],
)
def test_rules_of_a_deployment(given: Doc, sentence: str) -> None:
    one(problems(deployment(**given)), sentence)


@pytest.mark.parametrize(
    "given",
    [
        {},
        rolling(maxSurge="300%", maxUnavailable=0),
        rolling(maxSurge=0, maxUnavailable="100%"),
        {"spec.paused": True, "spec.revisionHistoryLimit": 0},
        {
            "spec.template.spec.hostNetwork": True,
            "spec.template.spec.containers.0.ports": [{"containerPort": 1}],
        },
    ],
)
def test_valid_deployments(given: Doc) -> None:
    assert problems(deployment(**given)) == []


def test_the_hosts_ports_of_a_template_may_be_left_out_but_not_differ() -> None:
    ports = [{"containerPort": 80, "hostPort": 81}]
    given = {"spec.template.spec.hostNetwork": True, "spec.template.spec.containers.0.ports": ports}
    one(
        problems(deployment(**given)),
        "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 80",
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"spec.selector": {"app": "db"}},
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `l',
        ),
        ({"spec.template.metadata": None}, "spec.selector: Required value"),
    ],
)
def test_rules_of_a_replication_controller(given: Doc, sentence: str) -> None:
    one(problems(document("ReplicationController", RC, **given)), sentence)


def changes(doc: Doc, **changed: Any) -> list[str]:
    (old, _), (new, wrong) = read(doc), read(altered(doc, changed))
    assert old is not None and new is not None and not wrong
    return [str(problem) for problem in workload_update_problems(old, new)]


OTHER = {"spec.selector": {"matchLabels": {"app": "db"}}, "spec.template.metadata.labels": {"app": "db"}}


@pytest.mark.parametrize("kind", BOTH)
def test_a_selector_cannot_change(kind: str) -> None:
    found = changes(document(kind, SPEC), **OTHER)
    one(found, 'spec.selector: Invalid value: {"matchLabels":{"app":"db"}}: field is immutable')


@pytest.mark.parametrize("kind", BOTH)
def test_anything_else_can_change(kind: str) -> None:
    image = {"spec.template.spec.containers.0.image": "nginx:2"}
    assert changes(document(kind, SPEC), **{"spec.replicas": 3, "metadata.labels": {"a": "b"}, **image}) == []


def test_the_selector_of_a_replication_controller_can_change() -> None:
    given = {"spec.selector": {"app": "db"}, "spec.template.metadata.labels": {"app": "db"}}
    assert changes(document("ReplicationController", RC), **given) == []
