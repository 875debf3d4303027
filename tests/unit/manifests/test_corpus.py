"""The loader with public manifests: they are read as by Go, and errors of invalid ones are as recorded.

`python -m tests.unit.manifests.test_corpus` prints the errors in the format of tests/corpus/expected-errors.txt.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manifests.types.meta import Quantity
from manifests.yaml.document import SyntaxProblem, read_documents
from manifests.yaml.loader import KINDS, ErrorKind, load_file
from tests.e2e.corpus_runs import path_of, runs
from tests.e2e.corpus_workloads import PATHS, all_workload_runs

CORPUS = Path(__file__).parents[2] / "corpus"
SUFFIXES = (".yaml", ".json")

#: Kinds that are stored, and do nothing that a run could compare.
ACCEPTED_ONLY = {"ClusterRole", "ClusterRoleBinding", "Namespace", "Role", "RoleBinding", "ServiceAccount"}


def golden() -> dict[str, list[dict[str, Any]]]:
    by_path: dict[str, list[dict[str, Any]]] = {}
    for line in (CORPUS / "golden-json.jsonl").read_text().splitlines():
        entry = json.loads(line)
        by_path.setdefault(entry["path"], []).append(entry)
    return by_path


def files() -> list[str]:
    return sorted(str(path.relative_to(CORPUS)) for path in CORPUS.glob("*/**/*") if path.suffix in SUFFIXES)


def errors() -> Iterator[str]:
    """Every error of every file, except "unsupported"."""
    for name in files():
        loaded = load_file(CORPUS / name, file=name)
        yield from (str(error) for error in loaded.errors if error.kind is not ErrorKind.UNSUPPORTED)


def same(ours: Any, theirs: Any) -> bool:
    """Equal in value and type: 1, 1.0 and True differ."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


@pytest.mark.parametrize("name", sorted(golden()))
def test_documents_read_as_go_reads_them(name: str) -> None:
    expected = [entry for entry in golden()[name] if entry.get("error") or entry["json"] is not None]
    found = list(read_documents((CORPUS / name).read_text()))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert isinstance(ours, SyntaxProblem) == ("error" in theirs)
        if not isinstance(ours, SyntaxProblem):
            assert same(ours.data, theirs["json"])
            assert not ours.problems


def test_the_bad_ones_are_refused_with_file_line_and_field_and_only_they() -> None:
    assert list(errors()) == (CORPUS / "expected-errors.txt").read_text().splitlines()


def test_every_document_of_a_kind_we_run_is_loaded_or_has_an_error() -> None:
    """Nothing is dropped silently."""
    for name, entries in golden().items():
        if len(entries) != 1 or not isinstance(entries[0].get("json"), dict):
            continue
        data = entries[0]["json"]
        loaded = load_file(CORPUS / name, file=name)
        if (data.get("apiVersion"), data.get("kind")) in KINDS:
            assert len(loaded.documents) == (0 if loaded.errors else 1), name


def test_what_one_node_can_have_is_taken_or_refused_as_recorded() -> None:
    """Every manifest that makes sense on one node: loaded, rejected with an error, or of kinds without effect here."""
    for line in (CORPUS / "one-node.tsv").read_text().splitlines():
        name, wanted = line.split("\t")
        loaded = load_file(CORPUS / name, file=name)
        refused = [error for error in loaded.errors if error.kind is not ErrorKind.UNSUPPORTED]
        some = any(document.kind not in ACCEPTED_ONLY for document in loaded.documents)
        found = "refused" if refused else "loaded" if some else "other kinds"
        assert found == wanted, (name, [str(error) for error in loaded.errors])


def test_what_is_loaded_is_run_and_nothing_else() -> None:
    """Every loaded manifest has a run (corpus/runs-*.yaml) or is needed by one."""
    loaded = {
        CORPUS / name
        for name, fate in (line.split("\t") for line in (CORPUS / "one-node.tsv").read_text().splitlines())
        if fate == "loaded"
    }
    found = [file for run in runs() for file in (run["file"], *run.get("beside", ()))]
    assert {path_of(file) for file in found} == loaded


def test_each_loaded_workload_is_run_or_left_out_with_a_reason() -> None:
    """Every valid file with a workload is in corpus/runs-workloads.yaml, and nothing else is."""
    valid = set()
    for name in files():
        loaded = load_file(CORPUS / name, file=name)
        refused = [error for error in loaded.errors if error.kind is not ErrorKind.UNSUPPORTED]
        if not refused and any(document.kind in PATHS for document in loaded.documents):
            valid.add(CORPUS / name)
    found = [run[key] for run in all_workload_runs() for key in ("file", "then") if key in run]
    assert {path_of(file) for file in found} == valid
    assert len(found) == len(valid), "each once"


def without_empties(value: Any, key: str = "") -> Any:
    """Drop nulls, empty lists and maps, and write quantities in canonical form: the API does not distinguish these."""
    if isinstance(value, dict):
        amounts = key in ("limits", "requests", "overhead")
        pairs = (
            (name, str(Quantity(item)) if amounts else without_empties(item, name))
            for name, item in value.items()
        )
        return {name: item for name, item in pairs if item not in (None, [], {}) and item is not False}
    if isinstance(value, list):
        return [without_empties(item) for item in value]
    return str(Quantity(value)) if key in ("sizeLimit", "divisor") else value


def test_what_is_read_is_written_again_whole() -> None:
    seen = 0
    for name, entries in golden().items():
        valid = {document.key for document in load_file(CORPUS / name).documents}
        for entry in entries:
            data = entry.get("json")
            model = (
                KINDS.get((str(data.get("apiVersion")), str(data.get("kind"))))
                if isinstance(data, dict)
                else None
            )
            if model is None or not isinstance(data, dict):
                continue
            meta = data.get("metadata") or {}
            if (data["kind"], meta.get("namespace") or "default", meta.get("name")) not in valid:
                continue
            written = model.parse(data).to_json()
            assert without_empties(written) == without_empties(data), name
            assert model.parse(written).to_json() == written
            seen += 1
    assert seen > 150


if __name__ == "__main__":
    print("\n".join(errors()))
