"""The Pod Security labels of the Namespaces in the manifests.

They apply before the Namespace is in the store, and also while its file has a pod that they forbid, which makes the
file invalid. Otherwise such a pod would be admitted by the levels of before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kubelite.kube.pod_security import PREFIX
from kubelite.sources.plan import ManifestState
from manifests.yaml.loader import Document


class DeclaredLabels:
    """The labels of each namespace. `published` is changed in place: it is what admission reads."""

    def __init__(self, published: dict[str, Mapping[str, str]]) -> None:
        self._published = published
        self._files: dict[str, dict[str, dict[str, str]]] = {}

    def note(self, file: str, documents: Iterable[Document]) -> None:
        """Take the labels of a file's Namespaces for those that the file had before."""
        found = security_labels(documents)
        if found or file in self._files:
            self._files[file] = found

    def publish(self, files: Iterable[str]) -> bool:
        """Forget files that are not among these, and publish the labels. Return whether they have changed. Of two files
        that define a namespace, the first one counts."""
        known = set(files)
        self._files = {file: found for file, found in self._files.items() if file in known}
        merged: dict[str, Mapping[str, str]] = {}
        for _, found in sorted(self._files.items()):
            merged = {**found, **merged}
        if merged == self._published:
            return False
        self._published.clear()
        self._published.update(merged)
        return True


def security_labels(documents: Iterable[Document]) -> dict[str, dict[str, str]]:
    """Return the Pod Security labels of each Namespace among the documents; {} for one without any."""
    return {
        document.name: {
            key: value for key, value in document.obj.metadata.labels.items() if key.startswith(PREFIX)
        }
        for document in documents
        if document.kind == "Namespace"
    }


def to_read_again(
    files: Mapping[str, ManifestState], before: Mapping[str, ManifestState]
) -> dict[str, ManifestState]:
    """Return the files after a change of labels: those with pods, or with a pod that was forbidden, as they were
    `before` the labels were known, to be read again."""
    found = dict(files)
    for file, state in files.items():
        pods = any(kind == "Pod" for kind, _, _ in state.objects or ())
        if not pods and all(problem.kind != "forbidden" for problem in state.problems):
            continue
        if file in before:
            found[file] = replace(before[file], signature=())
        else:
            del found[file]
    return found
