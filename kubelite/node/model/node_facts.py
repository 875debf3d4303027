"""This node from the scheduler's point of view: its labels, its taints and its allocatable resources.

Changes that users make (`kubelite node label`, `kubectl taint node`) are stored as an object of kind Node. Values that
the node determines itself (its name, its machine, its pressure) override them whenever the facts are computed.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from kubelite.kube.json import Json
from kubelite.kube.times import parse_time, rfc3339, unix
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.schedule import NO_SCHEDULE, UNSCHEDULABLE_TAINT, NodeFacts, Taint

HOSTNAME = "kubernetes.io/hostname"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
#: Conditions of the node that keep new pods away while they last (Kubernetes feature TaintNodesByCondition).
PRESSURE_TAINTS = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
}


class Offer(NamedTuple):
    """The number of devices of each resource that device plugins offer: all of them, and the healthy ones."""

    all: Mapping[str, int]
    healthy: Mapping[str, int]


NO_DEVICES = Offer({}, {})


def architecture() -> str:
    """The machine's architecture, as Go names it."""
    return _MACHINES.get(platform.machine(), platform.machine())


def own_labels(node_name: str) -> dict[str, str]:
    """The labels that a node gives itself. Reads the machine's architecture and nothing else."""
    machine = architecture()
    return {
        "beta.kubernetes.io/arch": machine,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine,
        HOSTNAME: node_name,
        "kubernetes.io/os": "linux",
    }


def node_facts(
    config: NodeConfig,
    doc: Mapping[str, Any],
    pressure: frozenset[str] = frozenset(),
    devices: Offer = NO_DEVICES,
) -> NodeFacts:
    """Pure: the facts from the node's settings, the object that users change, its conditions (MemoryPressure, …) and
    the devices of its plugins."""
    spec, metadata = doc.get("spec") or {}, doc.get("metadata") or {}
    taints = [
        Taint(t["key"], t.get("value") or "", t["effect"], unix(t.get("timeAdded")))
        for t in spec.get("taints") or ()
    ]
    taints += [Taint(PRESSURE_TAINTS[kind], "", NO_SCHEDULE) for kind in sorted(pressure)]
    return NodeFacts(
        name=config.node_name,
        labels={**(metadata.get("labels") or {}), **own_labels(config.node_name)},
        taints=tuple(taints),
        unschedulable=bool(spec.get("unschedulable")),
        allocatable={**config.allocatable, **devices.healthy},
        devices=devices.all,
    )


class NodeState:
    """The facts, recomputed when the object, the pressure or the devices have changed. `find` reads the object."""

    def __init__(self, config: NodeConfig, find: Callable[[], tuple[int, Mapping[str, Any]] | None]) -> None:
        self._config = config
        self._find = find
        self._kept: tuple[int, frozenset[str], Offer, NodeFacts] | None = None
        self.pressure: frozenset[str] = frozenset()
        self.devices = NO_DEVICES

    def facts(self) -> NodeFacts:
        version, doc = self._find() or (0, {})
        kept = self._kept
        if kept is None or kept[:3] != (version, self.pressure, self.devices):
            facts = node_facts(self._config, doc, self.pressure, self.devices)
            self._kept = kept = (version, self.pressure, self.devices, facts)
        return kept[3]


# -- what users may change ----------------------------------------------------------------------------------------


class ForbiddenPatch(Exception):
    """A patch changes a field that only the node may change. The message names it."""


class InvalidPatch(Exception):
    """A patch gives a field a value that it cannot have. The message names the field."""


class StalePatch(Exception):
    """A patch was made from another version of the node's object, or from another node. The message says so."""


def changes(patch: Mapping[str, Any], shown: Json) -> Json:
    """Pure: a merge patch without the fields whose values the node has already: clients such as pykube send the whole
    object. `shown`: the node's object as clients see it. A status is left out, as on a cluster, where it has a path of
    its own (Kubernetes pkg/registry/core/node/strategy.go, PrepareForUpdate). Raises InvalidPatch, StalePatch."""
    uid = _object(patch, "metadata").get("uid")
    if uid and uid != shown["metadata"].get("uid"):
        raise StalePatch(f"Precondition failed: UID in precondition: {uid}")
    found = {key: value for key, value in patch.items() if key not in ("metadata", "spec", "status")}
    for part in ("metadata", "spec"):
        old = shown.get(part) or {}
        found[part] = {key: value for key, value in _object(patch, part).items() if value != old.get(key)}
    return found


def patched(doc: Json, patch: Mapping[str, Any], *, now: float | None = None) -> Json:
    """Pure: the node's object after a merge patch (RFC 7386) of the fields that users may change: labels, annotations,
    taints and unschedulable. Raises ForbiddenPatch, InvalidPatch, StalePatch."""
    metadata, spec = _object(patch, "metadata"), _object(patch, "spec")
    _only(patch, ("apiVersion", "kind", "metadata", "spec"), "")
    _only(metadata, ("resourceVersion", "labels", "annotations"), "metadata.")
    _only(spec, ("taints", "unschedulable", "$setElementOrder/taints"), "spec.")
    old = doc.get("metadata") or {}
    if metadata.get("resourceVersion"):
        raise StalePatch(
            "the object has been modified; please apply your changes to the latest version and try again"
        )
    made: Json = {"metadata": dict(old), "spec": dict(doc.get("spec") or {})}
    for kind in ("labels", "annotations"):
        if kind in metadata:
            given = _object(metadata, kind)
            _check(kind, {key: value for key, value in given.items() if value is not None})
            made["metadata"][kind] = _merged(old.get(kind) or {}, given)
    if "taints" in spec:
        taints = _taints(spec["taints"] or [], time.time() if now is None else now)
        made["spec"]["taints"] = [taint for taint in taints if not _is_of_node(taint)]
    if "unschedulable" in spec:
        if not isinstance(spec["unschedulable"], bool | None):
            raise InvalidPatch("spec.unschedulable: must be true or false")
        made["spec"]["unschedulable"] = bool(spec["unschedulable"])
    return made


def _is_of_node(taint: Mapping[str, str]) -> bool:
    """Whether the node itself sets a taint, and removes it. A client that adds another one sends it along."""
    return taint["effect"] == NO_SCHEDULE and taint["key"] in (UNSCHEDULABLE_TAINT, *PRESSURE_TAINTS.values())


def _object(given: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    found = given.get(field) or {}
    if not isinstance(found, Mapping):
        raise InvalidPatch(f"{field}: must be an object")
    return found


def _only(given: Mapping[str, Any], known: tuple[str, ...], path: str) -> None:
    for name in given:
        if name not in known:
            raise ForbiddenPatch(
                f"{path}{name} is set by the node: only labels, annotations, taints and "
                "unschedulable can be changed"
            )


def _merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**old, **patch}.items() if value is not None}


def _check(kind: str, given: dict[str, Any]) -> None:
    """Raise InvalidPatch unless labels or annotations are as an API server has them (ValidateObjectMetaAccessor)."""
    from manifests.validation.meta import validate_annotation_keys
    from manifests.validation.pod import validate_labels

    if wrong := [key for key, value in given.items() if not isinstance(value, str)]:
        raise InvalidPatch(f"metadata.{kind}.{wrong[0]}: must be a string")
    check = validate_labels if kind == "labels" else validate_annotation_keys
    for problem in check(given, ("metadata", kind)):
        raise InvalidPatch(f"{problem.field}: {problem.message}")


def _taints(wanted: Any, now: float) -> list[Json]:
    """Records when a NoExecute taint was added, because tolerationSeconds count from then."""
    if not isinstance(wanted, list):
        raise InvalidPatch("spec.taints: must be a list")
    made = []
    for taint in wanted:
        if not isinstance(taint, Mapping) or not taint.get("key"):
            raise ForbiddenPatch("spec.taints: each taint needs a key and an effect")
        if taint.get("effect") not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            raise ForbiddenPatch(
                f"spec.taints: effect {taint.get('effect')!r} must be NoSchedule, PreferNoSchedule or NoExecute"
            )
        one = {name: taint[name] for name in ("key", "value", "effect", "timeAdded") if taint.get(name)}
        if not all(isinstance(value, str) for value in one.values()):
            raise InvalidPatch("spec.taints: key, value, effect and timeAdded are strings")
        for problem in _checked_taint(one):
            raise InvalidPatch(f"spec.taints: {problem}")
        if one["effect"] == "NoExecute":
            one.setdefault("timeAdded", rfc3339(now))
        made.append(one)
    return made


def _checked_taint(taint: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with a taint: it has the key and the value of a label (ValidateTaintsInNodeAddOrUpdate)."""
    from manifests.validation.pod import validate_labels

    for problem in validate_labels({taint["key"]: taint.get("value", "")}, ()):
        yield problem.message
    if taint.get("timeAdded") and parse_time(taint["timeAdded"]) is None:
        yield f"timeAdded {taint['timeAdded']!r} is not an RFC 3339 time"


def shown_taints(facts: NodeFacts, doc: Mapping[str, Any]) -> list[Json]:
    """Pure: spec.taints as the API shows them: those set by users, those of conditions, and that of a cordon."""
    given = list((doc.get("spec") or {}).get("taints") or ())
    known = {(t["key"], t["effect"]) for t in given}
    more = [{"key": t.key, "effect": t.effect} for t in facts.taints if (t.key, t.effect) not in known]
    if facts.unschedulable:
        more.append({"key": UNSCHEDULABLE_TAINT, "effect": NO_SCHEDULE})
    return [*given, *more]
