"""All kinds of workloads: rules and descriptions exist, the corpus loads, errors have lines, and imports are lazy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kubelite.cli.objects.explain import fields_of
from manifests.types.descriptions import DESCRIPTIONS as OTHERS
from manifests.types.kinds import api_versions_of
from manifests.types.meta import Object
from manifests.types.workloads.descriptions import DESCRIPTIONS, KIND_DESCRIPTIONS, kind_description
from manifests.types.workloads.kinds import WORKLOADS, Kinds, workload
from manifests.validation.workloads.kinds import RULES
from manifests.yaml import loader

CORPUS = Path(__file__).parents[3] / "corpus"
NAMES = sorted({kind for _, kind in WORKLOADS})


def everything() -> Kinds:
    """Every kind, also those whose controllers are not there yet."""
    return Kinds({key: model for key, model in loader.KINDS.items() if key not in WORKLOADS}, *NAMES)


@pytest.fixture
def all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "KINDS", everything())


def test_each_kind_has_its_class_and_rules() -> None:
    assert RULES.keys() == set(NAMES)
    for (version, kind), model in ((key, workload(key)) for key in WORKLOADS):
        assert (model.model_fields["api_version"].default, model.__name__) == (version, kind)
        assert model.model_fields["kind"].default == kind
        assert version in api_versions_of(kind)
    for kind in NAMES:
        ours = [version for version, name in WORKLOADS if name == kind]
        assert ours[0] == api_versions_of(kind)[-1], (
            "Kubernetes' newest version, and the one that messages name"
        )


def models() -> list[Any]:
    """Every type below a workload that pods do not have."""
    found: list[Any] = []
    waiting: list[Any] = [workload(key) for key in WORKLOADS]
    while waiting:
        model = waiting.pop()
        if model in found or model.__name__ in ("ObjectMeta", "PodSpec"):
            continue
        found.append(model)
        waiting += [entry.value.model for entry in fields_of(model) if entry.value.model is not None]
    return found


def test_each_field_of_a_workload_is_described() -> None:
    missing = [
        (model.__name__, entry.name) for model in models() for entry in fields_of(model) if not entry.words
    ]
    assert not missing


def test_described_fields_exist() -> None:
    there = {(model.__name__, entry.name) for model in models() for entry in fields_of(model)}
    assert not set(DESCRIPTIONS) - there and not set(DESCRIPTIONS) & set(OTHERS)
    assert KIND_DESCRIPTIONS.keys() == set(NAMES) and all(map(kind_description, NAMES))


@pytest.mark.usefixtures("all_kinds")
def test_errors_of_a_template_have_file_line_and_field() -> None:
    text = """\
kind: Deployment
apiVersion: apps/v1
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: ""
        imagePullPolicy: Sometimes
"""
    assert [str(error) for error in loader.load_text(text, file="web.yaml").errors] == [
        "web.yaml:11: spec.template.spec.containers[0].image: Required value",
        "web.yaml:12: spec.template.spec.containers[0].imagePullPolicy: Unsupported value: "
        '"Sometimes": supported values: "Always", "IfNotPresent", "Never"',
    ]


@pytest.mark.usefixtures("all_kinds")
@pytest.mark.parametrize(
    ("version", "kind", "newest"),
    [
        ("extensions/v1beta1", "Deployment", "apps/v1"),
        ("apps/v1beta1", "Deployment", "apps/v1"),
        ("apps/v1beta2", "ReplicaSet", "apps/v1"),
        ("v1", "Deployment", "apps/v1"),
    ],
)
def test_an_old_version_is_refused_by_the_name_of_the_new_one(version: str, kind: str, newest: str) -> None:
    text = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n"
    found = [str(error) for error in loader.load_text(text, file="x.yaml").errors]
    assert found == [f'x.yaml:1: apiVersion: {kind} is served in "{newest}", not in "{version}"']


def errors() -> list[str]:
    """Errors of workloads in the corpus. `python -m tests.unit.manifests.workloads.test_kinds` prints them."""
    found = []
    for path in sorted(CORPUS.glob("*/**/*")):
        if path.suffix in (".yaml", ".json"):
            loaded = loader.load_file(path, file=str(path.relative_to(CORPUS)))
            found += [
                str(error)
                for error in loaded.errors
                if error.kind is not loader.ErrorKind.UNSUPPORTED and error.object.split(" ")[0] in NAMES
            ]
    return found


@pytest.mark.usefixtures("all_kinds")
def test_what_others_wrote_loads_and_the_bad_ones_are_refused_as_recorded() -> None:
    assert errors() == (CORPUS / "expected-errors-workloads.txt").read_text().splitlines()


def test_a_table_of_kinds_imports_nothing_until_it_is_asked() -> None:
    """In a process of its own: the modules must not be imported by other tests already."""
    lines = (
        "import sys, manifests.yaml.loader as loader",
        "from manifests.types.workloads.kinds import Kinds",
        "table = Kinds({}, 'Deployment')",
        "assert ('apps/v1', 'Deployment') in list(table)",
        "pod = '{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}'",
        "assert loader.load_text(pod, file='p').documents",
        "rooms = [m for m in sys.modules if '.workloads.' in m and not m.endswith('.workloads.kinds')]",
        "assert not rooms, rooms",
        "assert table['apps/v1', 'Deployment'].__name__ == 'Deployment'",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=60)


def test_a_name_that_is_no_workload_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Kinds({}, "Pod")
    assert issubclass(workload(("apps/v1", "Deployment")), Object)


if __name__ == "__main__":
    loader.KINDS = everything()
    print("\n".join(errors()))
