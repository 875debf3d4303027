"""The model base, times, selectors."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from pydantic import BaseModel, ValidationError

import manifests.types
from manifests.problems import InvalidObject, did_you_mean, field_path
from manifests.types.core import ContainerPort, Pod, PodSpec, Volume
from manifests.types.meta import (
    LabelSelector,
    LabelSelectorRequirement,
    Model,
    ObjectMeta,
    parse_selector,
)

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "labels": {"app": "x"}},
    "spec": {"containers": [{"name": "c", "image": "i"}], "hostPID": True},
}


def test_what_is_parsed_is_written_and_nothing_else() -> None:
    assert Pod.parse(POD).to_json() == POD


def test_python_names_are_for_python_only() -> None:
    assert ContainerPort(container_port=80, host_ip="1.1.1.1").to_json() == {
        "containerPort": 80,
        "hostIP": "1.1.1.1",
    }
    with pytest.raises(InvalidObject, match='container_port: unknown field, did you mean "containerPort"'):
        ContainerPort.parse({"container_port": 80})


def test_a_null_is_a_field_that_is_not_there() -> None:
    meta = ObjectMeta.parse({"name": "a", "creationTimestamp": None, "labels": {"x": None}})
    assert meta.creation_timestamp is None
    assert meta.labels == {"x": ""}


def test_an_empty_struct_is_not_nothing() -> None:
    assert Volume.parse({"name": "a", "emptyDir": {}}).to_json() == {"name": "a", "emptyDir": {}}
    assert Volume.parse({"name": "a", "emptyDir": {}}).sources() == ["emptyDir"]


def test_a_changed_list_is_written() -> None:
    """Unset lists are defaults; items that are added in place must not get lost."""
    meta = ObjectMeta(name="a")
    meta.finalizers.append("x/y")
    meta.labels["a"] = "b"
    assert meta.to_json() == {"name": "a", "finalizers": ["x/y"], "labels": {"a": "b"}}
    assert ObjectMeta().finalizers == []


def test_every_wire_name_is_kubernetes_own() -> None:
    """Initialisms are easily wrong in a generated camelCase name."""

    def names(model: type[Model]) -> set[str]:
        return {field.alias or name for name, field in model.model_fields.items()}

    assert {"hostIPC", "hostPID", "setHostnameAsFQDN", "dnsConfig", "hostUsers", "hostnameOverride"} <= names(
        PodSpec
    )
    assert {"awsElasticBlockStore", "downwardAPI", "scaleIO", "gcePersistentDisk", "nfs"} <= names(Volume)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"name": 1}, 'name: must be a string: put it in quotes, like "1"'),
        (
            {"name": True},
            "name: must be a string: put it in quotes "
            "(YAML reads a bare y, n, yes, no, on, off, true or false as a boolean)",
        ),
        ({"name": ["a"]}, "name: must be a string, got a list"),
        ({"generation": "3"}, "generation: must be an integer: remove the quotes around 3"),
        ({"generation": True}, "generation: must be an integer, got true"),
        ({"generation": 1.5}, "generation: must be an integer, got 1.5"),
        (
            {"generation": 2**63},
            "generation: Invalid value: 9223372036854775808: does not fit the field's integer type",
        ),
        ({"finalizers": "a"}, 'finalizers: must be a list, got a string: write ["a"]'),
        ({"finalizers": {"a": "b"}}, "finalizers: must be a list, got a map"),
        ({"labels": ["a"]}, "labels: must be a map of fields, got a list"),
        ({"labels": {"a": 1}}, 'labels[a]: must be a string: put it in quotes, like "1"'),
        (
            {"creationTimestamp": "2020-01-01"},
            "creationTimestamp: must be a time like 2006-01-02T15:04:05Z (RFC 3339)",
        ),
        ({"label": {}}, 'label: unknown field, did you mean "labels"?'),
        ({"zzz": {}}, "zzz: unknown field"),
    ],
)
def test_scalars_are_strict(data: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        ObjectMeta.parse(data)
    assert [str(problem) for problem in caught.value.problems] == [sentence]


def test_a_field_in_the_wrong_place_is_told_where_it_belongs() -> None:
    spec = {"containers": [{"name": "c", "image": "i", "hostNetwork": True}], "image": "i"}
    with pytest.raises(InvalidObject) as caught:
        Pod.parse({**POD, "spec": spec})
    assert {str(problem) for problem in caught.value.problems} == {
        "spec.containers[0].hostNetwork: unknown field: it is a field of spec: check the indentation",
        "spec.image: unknown field: it is a field of spec.containers[]: check the indentation",
    }


def test_field_paths() -> None:
    assert (
        field_path(("spec", "containers", 0, "resources", "limits", "cpu"))
        == "spec.containers[0].resources.limits[cpu]"
    )
    assert field_path(("metadata", "labels", "a.b/c")) == "metadata.labels[a.b/c]"
    assert field_path(("items", 1, "spec")) == "items[1].spec"


def test_did_you_mean() -> None:
    assert did_you_mean("imagee", ["image", "name"]) == ', did you mean "image"?'
    assert did_you_mean("readonly", ["readOnly"]) == ', did you mean "readOnly"?'
    assert did_you_mean("hostPid", ["hostPID", "hostIPC"]) == ', did you mean "hostPID"?'
    assert did_you_mean("quux", ["image"]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "1970-01-01T00:00:00Z",
        "2024-02-29T12:00:00+02:00",
        "2024-02-29T12:00:00.123456789Z",
        "2024-02-29T12:00:00.5-01:00",
    ],
)
def test_times(text: str) -> None:
    assert ObjectMeta.model_validate({"creationTimestamp": text}).creation_timestamp == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2024-02-30T12:00:00Z",
        "2024-02-29 12:00:00Z",
        "2024-02-29T12:00:00",
        "2024-02-29T25:00:00Z",
        "2024-02-29T12:00:00.Z",
    ],
)
def test_what_is_not_a_time(text: str) -> None:
    with pytest.raises(ValidationError, match="RFC 3339"):
        ObjectMeta.model_validate({"creationTimestamp": text})


LABELS = {"app": "web", "tier": "front", "n": "5", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app=web,tier=back", False),
        ("app!=web", False),
        ("other!=web", True),
        ("app in (web, db)", True),
        ("app in (db)", False),
        ("app notin (db,cache)", True),
        ("other notin (db)", True),
        ("tier", True),
        ("other", False),
        ("!other", True),
        ("! tier", False),
        ("empty=", True),
        ("n>4,n<6", True),
        ("n>5", False),
        ("app>4", False),
        (" app = web , tier in (front) ", True),
        ("example.com/x=1", False),
    ],
)
def test_selectors(selector: str, matches: bool) -> None:
    assert parse_selector(selector).matches(LABELS) is matches


@pytest.mark.parametrize(
    "selector",
    ["a=b=c", "a in b", "a in (b", "=b", "a,,b", "!", "a!b", "n>x", "a b", ",a", "(a)", "a=b,", "a, "],
)
def test_malformed_selectors(selector: str) -> None:
    with pytest.raises(ValueError):
        parse_selector(selector)


def test_label_selector_of_an_object() -> None:
    selector = LabelSelector(
        match_labels={"app": "web"},
        match_expressions=[LabelSelectorRequirement(key="tier", operator="In", values=["front", "back"])],
    )
    assert selector.matches(LABELS)
    assert not selector.matches({"app": "web"})
    assert LabelSelector().matches({})


def _models(base: type[BaseModel] = Model) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def test_no_default_factory_is_a_built_in_type() -> None:
    """pydantic inspects each factory; inspecting a built-in type leaves 36 kB to the garbage collector."""
    for found in pkgutil.walk_packages(manifests.types.__path__, "manifests.types."):
        importlib.import_module(found.name)
    factories = [field.default_factory for model in _models() for field in model.model_fields.values()]
    assert len(factories) > 500
    assert {found for found in factories if found in (list, dict, set)} == set()
