"""Computes the changes to the store from the manifest files and the recorded objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from kubelite.kube.errors import Forbidden
from kubelite.kube.jobs import with_selector
from kubelite.kube.json import Json
from kubelite.kube.objects import (
    ACCOUNT,
    CONTROLLED,
    NAMESPACE,
    SOURCE,
    WORKLOADS,
    Automount,
    belongs_to_cluster,
    is_ending,
    is_terminal,
    object_name,
    own_to_node,
    source_of,
)
from kubelite.kube.times import rfc3339
from kubelite.node.model.priority import KIND as PRIORITY_CLASS
from kubelite.node.model.priority import apart, rank_kept
from kubelite.node.storage.protection import protected
from kubelite.policies.gate import QUOTA
from kubelite.policies.limit_range import KIND as LIMIT_RANGE
from kubelite.policies.rules import Rules, rules_of
from kubelite.policies.token_volumes import TokenVolumes, token_volumes
from kubelite.sources.ending import is_revived, to_terminate
from kubelite.sources.services import SERVICE, Allocate, allocated, kept
from kubelite.sources.workloads import own_annotations, replicas_kept, unchangeable
from state.store import Record

if TYPE_CHECKING:
    from kubelite.policies.ledger import Ledger
    from kubelite.sources.quotas import Room

#: The kinds, in the order in which they are applied.
KINDS = (
    "Namespace",
    "ServiceAccount",
    "ClusterRole",
    "Role",
    "ClusterRoleBinding",
    "RoleBinding",
    "ClusterTrustBundle",
    "PriorityClass",
    "LimitRange",
    QUOTA,
    "NetworkPolicy",
    "StorageClass",
    "ConfigMap",
    "Secret",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "Service",
    "Endpoints",
    "EndpointSlice",
    "IngressClass",
    "Ingress",
    "Pod",
    "ReplicationController",
    "ReplicaSet",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "HorizontalPodAutoscaler",
)

#: Metadata that only the node writes. In a manifest (for example from `kubectl get -o yaml`) it is ignored.
NODE_METADATA = frozenset(
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

#: Kinds whose objects are rules for others.
_OF_NAMESPACES = (PRIORITY_CLASS, LIMIT_RANGE, QUOTA, ACCOUNT)

#: Kinds of which some fields cannot change, and whose status is the node's alone.
_CHECKED = CONTROLLED | {SERVICE, "EndpointSlice", "Ingress", "IngressClass"}


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem in a file. `kind`: syntax, invalid, forbidden, unsupported, duplicate, unreadable."""

    message: str
    line: int = 0
    field: str = ""
    kind: str = "invalid"
    object: str = ""  # the document's kind and name, as far as they are known: "Deployment default/web"

    def sentence(self, file: str) -> str:
        place = f"{file}:{self.line}" if self.line else file
        return f"{place}: {self.field + ': ' if self.field else ''}{self.message}"


@dataclass(frozen=True, slots=True)
class ManifestState:
    """The known state of a file. `objects`: those of its last valid version, None if there was none; `loaded_at`: when
    that version was read, in Unix seconds."""

    file: str
    signature: tuple[int, ...] = ()
    objects: Mapping[Key, Json] | None = None
    problems: tuple[Problem, ...] = ()
    status: str = "Loaded"  # Loaded, Ignored, Empty, Invalid, Unreadable, Writing
    loaded_at: float = 0.0

    @property
    def rejected(self) -> str:
        """Return why the present content is not applied, as a sentence; "" if it is applied."""
        found = next((problem for problem in self.problems if problem.kind != "unsupported"), None)
        if found is None:
            return ""
        return f"the last valid version of the manifest applies, because of an error: {found.sentence(self.file)}"

    @property
    def changed_at(self) -> float:
        """Return when the file last changed, in Unix seconds: its ctime, which a rename also sets."""
        return self.signature[3] / 1e9 if len(self.signature) > 3 else 0.0


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The objects that a plan left as they are: key → the document, the recorded object and the file. The next plan
    decides again about an object only if one of these three, or the rules, is another."""

    rules: Rules = field(default_factory=Rules)
    objects: Mapping[Key, tuple[Json, Json, str]] = field(default_factory=dict)

    def has(self, key: Key, doc: Json, record: Record, file: str) -> bool:
        """Compare by identity: documents are never changed in place."""
        found = self.objects.get(key)
        return found is not None and found[0] is doc and found[1] is record.doc and found[2] == file


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes to make to the store, and the problems of documents whose object another document defines."""

    create: tuple[tuple[Key, Json, str], ...] = ()
    update: tuple[tuple[Key, Json, str], ...] = ()
    remove: tuple[Key, ...] = ()
    # ended pods that were edited, and Jobs of which a field was edited that cannot change: a new object replaces each
    replace: tuple[Key, ...] = ()
    duplicates: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    terminate: tuple[str, ...] = ()  # namespaces that no document names any more
    rules: Rules = field(default_factory=Rules)  # by which pods and claims are admitted
    services: Mapping[Key, Json] = field(default_factory=dict)  # of the files, with addresses and node ports
    unchanged: Unchanged = field(default_factory=Unchanged)


class _Step(Enum):
    """What happens to the object of a document."""

    CREATE = auto()
    UPDATE = auto()
    REPLACE = auto()
    KEEP = auto()


class _Verdict(NamedTuple):
    """The decision about one document. `doc`: the object to create, or what it is changed to."""

    step: _Step
    doc: Json
    problems: tuple[Problem, ...] = ()


def plan(
    files: Iterable[ManifestState],
    recorded: Iterable[Record],
    lost: Iterable[str] = (),
    *,
    priorities: Mapping[str, int] | None = None,
    automount: Automount = Automount.NONE,
    allocate: Allocate | None = None,
    ledger: Callable[[], Ledger] | None = None,
    now: float = 0.0,
    before: Unchanged | None = None,
) -> Plan:
    """Return the changes that make the store match the files. Recorded objects are retained if their file has not been
    valid since the daemon started, or is in a directory that cannot be read (`lost`). `priorities`: the PriorityClasses
    of the node's settings. `automount`: which pods get a token of the API. `allocate` gives Services addresses and node
    ports. `ledger` returns what counts the use of quotas. `now`: Unix seconds. `before`: of the previous plan."""
    known = {(r.kind, r.namespace, r.name): r for r in recorded}
    files = sorted(files, key=lambda f: f.file)
    claims: dict[Key, list[str]] = {}
    for state in files:
        for key in state.objects or ():
            claims.setdefault(key, []).append(state.file)
    owners = {key: _owner(found, known.get(key)) for key, found in claims.items()}
    documents = {state.file: state.objects or {} for state in files}
    duplicates = _duplicates(claims, owners)
    gone = _gone(known, owners, files, lost)
    said = {key: documents[file][key] for key, file in owners.items() if key[0] in _OF_NAMESPACES}
    accounts = _after(ACCOUNT, said, known, gone) if automount is not Automount.NONE else ()
    tokens = token_volumes(automount, accounts)
    rules, room = _rules(said, known, gone, priorities or {}, tokens), _room(said, known, gone, ledger, now)
    services, refused = allocated(owners, documents, known, allocate)
    uids = {r.uid: key for key, r in known.items()}
    verdicts: dict[Key, _Verdict] = {}
    before = before if before is not None and before.rules == rules else Unchanged(rules)
    unchanged: dict[Key, tuple[Json, Json, str]] = {}
    for key, file in owners.items():
        doc, record = services.get(key) or documents[file][key], known.get(key)
        if record is not None and key not in refused and before.has(key, doc, record, file):
            unchanged[key] = before.objects[key]
            continue
        uid = doc["metadata"].get("uid") if key[0] == "Pod" and record is None else None
        holder = uids.setdefault(uid, key) if uid else key
        try:
            found = _verdict(key, doc, file, record, holder=holder, rules=rules)
            if (no := refused.get(key)) is not None:
                problem = Problem(no.message, field=no.field, object=f"Service {key[1]}/{key[2]}")
                found = _Verdict(_Step.KEEP, doc, (problem,))
            if room is not None and found.step in (_Step.CREATE, _Step.UPDATE):
                room.admit(found.doc, record.doc if record is not None else None)
        except Forbidden as error:
            found = _Verdict(_Step.KEEP, doc, (_forbidden(key, error),))
        verdicts[key] = found
        if found.problems:
            duplicates[file] = (*duplicates.get(file, ()), *found.problems)
        elif found.step is _Step.KEEP and record is not None:
            unchanged[key] = doc, record.doc, file
    replaced = tuple(key for key, found in verdicts.items() if found.step is _Step.REPLACE)
    create, update = (_ordered(verdicts, owners, step) for step in (_Step.CREATE, _Step.UPDATE))
    marked = (record.doc for record in known.values() if record.kind == NAMESPACE)
    ending = to_terminate(marked, (state.objects for state in files), lost)
    kept = Unchanged(rules, unchanged)
    return Plan(create, update, tuple(gone), replaced, duplicates, ending, rules, services, kept)


def _gone(
    known: Mapping[Key, Record],
    owners: Mapping[Key, str],
    files: Iterable[ManifestState],
    lost: Iterable[str],
) -> list[Key]:
    """Return the recorded objects that no file defines any more."""
    unreadable = tuple(f"{directory}/" for directory in lost)
    keep = {f.file for f in files if f.objects is None}
    return [
        key
        for key, record in known.items()
        if key not in owners and (source := source_of(record)) and not record.deleting
        if source not in keep and not source.startswith(unreadable)
    ]


def _verdict(key: Key, doc: Json, file: str, record: Record | None, *, holder: Key, rules: Rules) -> _Verdict:
    """Decide about the document of an object. `holder`: which object has the uid that the document asks for. Raises
    Forbidden."""
    if record is None:
        if holder != key:
            problem = Problem(f"{object_name(*holder)} has this uid", field="metadata.uid", kind="duplicate")
            return _Verdict(_Step.KEEP, doc, (problem,))
        return _Verdict(_Step.CREATE, rules.new(doc))
    if record.metadata.get("ownerReferences") and not source_of(record):  # not from a manifest
        owner = record.metadata["ownerReferences"][0]
        words = f"{object_name(*key)} belongs to {owner['kind'].lower()} {owner['name']}"
        return _Verdict(_Step.KEEP, doc, (Problem(words, field="metadata.name", kind="duplicate"),))
    if belongs_to_cluster(record.doc):
        words = f"{object_name(*key)} belongs to the cluster that this node has joined"
        return _Verdict(_Step.KEEP, doc, (Problem(words, field="metadata.name", kind="duplicate"),))
    if record.deleting and not is_revived(record.doc, rules.ending):
        return _Verdict(_Step.KEEP, doc)
    wanted = merged(record.doc, rules.edited(record.doc, doc), file)
    if wanted is None:
        return _Verdict(_Step.KEEP, doc)
    rules.check_edit(record.doc, wanted)
    if key[0] in _CHECKED and (forbidden := unchangeable(record.doc, wanted)):
        if replaceable(record.doc):
            return _Verdict(_Step.REPLACE, wanted)
        return _Verdict(_Step.KEEP, doc, tuple(_unchangeable(key, *found) for found in forbidden))
    if not _ended(record) or wanted.get("spec") == record.doc.get("spec"):
        return _Verdict(_Step.UPDATE, wanted)
    # A changed priority class is not an edit of the pod.
    edited = apart(wanted["spec"]) != apart(record.doc["spec"])
    return _Verdict(_Step.REPLACE if edited else _Step.KEEP, wanted)


def _ordered(
    verdicts: Mapping[Key, _Verdict], owners: Mapping[Key, str], step: _Step
) -> tuple[tuple[Key, Json, str], ...]:
    """Return the objects with a verdict, with document and file, in the order of KINDS."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    found = [(key, verdict.doc, owners[key]) for key, verdict in verdicts.items() if verdict.step is step]
    return tuple(sorted(found, key=lambda entry: rank[entry[0][0]]))


def _rules(
    said: Mapping[Key, Json],
    known: Mapping[Key, Record],
    gone: Iterable[Key],
    priorities: Mapping[str, int],
    tokens: TokenVolumes,
) -> Rules:
    """Return the rules after the changes. `said`: what the files say of the kinds that make rules."""
    classes, ranges = (_after(kind, said, known, gone) for kind in (PRIORITY_CLASS, LIMIT_RANGE))
    ending = (key[2] for key, record in known.items() if key[0] == NAMESPACE and is_ending(record.doc))
    return rules_of(classes, ranges, priorities, ending, tokens)


def _room(
    said: Mapping[Key, Json],
    known: Mapping[Key, Record],
    gone: Iterable[Key],
    ledger: Callable[[], Ledger] | None,
    now: float,
) -> Room | None:
    """Return what the quotas leave after the changes, None if there are no quotas."""
    quotas = _after(QUOTA, said, known, gone)
    if not quotas or ledger is None:
        return None
    from kubelite.sources.quotas import Room

    return Room(quotas, known, ledger(), now)


def _after(
    kind: str, said: Mapping[Key, Json], known: Mapping[Key, Record], gone: Iterable[Key]
) -> list[Json]:
    """Return the objects of a kind after the changes: those of the files, and recorded ones that are not removed."""
    left = {key: record.doc for key, record in known.items() if key[0] == kind and source_of(record)}
    for key in gone:
        left.pop(key, None)
    return list({**left, **{key: doc for key, doc in said.items() if key[0] == kind}}.values())


def _forbidden(key: Key, error: Forbidden) -> Problem:
    return Problem(str(error), field=error.field, kind="forbidden", object=f"{key[0]} {key[1]}/{key[2]}")


def _unchangeable(key: Key, field: str, message: str) -> Problem:
    words = f"{message}; delete the object first: `kubelite delete {key[0].lower()} {key[2]}`"
    return Problem(words, field=field, kind="invalid", object=f"{key[0]} {key[1]}/{key[2]}")


def replaceable(doc: Json) -> bool:
    """Whether an object whose fields cannot change is replaced by a new one after such an edit: a Job, as an ended
    pod."""
    return bool(doc["kind"] == "Job")


def _ended(record: Record) -> bool:
    """Whether the record is a pod that never runs again (`is_terminal`). An edit of its manifest creates a new pod."""
    return record.kind == "Pod" and is_terminal(record.doc.get("status", {}))


def _owner(files: list[str], record: Record | None) -> str:
    current = source_of(record) if record else ""
    return current if current in files else files[0]


def _duplicates(claims: Mapping[Key, list[str]], owners: Mapping[Key, str]) -> dict[str, tuple[Problem, ...]]:
    found: dict[str, tuple[Problem, ...]] = {}
    for key, files in claims.items():
        owner = owners[key]
        for file in files:
            if file != owner:
                words = f"{object_name(*key)} is already defined in {owner}, which stays in force"
                found[file] = (*found.get(file, ()), Problem(words, field="metadata.name", kind="duplicate"))
    return found


def merged(old: Json, new: Json, file: str) -> Json | None:
    """Return the recorded object updated from the manifest, with its identity, times and status preserved. Return None
    if nothing changes."""
    annotations = {**own_to_node(new["metadata"].get("annotations", {})), SOURCE: file}
    if new["kind"] in WORKLOADS:
        annotations |= own_annotations(old["metadata"].get("annotations") or {})
    metadata = {**new["metadata"], "annotations": annotations}
    ending = ("deletionTimestamp", "deletionGracePeriodSeconds")
    for own in (
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
        "finalizers",
        *(
            () if is_revived(old, ()) else ending
        ),  # a manifest that exists again cancels the deletion of a claim, volume or namespace
    ):
        if own in old["metadata"]:
            metadata[own] = old["metadata"][own]
    doc = {**new, "metadata": metadata}
    doc = _with_the_nodes_fields(old, doc)
    metadata = doc["metadata"]
    if added := old.get("spec", {}).get("ephemeralContainers"):  # never in a manifest
        doc["spec"] = {**doc["spec"], "ephemeralContainers": added}
    if "status" in old:
        doc["status"] = old["status"]
    if doc == old:
        return None
    if doc.get("spec") != old.get("spec") and doc["kind"] != SERVICE:
        metadata["generation"] = int(old["metadata"].get("generation", 1)) + 1
    return doc


def _with_the_nodes_fields(old: Json, doc: Json) -> Json:
    """Return the document with the fields that the node has set in the recorded object."""
    if doc["kind"] in WORKLOADS:
        doc = replicas_kept(old, doc)
    if doc["kind"] == "PersistentVolumeClaim":  # retain fields that binding has set
        of_the_node = {k: v for k, v in old["spec"].items() if k in ("storageClassName", "volumeName")}
        doc["spec"] = {**of_the_node, **doc["spec"]}
    if doc["kind"] == "PersistentVolume" and (claim := _claim_ref(old["spec"], doc["spec"])):
        doc["spec"] = {**doc["spec"], "claimRef": claim}
    if doc["kind"] == "Job":
        doc = with_selector(doc)
    if doc["kind"] == SERVICE:
        doc["spec"] = kept(old["spec"], doc["spec"])
    if doc["kind"] == "Pod":
        doc["spec"] = rank_kept(old.get("spec", {}), doc["spec"])
    return doc


def _claim_ref(old: Json, new: Json) -> Json | None:
    """Return the claimRef that binding has set on a PersistentVolume, unless the manifest names another claim."""
    had, wanted = old.get("claimRef"), new.get("claimRef")
    if not had or (wanted and any(wanted.get(k) != had.get(k) for k in ("namespace", "name"))):
        return wanted
    return {**had, **(wanted or {})}


def bound(doc: Json, node_name: str) -> Json:
    """Return a manifest's object without what only the node writes. A pod is bound to this node."""
    metadata = {key: value for key, value in doc["metadata"].items() if key not in NODE_METADATA}
    doc = {**doc, "metadata": metadata}
    if doc["kind"] in CONTROLLED and (found := metadata.get("annotations")):
        own = own_annotations(found)
        metadata["annotations"] = {key: value for key, value in found.items() if key not in own}
    if doc["kind"] in _CHECKED:
        return {key: value for key, value in doc.items() if key != "status"}
    if doc["kind"] in ("HorizontalPodAutoscaler", QUOTA):
        return {key: value for key, value in doc.items() if key != "status"}
    if doc["kind"] == "Pod" and node_name:
        return {**doc, "spec": {"nodeName": node_name, **doc["spec"]}}
    return doc


def created(doc: Json, file: str, *, uid: str, now: float) -> Json:
    """Return a manifest's object as it is added to the store."""
    metadata = {
        **doc["metadata"],
        "uid": uid,
        "creationTimestamp": rfc3339(now),
        "generation": 1,
        "annotations": {**own_to_node(doc["metadata"].get("annotations", {})), SOURCE: file},
    }
    if doc["kind"] in CONTROLLED:
        new = {**doc, "metadata": metadata}
        return with_selector(new) if doc["kind"] == "Job" else new
    if doc["kind"] != "Pod":
        del metadata["generation"]
        return {**doc, "metadata": protected(doc["kind"], metadata)}
    return {**doc, "metadata": metadata, "status": {"phase": "Pending"}}


def failed(
    file: str,
    signature: tuple[int, ...],
    known: ManifestState | None,
    problems: tuple[Problem, ...],
    status: str,
) -> ManifestState:
    """Return the state of a file that cannot be used. Its last valid version still applies."""
    objects = known.objects if known else None
    return ManifestState(file, signature, objects, problems, status, known.loaded_at if known else 0.0)
