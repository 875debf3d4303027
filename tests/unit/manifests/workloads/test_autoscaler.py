"""HorizontalPodAutoscalers: defaults, rules, and the conversion from autoscaling/v1.

Rows follow Kubernetes 1.36: pkg/apis/autoscaling/v2/defaults_test.go (TestGenerateScaleUpRules, …ScaleDownRules,
TestHorizontalPodAutoscalerAnnotations), pkg/apis/autoscaling/v1/conversion.go and
pkg/apis/autoscaling/validation/validation_test.go (TestValidateHorizontalPodAutoscaler, TestValidateBehavior).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.manifests.workloads.kit import Doc, altered, defaulted, document, one, problems

SPEC: Doc = {
    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
    "maxReplicas": 5,
}
CPU: Doc = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}
PERCENT = {"type": "Percent", "value": 100, "periodSeconds": 15}
PODS = {"type": "Pods", "value": 4, "periodSeconds": 15}
UP = {"policies": [PODS, PERCENT], "selectPolicy": "Max", "stabilizationWindowSeconds": 0}
DOWN = {"policies": [PERCENT], "selectPolicy": "Max"}


def hpa(**changed: Any) -> Doc:
    return document("HorizontalPodAutoscaler", SPEC, **changed)


@pytest.mark.parametrize(
    ("given", "done"),
    [
        ({}, {"minReplicas": 1, "metrics": [CPU]}),
        ({"spec.minReplicas": 2}, {"minReplicas": 2}),
        ({"spec.behavior": {}}, {"behavior": {"scaleUp": UP, "scaleDown": DOWN}}),
        (
            {"spec.behavior": {"scaleUp": {"stabilizationWindowSeconds": 5}}},
            {"behavior": {"scaleUp": {**UP, "stabilizationWindowSeconds": 5}, "scaleDown": DOWN}},
        ),
        (
            {"spec.behavior": {"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min"}}},
            {
                "behavior": {
                    "scaleUp": UP,
                    "scaleDown": {**DOWN, "stabilizationWindowSeconds": 0, "selectPolicy": "Min"},
                }
            },
        ),
        (
            {"spec.behavior": {"scaleUp": {"policies": [PODS], "tolerance": "0.5"}}},
            {"behavior": {"scaleUp": {**UP, "policies": [PODS], "tolerance": "500m"}, "scaleDown": DOWN}},
        ),
    ],
)
def test_defaults(given: Doc, done: Doc) -> None:
    spec = defaulted(hpa(**given))["spec"]
    assert {name: spec[name] for name in done} == done
    assert "behavior" in given or "spec.behavior" in given or "behavior" not in spec


def v1(**changed: Any) -> Doc:
    return altered({**document("HorizontalPodAutoscaler", SPEC), "apiVersion": "autoscaling/v1"}, changed)


def test_the_first_version_is_stored_as_the_second() -> None:
    done = defaulted(v1(**{"spec.targetCPUUtilizationPercentage": 50, "status.currentReplicas": 3}))
    share = {"resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
    assert done == {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {**SPEC, "minReplicas": 1, "metrics": [{"type": "Resource", **share}]},
    }
    assert defaulted(v1())["spec"]["metrics"] == [CPU]


def test_errors_of_the_first_version() -> None:
    one(problems(v1(**{"spec.metrics": []})), "spec.metrics: unknown field")
    one(
        problems(v1(**{"spec.maxReplicas": 0})),
        "spec.maxReplicas: Required value: must be set and greater than 0",
    )
    found = problems(v1(**{"spec.targetCPUUtilizationPercentage": 0}))
    one(found, "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0")


def metric(**spec: Any) -> Doc:
    return {"spec.metrics": [spec]}


def cpu(target: Doc, **more: Any) -> Doc:
    return metric(type="Resource", resource={"name": "cpu", "target": target, **more})


def behavior(**rules: Any) -> Doc:
    return {"spec.behavior": {"scaleDown": {"policies": [PERCENT], **rules}}}


M, R, B = "spec.metrics[0]", "spec.metrics[0].resource", "spec.behavior.scaleDown"
VALUE = {"type": "Value", "value": "1"}
AVERAGE = {"type": "AverageValue", "averageValue": "1"}
THING = {"apiVersion": "v1", "kind": "Service", "name": "x"}
NAMED = {"name": "hits"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"spec.minReplicas": -1}, "spec.minReplicas: Invalid value: -1: must be greater than or equal to 1"),
        ({"spec.minReplicas": 0}, "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"),
        ({"spec.maxReplicas": 0}, "spec.maxReplicas: Required value: must be set and greater than 0"),
        ({"spec.maxReplicas": None}, "spec.maxReplicas: Required value"),
        ({"spec.maxReplicas": -1}, "spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1"),
        (
            {"spec.minReplicas": 7},
            "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minRepl",
        ),
        ({"spec.scaleTargetRef.kind": ""}, "spec.scaleTargetRef.kind: Required value"),
        (
            {"spec.scaleTargetRef.kind": ".."},
            "spec.scaleTargetRef.kind: Invalid value: \"..\": may not be '..'",
        ),
        ({"spec.scaleTargetRef.name": ""}, "spec.scaleTargetRef.name: Required value"),
        (
            {"spec.scaleTargetRef.name": "a/b"},
            "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
        ),
        (
            {"spec.scaleTargetRef.apiVersion": None},
            'spec.scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group',
        ),
        (
            {"spec.scaleTargetRef.apiVersion": "a/b/c"},
            'spec.scaleTargetRef.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c',
        ),
        (
            behavior(stabilizationWindowSeconds=-1),
            f"{B}.stabilizationWindowSeconds: Invalid value: -1: must be gr",
        ),
        (
            behavior(stabilizationWindowSeconds=3601),
            f"{B}.stabilizationWindowSeconds: Invalid value: 3601: must be le",
        ),
        (
            behavior(selectPolicy="x"),
            f'{B}.selectPolicy: Unsupported value: "x": supported values: "Disabled", "Max"',
        ),
        (behavior(policies=[]), f"{B}.policies: Required value: must specify at least one Policy"),
        (behavior(tolerance="-1"), f'{B}.tolerance: Invalid value: "-1": must be greater than or equal to 0'),
        (
            behavior(policies=[{**PERCENT, "type": "x"}]),
            f'{B}.policies[0].type: Unsupported value: "x": supported values: "Percent", "Pods"',
        ),
        (
            behavior(policies=[{**PODS, "value": 0}]),
            f"{B}.policies[0].value: Invalid value: 0: must be greater than z",
        ),
        (
            behavior(policies=[{**PODS, "periodSeconds": 0}]),
            f"{B}.policies[0].periodSeconds: Invalid value: 0: must",
        ),
        (
            behavior(policies=[{**PODS, "periodSeconds": 1801}]),
            f"{B}.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ),
        (metric(type=""), f"{M}.type: Required value: must specify a metric source type"),
        (
            metric(type="x"),
            f'{M}.type: Unsupported value: "x": supported values: "ContainerResource", "External"',
        ),
        (
            metric(type="Pods"),
            f"{M}.pods: Required value: must populate information for the given metric source",
        ),
        (
            metric(type="Pods", pods={"metric": NAMED, "target": AVERAGE}, resource=CPU["resource"]),
            f"{M}.resource: Forbidden: must populate the given metric source only",
        ),
        (
            cpu({"type": ""} | {"averageValue": "1"}),
            f"{R}.target.type: Required value: must specify a metric target",
        ),
        (
            cpu({"type": "x", "averageValue": "1"}),
            f'{R}.target.type: Invalid value: "x": must be either Utilization',
        ),
        (cpu(AVERAGE, name=""), f"{R}.name: Required value: must specify a resource name"),
        (
            cpu({"type": "Utilization"}),
            f"{R}.target.averageUtilization: Required value: must set either a target raw",
        ),
        (
            cpu({"type": "Utilization", "averageUtilization": 50, "averageValue": "1"}),
            f"{R}.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
        ),
        (
            cpu({"type": "Utilization", "averageUtilization": -10}),
            f"{R}.target.averageUtilization: Invalid value: -10: must be greater than 0",
        ),
        (
            cpu({"type": "AverageValue", "averageValue": "0"}),
            f'{R}.target.averageValue: Invalid value: "0": must be positive',
        ),
        (
            metric(
                type="ContainerResource",
                containerResource={"name": "cpu", "container": "", "target": AVERAGE},
            ),
            f"{M}.containerResource.container: Required value: must specify a container",
        ),
        (
            metric(
                type="ContainerResource",
                containerResource={"name": "foo", "container": "c", "target": AVERAGE},
            ),
            f'{M}.containerResource.name: Invalid value: "foo": must be a standard resource for containers',
        ),
        (
            metric(type="Pods", pods={"metric": {"name": ""}, "target": AVERAGE}),
            f"{M}.pods.metric.name: Required value: must specify a metric name",
        ),
        (
            metric(type="Pods", pods={"metric": {"name": "a/b"}, "target": AVERAGE}),
            f"{M}.pods.metric.name: Invalid value: \"a/b\": may not contain '/'",
        ),
        (
            metric(type="Pods", pods={"metric": NAMED, "target": VALUE}),
            f"{M}.pods.target.averageValue: Required value: must specify a positive target averageValue",
        ),
        (
            metric(
                type="Object", object={"metric": NAMED, "target": {"type": "Value"}, "describedObject": THING}
            ),
            f"{M}.object.target.averageValue: Required value: must set either a target value or averageValue",
        ),
        (
            metric(
                type="Object",
                object={"metric": NAMED, "target": VALUE, "describedObject": {**THING, "name": ""}},
            ),
            f"{M}.object.describedObject.name: Required value",
        ),
        (
            metric(type="External", external={"metric": NAMED, "target": {**VALUE, "averageValue": "1"}}),
            f"{M}.external.target.value: Forbidden: may not set both a target value for metric and a per-pod target",
        ),
        (
            metric(type="External", external={"metric": NAMED, "target": {"type": "Value"}}),
            f"{M}.external.target.averageValue: Required value: must set either a target value for metric or a per",
        ),
    ],
)
def test_rules(given: Doc, sentence: str) -> None:
    one(problems(hpa(**given)), sentence)


@pytest.mark.parametrize(
    "given",
    [
        {"spec.scaleTargetRef": {"apiVersion": "v1", "kind": "ReplicationController", "name": "web"}},
        behavior(stabilizationWindowSeconds=3600, selectPolicy="Disabled", tolerance="0"),
        cpu(AVERAGE),
        metric(
            type="ContainerResource",
            containerResource={"name": "memory", "container": "c", "target": AVERAGE},
        ),
        metric(type="Pods", pods={"metric": NAMED, "target": AVERAGE}),
        metric(type="Object", object={"metric": NAMED, "target": VALUE, "describedObject": THING}),
        metric(type="External", external={"metric": NAMED, "target": VALUE}),
    ],
)
def test_valid_ones(given: Doc) -> None:
    assert problems(hpa(**given)) == []
