"""What the manifests directory means: files and recorded objects in, changes to the store out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from kubelite.node.priority import PRIORITY_CLASSES
from kubelite.objects import SOURCE, rfc3339
from state.store import Record

KINDS = ("ConfigMap", "Secret", "PersistentVolumeClaim", "Pod")  # in the order they are applied

#: Metadata that only the node itself writes. A manifest may carry it (`kubectl get -o yaml`), it means nothing there.
OF_THE_NODE = frozenset(
    (
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
    )
)

Key = tuple[str, str, str]  # kind, namespace, name
Doc = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file. `kind`: syntax, invalid, unsupported, duplicate, unreadable."""

    message: str
    line: int = 0
    field: str = ""
    kind: str = "invalid"

    def sentence(self, file: str) -> str:
        place = f"{file}:{self.line}" if self.line else file
        return f"{place}: {self.field + ': ' if self.field else ''}{self.message}"


@dataclass(frozen=True, slots=True)
class ManifestState:
    """What is known of one file: `objects` is its last good version, None when there never was one."""

    file: str
    signature: tuple[int, ...] = ()
    objects: Mapping[Key, Doc] | None = None
    problems: tuple[Problem, ...] = ()
    status: str = "Loaded"  # Loaded, Empty, Invalid, Unreadable
    loaded_at: float = 0.0

    @property
    def changed_at(self) -> float:
        """When the file came to be what it is, Unix seconds: its ctime, which a rename sets too."""
        return self.signature[3] / 1e9 if len(self.signature) > 3 else 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do to the store, and what to say of documents that lost to another of their name."""

    create: tuple[tuple[Key, Doc, str], ...] = ()
    update: tuple[tuple[Key, Doc, str], ...] = ()
    remove: tuple[Key, ...] = ()
    replace: tuple[Key, ...] = ()  # pods that have ended and were edited: a new one takes their place
    duplicates: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)


def plan(files: Iterable[ManifestState], recorded: Iterable[Record], lost: Iterable[str] = ()) -> Plan:
    """The changes that make the store say what the files say. A file without any good version (broken since the
    daemon started) keeps what the store has of it, and so does a directory that cannot be read (`lost`)."""
    known = {(r.kind, r.namespace, r.name): r for r in recorded}
    unreadable = tuple(f"{directory}/" for directory in lost)
    files = sorted(files, key=lambda f: f.file)
    keep = {f.file for f in files if f.objects is None}
    claims: dict[Key, list[str]] = {}
    for state in files:
        for key in state.objects or ():
            claims.setdefault(key, []).append(state.file)
    owners = {key: _owner(found, known.get(key)) for key, found in claims.items()}
    documents = {state.file: state.objects or {} for state in files}
    duplicates = _duplicates(claims, owners)
    uids = {r.uid: key for key, r in known.items()}
    create, update, renew = [], [], []
    for key, file in owners.items():
        record = known.get(key)
        uid = documents[file][key]["metadata"].get("uid") if key[0] == "Pod" else None
        if record is None and uid and uids.setdefault(uid, key) != key:
            kind, namespace, name = uids[uid]
            problem = Problem(
                f"{kind} {namespace}/{name} has this uid", field="metadata.uid", kind="duplicate"
            )
            duplicates[file] = (*duplicates.get(file, ()), problem)
        elif record is None:
            create.append((key, documents[file][key], file))
        elif record.metadata.get("ownerReferences") and not source_of(record):  # no file's
            pod = record.metadata["ownerReferences"][0]["name"]
            problem = Problem(
                f"{key[0]} {key[1]}/{key[2]} is pod {pod}'s own", field="metadata.name", kind="duplicate"
            )
            duplicates[file] = (*duplicates.get(file, ()), problem)
        elif not record.deleting and (wanted := merged(record.doc, documents[file][key], file)) is not None:
            if _ended(record) and wanted.get("spec") != record.doc.get("spec"):
                renew.append(key)
            else:
                update.append((key, wanted, file))
    gone = [
        key
        for key, record in known.items()
        if key not in owners and (source := source_of(record)) and not record.deleting
        if source not in keep and not source.startswith(unreadable)
    ]
    rank = {kind: place for place, kind in enumerate(KINDS)}
    create.sort(key=lambda entry: rank[entry[0][0]])
    update.sort(key=lambda entry: rank[entry[0][0]])
    return Plan(tuple(create), tuple(update), tuple(gone), tuple(renew), duplicates)


def _ended(record: Record) -> bool:
    """A pod in a terminal phase never runs again (spec C5): an edit of it means a new pod."""
    return record.kind == "Pod" and record.doc.get("status", {}).get("phase") in ("Succeeded", "Failed")


def source_of(record: Record) -> str:
    found = record.metadata.get("annotations", {}).get(SOURCE, "")
    return str(found)


def _owner(files: list[str], record: Record | None) -> str:
    current = source_of(record) if record else ""
    return current if current in files else files[0]


def _duplicates(claims: Mapping[Key, list[str]], owners: Mapping[Key, str]) -> dict[str, tuple[Problem, ...]]:
    found: dict[str, tuple[Problem, ...]] = {}
    for (kind, namespace, name), files in claims.items():
        owner = owners[kind, namespace, name]
        for file in files:
            if file != owner:
                words = f"{kind} {namespace}/{name} is already defined in {owner}, which stays in force"
                found[file] = (*found.get(file, ()), Problem(words, field="metadata.name", kind="duplicate"))
    return found


def merged(old: Doc, new: Doc, file: str) -> Doc | None:
    """The recorded object with the manifest's wishes: identity, times and status stay. None when nothing changes."""
    metadata = {**new["metadata"], "annotations": {**new["metadata"].get("annotations", {}), SOURCE: file}}
    for kept in (
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ):
        if kept in old["metadata"]:
            metadata[kept] = old["metadata"][kept]
    doc = {**new, "metadata": metadata}
    if doc["kind"] == "PersistentVolumeClaim":  # what its being bound has put there
        of_the_node = {k: v for k, v in old["spec"].items() if k in ("storageClassName", "volumeName")}
        doc["spec"] = {**of_the_node, **doc["spec"]}
    if added := old.get("spec", {}).get("ephemeralContainers"):  # no manifest has those
        doc["spec"] = {**doc["spec"], "ephemeralContainers": added}
    if "status" in old:
        doc["status"] = old["status"]
    if doc == old:
        return None
    if doc.get("spec") != old.get("spec"):
        metadata["generation"] = int(old["metadata"].get("generation", 1)) + 1
    return doc


def bound(doc: Doc, node_name: str, priorities: Mapping[str, int] = MappingProxyType({})) -> Doc:
    """A manifest's object without what is the node's to say; a pod is this node's, as a scheduler would have it, and
    its priority is that of its class, as admission has it (K plugin/pkg/admission/priority)."""
    metadata = {key: value for key, value in doc["metadata"].items() if key not in OF_THE_NODE}
    doc = {**doc, "metadata": metadata}
    if doc["kind"] == "Pod" and node_name:
        spec = {"nodeName": node_name, **doc["spec"]}
        value = {**PRIORITY_CLASSES, **priorities}.get(spec.get("priorityClassName", ""))
        if value is not None:
            spec.setdefault("priority", value)
        return {**doc, "spec": spec}
    return doc


def created(doc: Doc, file: str, *, uid: str, now: float) -> Doc:
    """A manifest's object as it enters the store."""
    metadata = {
        **doc["metadata"],
        "uid": uid,
        "creationTimestamp": rfc3339(now),
        "generation": 1,
        "annotations": {**doc["metadata"].get("annotations", {}), SOURCE: file},
    }
    if doc["kind"] != "Pod":
        del metadata["generation"]
        return {**doc, "metadata": metadata}
    return {**doc, "metadata": metadata, "status": {"phase": "Pending"}}


def failed(
    file: str,
    signature: tuple[int, ...],
    known: ManifestState | None,
    problems: tuple[Problem, ...],
    status: str,
) -> ManifestState:
    """A file that cannot be used: its last good version stays."""
    objects = known.objects if known else None
    return ManifestState(file, signature, objects, problems, status, known.loaded_at if known else 0.0)
