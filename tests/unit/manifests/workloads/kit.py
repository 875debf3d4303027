"""Documents of workloads, and what the checker says about them."""

from __future__ import annotations

import copy
from typing import Any

from manifests.types.meta import Object
from manifests.types.workloads.kinds import WORKLOADS, workload
from manifests.validation.checking import check

Doc = dict[str, Any]
VERSIONS = {kind: version for version, kind in reversed(WORKLOADS)}  # the newest of each
LABELS = {"app": "web"}
TEMPLATE: Doc = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}
SELECTOR: Doc = {"matchLabels": LABELS}


def document(kind: str, spec: Doc | None, **changed: Any) -> Doc:
    """A document. Keys of `changed` are paths with dots; None removes the field, a dict replaces it."""
    doc: Doc = {"apiVersion": VERSIONS[kind], "kind": kind, "metadata": {"name": "web"}}
    if spec is not None:
        doc["spec"] = copy.deepcopy(spec)
    return altered(doc, changed)


def altered(doc: Doc, changed: Doc) -> Doc:
    doc = copy.deepcopy(doc)
    for path, value in changed.items():
        *parents, last = path.split(".")
        here: Any = doc
        for part in parents:
            here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
        if value is None:
            here.pop(last, None)
        else:
            here[int(last) if isinstance(here, list) else last] = value
    return doc


def read(doc: Doc) -> tuple[Object | None, list[str]]:
    """The object with its defaults, and its problems."""
    found, problems = check(workload((doc["apiVersion"], doc["kind"])), doc)
    return found, [str(problem) for problem in problems]


def problems(doc: Doc) -> list[str]:
    return read(doc)[1]


def defaulted(doc: Doc) -> Doc:
    found, wrong = read(doc)
    assert found is not None and not wrong, wrong
    again, _ = read(found.to_json())
    assert again is not None and again.to_json() == found.to_json(), "twice is as once"
    return found.to_json()


def one(found: list[str], sentence: str) -> None:
    """Check that this is the only problem, by its start."""
    assert len(found) == 1 and found[0].startswith(sentence), found
