"""What a controller decides from, and what it decides: frozen values.

A controller is a pure function `decide(view) -> Plan`. It gets one object (a Deployment, say) with everything that the
object may own, and returns effects. `kubelite.controllers.manager` calls it again whenever one of these changes, and
carries the effects out in their order. A controller remembers nothing: what it needs to know tomorrow is in a document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kubelite.kube.json import Json


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object. `doc` is complete except for what the store adds: uid, creationTimestamp, generation and, for
    a pod, status and nodeName. It has `metadata.name`, or `metadata.generateName`, to which five random characters are
    added. If an object has the name already, the plan ends and the controller decides again.

    A plan cannot know a generated name. The manager therefore records the event for it, as RealPodControl does in
    Kubernetes' controller_utils.go: `SuccessfulCreate`, "Created pod: web-x2k4p", about the controlling owner."""

    doc: Json


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Replace an object, except for its status.

    `doc` is a copy of a document of the view, with changes to its metadata, its spec, or the fields that a kind without
    a spec has (`data` and `revision` of a ControllerRevision). A changed spec increments `metadata.generation`.
    If the object's resourceVersion in the store differs from that of `doc`, the rest of the plan is dropped and the
    controller decides again."""

    doc: Json


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Replace `status` of an object. Nothing is written if it is the same."""

    uid: str
    status: Json


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object. A pod is terminated gracefully, with its own grace period. What the object owns is deleted
    after it (background cascade), or loses its owner (`orphan`). `finalizer`: one that the object loses in the same
    write, so that nothing waits for it and no kill of the daemon comes between the two."""

    uid: str
    orphan: bool = False
    finalizer: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """Take a finalizer from an object, whatever else of it has changed since the view. Part of `Together`."""

    uid: str
    finalizer: str


@dataclass(frozen=True, slots=True)
class Together:
    """Write several objects in one transaction: a kill of the daemon leaves all of it or nothing, and a watcher sees
    each object once. Kubernetes needs a request for each object and for its status. `Delete` is that of a pod; if one
    of the objects is gone, or another version than that of a `Rewrite`, nothing is written and the plan ends."""

    effects: Sequence[Rewrite | SetStatus | Delete | Release]


@dataclass(frozen=True, slots=True)
class Event:
    """Record an event about an object. `type`: Normal or Warning."""

    about: Json  # the object's document
    type: str
    reason: str
    message: str


Effect = Create | Rewrite | SetStatus | Delete | Together | Event


@dataclass(frozen=True, slots=True)
class Plan:
    """Effects in the order in which they are carried out. Adjacent effects of one class run beside each other.
    `again`: decide again after so many seconds, even if nothing changes; None: only when something changes."""

    effects: Sequence[Effect] = ()
    again: float | None = None


def _admitted(_pod: Json) -> str:
    return ""


def _free(_kind: str, _name: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class View:
    """What a controller sees. Documents must not be changed in place.

    `objects`: by kind, the documents of the owner's namespace that the owner controls (by ownerReference), and those
    that no object controls; of the kinds that a controller `shares`, all of the namespace. Each tuple is sorted by
    name. Terminating objects (`metadata.deletionTimestamp`) are included until they are gone. `refusal`: why a pod
    would not be admitted ("" if it would be), as an API server says it: `pods "web-x" is forbidden: …`. `taken`:
    whether an object of a kind and name exists in the namespace, whoever controls it.
    """

    owner: Json
    now: float  # Unix seconds
    objects: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    node: Json = field(default_factory=dict)  # the v1 Node
    refusal: Callable[[Json], str] = _admitted
    taken: Callable[[str, str], bool] = _free

    def of(self, kind: str) -> Sequence[Json]:
        return self.objects.get(kind, ())


Decide = Callable[[View], Plan]


@dataclass(frozen=True, slots=True)
class Controller:
    """`kind`: whose objects it manages. `owns`: kinds in its view. `module`: where its `decide` is; it is imported when
    the first object of the kind appears. `shares`: those of `owns` whose objects are all in the view, whoever controls
    them (the claims of a StatefulSet: a pod controls those that are deleted with it). `sees_node`: its view has the
    node, and it decides again when the node's labels or taints change."""

    kind: str
    api_version: str
    owns: tuple[str, ...]
    module: str
    shares: tuple[str, ...] = ()
    sees_node: bool = False
