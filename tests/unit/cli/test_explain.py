"""`kubelite explain`: every description belongs to an existing field, every field of a pod has one, and the output."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.cli.errors import CliError
from kubelite.cli.objects.explain import explanation, fields_of
from manifests.types import core
from manifests.types.descriptions import DESCRIPTIONS
from manifests.types.meta import Object
from manifests.yaml.loader import KINDS


def models() -> dict[str, Any]:
    found: dict[str, Any] = {"Object": Object}
    waiting: list[Any] = list(KINDS.values())
    while waiting:
        model = waiting.pop()
        if found.setdefault(model.__name__, model) is model:
            waiting += [
                entry.value.model
                for entry in fields_of(model)
                if entry.value.model is not None and entry.value.model.__name__ not in found
            ]
    return found


def test_described_fields_exist() -> None:
    there = {(name, entry.name) for name, model in models().items() for entry in fields_of(model)}
    assert not set(DESCRIPTIONS) - there - {("Container", "targetContainerName")}


@pytest.mark.parametrize("kind", sorted(name.lower() for _, name in KINDS))
def test_every_kind_has_a_description(kind: str) -> None:
    assert "DESCRIPTION:\n    " in explanation(kind, [])


@pytest.mark.parametrize(
    "model",
    [
        core.Pod,
        core.PodSpec,
        core.Container,
        core.EphemeralContainer,
        core.ContainerPort,
        core.Probe,
        core.Lifecycle,
        core.SecurityContext,
        core.PodSecurityContext,
        core.ResourceRequirements,
        core.VolumeMount,
        core.EnvVar,
        core.EnvVarSource,
        core.EnvFromSource,
        core.Toleration,
        core.ConfigMap,
        core.Secret,
    ],
)
def test_each_field_of_a_pod_and_its_containers_is_described(model: Any) -> None:
    assert not [entry.name for entry in fields_of(model) if not entry.words]


def test_the_output_for_a_field() -> None:
    text = explanation("po", ["spec", "containers", "livenessProbe", "httpGet"])
    assert text.startswith(
        "KIND:       Pod\nVERSION:    v1\n\nFIELD: httpGet\t<HTTPGetAction>\n\nDESCRIPTION:\n    "
    )
    assert "\n  port\t<IntOrString> -required-\n    " in text and "\n  httpHeaders\t<[]HTTPHeader>\n" in text
    assert "FIELDS" not in explanation("pod", ["spec", "hostname"])
    assert "\n  limits\t<map[string]Quantity>\n" in explanation("pod", ["spec", "resources"])
    assert "\n  name\t<string>\n" in explanation("pod", ["metadata"]), "not asked for where it is made up"
    assert "VERSION:    scheduling.k8s.io/v1\n" in explanation("pc", [])


def test_recursive_output() -> None:
    text = explanation("pod", ["spec"], recursive=True)
    assert "\n        port\t<IntOrString> -required-\n" in text and "\n      privileged\t<boolean>\n" in text
    assert len(text.splitlines()) > 500


@pytest.mark.parametrize(
    ("kind", "path", "words"),
    [
        (
            "pod",
            ["spec", "containres"],
            'field "containres" does not exist in pod.spec; did you mean "containers"?',
        ),
        ("pod", ["spec", "hostname", "x"], 'field "x" does not exist in pod.spec.hostname'),
        ("node", [], "node is not a supported kind of manifest; the supported kinds are pod, "),
        ("pods2", [], 'resource type "pods2"'),
    ],
)
def test_unknown_fields(kind: str, path: list[str], words: str) -> None:
    with pytest.raises(CliError) as failed:
        explanation(kind, path)
    assert words in str(failed.value)
