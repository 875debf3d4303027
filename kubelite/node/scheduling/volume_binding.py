"""Pure: which PersistentVolume a claim binds to, a volume's phase, and whether a pod's claims allow it to be scheduled
(Kubernetes pkg/controller/volume/persistentvolume and pkg/scheduler/framework/plugins/volumebinding).

A claim binds to the smallest matching volume from a manifest. If there is none, a volume is provisioned
(storage/claims.py) by the default class `kubelite` or by any other class, except classes without a provisioner. Unlike
on a cluster, a released volume binds again to a claim with the same namespace and name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kubelite.kube.json import Json
from kubelite.node.model.claim_names import claim_name, own_volume
from kubelite.node.model.schedule import NodeFacts, Unbound
from kubelite.node.scheduling.filters import matches_terms
from manifests.types.core import NodeSelector, Pod
from manifests.types.meta import LabelSelector, Quantity

KIND, CLASS_KIND = "PersistentVolume", "StorageClass"
BUILT_IN = "kubelite"  # the class of the volumes that the node provisions
PROVISIONER, NO_PROVISIONER = "kubelite.io/directory", "kubernetes.io/no-provisioner"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
ON_FIRST_USE = "WaitForFirstConsumer"
NONE_THERE = "no persistent volumes available for this claim"

Doc = Mapping[str, Any]
Find = Callable[[str, str, str], Doc | None]


@dataclass(frozen=True, slots=True)
class Shelf:
    """What claims can bind to: the volumes from manifests and all classes, by name, and the node."""

    node: NodeFacts
    volumes: Mapping[str, Doc] = field(default_factory=dict)
    classes: Mapping[str, Doc] = field(default_factory=dict)


class Verdict(NamedTuple):
    """The outcome for a claim, with its event. Bound without a `volume` means that one is to be provisioned."""

    phase: str  # Bound, Pending, Lost
    volume: str = ""
    type: str = "Normal"
    reason: str = ""
    message: str = ""


def named_class(doc: Doc) -> str | None:
    """Return the class that a claim or a volume names; None if it names none. The annotation, which is older than the
    field, takes precedence (Kubernetes component-helpers storage/volume/helpers.go, GetPersistentVolumeClaimClass)."""
    annotations = doc["metadata"].get("annotations") or {}
    found: str | None = annotations.get(CLASS_ANNOTATION, doc["spec"].get("storageClassName"))
    return found


def class_of(claim: Doc, classes: Mapping[str, Doc]) -> str:
    """The requested class, else the default: the newest class marked so, preferring manifests over the built-in one."""
    asked = named_class(claim)
    if asked is not None:
        return asked
    marked = [
        c for c in classes.values() if (c["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    ranked = sorted(
        marked,
        key=lambda c: (
            c["metadata"]["name"] != BUILT_IN,
            c["metadata"].get("creationTimestamp", ""),
            c["metadata"]["name"],
        ),
    )
    return str(ranked[-1]["metadata"]["name"]) if ranked else BUILT_IN


def bind(
    claim: Doc, shelf: Shelf, *, used: Callable[[], bool] = lambda: True, remembered: str = ""
) -> Verdict:
    """Decide the phase and the volume of a claim. `used`: whether a pod mounts the claim. `remembered`: the volume that
    it had, if the node lost all other records."""
    asked = claim["spec"].get("volumeName") or ""
    if asked and asked != own_volume(claim):
        return _asked(claim, asked, shelf)
    if not asked:
        found = find_volume(claim, shelf, remembered)
        if found is not None:
            return Verdict("Bound", found["metadata"]["name"])
        why = _none_made(claim, shelf, used)
        if why is not None:
            return why
    return Verdict("Bound")


def _asked(claim: Doc, name: str, shelf: Shelf) -> Verdict:
    """The outcome for a claim with `volumeName`, which its manifest or an earlier binding has set."""
    had = (claim.get("status") or {}).get("phase") in ("Bound", "Lost")
    volume = shelf.volumes.get(name)
    if volume is None:
        if had:
            words = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            return Verdict("Lost", name, "Warning", "ClaimLost", words)
        return Verdict("Pending", name, "Warning", "FailedBinding", f'volume "{name}" not found')
    if not _free(volume, claim):
        if had:
            words = "Two claims are bound to the same volume, this one is bound incorrectly"
            return Verdict("Lost", name, "Warning", "ClaimMisbound", words)
        words = f'volume "{name}" already bound to a different claim.'
        return Verdict("Pending", name, "Warning", "FailedBinding", words)
    why = "" if had else _mismatch(claim, volume, shelf)
    if why:
        words = f'Cannot bind to requested volume "{name}": {why}'
        return Verdict("Pending", name, "Warning", "VolumeMismatch", words)
    return Verdict("Bound", name)


def _mismatch(claim: Doc, volume: Doc, shelf: Shelf) -> str:
    """Why the volume does not satisfy the claim; "" if it does (Kubernetes pv_controller.go, checkVolumeSatisfyClaim,
    with its messages)."""
    spec = volume["spec"]
    if _size(volume) < _requested(claim):
        return "requested PV is too small"
    if (named_class(volume) or "") != class_of(claim, shelf.classes):
        return "storageClassName does not match"
    if _mode(volume) != _mode(claim):
        return "incompatible volumeMode"
    if not set(claim["spec"].get("accessModes") or ()) <= set(spec.get("accessModes") or ()):
        return "incompatible accessMode"
    return ""


def find_volume(claim: Doc, shelf: Shelf, remembered: str = "") -> Doc | None:
    """The volume reserved for this claim, else the smallest that fits, those with the fewest access modes first
    (Kubernetes pkg/controller/volume/persistentvolume/index.go)."""
    wanted, size = set(claim["spec"].get("accessModes") or ()), _requested(claim)
    fits = [
        volume
        for volume in shelf.volumes.values()
        if _mode(volume) == _mode(claim)
        and wanted <= set(volume["spec"].get("accessModes") or ())
        and _size(volume) >= size
        and on_node(volume, shelf.node)
    ]
    for volume in fits:
        if volume["spec"].get("claimRef") and _free(volume, claim):
            return volume
    name, selector = class_of(claim, shelf.classes), _selector(claim)
    free = [
        volume
        for volume in fits
        if not volume["spec"].get("claimRef")
        and not volume["metadata"].get("deletionTimestamp")
        and (named_class(volume) or "") == name
        and (selector is None or selector.matches(volume["metadata"].get("labels") or {}))
    ]

    def rank(volume: Doc) -> tuple[bool, int, int, str]:
        own = volume["metadata"]["name"]
        return own != remembered, len(volume["spec"]["accessModes"]), _size(volume), own

    return min(free, key=rank, default=None)


def _none_made(claim: Doc, shelf: Shelf, used: Callable[[], bool]) -> Verdict | None:
    """Why no volume is provisioned for a claim that matches none; None if one is."""
    name, spec = class_of(claim, shelf.classes), claim["spec"]
    found = shelf.classes.get(name)
    by_hand = found is None and any(named_class(v) == name for v in shelf.volumes.values())
    if not name:
        return Verdict("Pending", reason="FailedBinding", message=f"{NONE_THERE} and no storage class is set")
    if found is not None and found.get("volumeBindingMode") == ON_FIRST_USE and not used():
        words = "waiting for first consumer to be created before binding"
        return Verdict("Pending", reason=ON_FIRST_USE, message=words)
    if by_hand or (found is not None and found.get("provisioner") == NO_PROVISIONER):
        return Verdict(
            "Pending", reason="FailedBinding", message=f"{NONE_THERE}, and class {name} provisions none"
        )
    for alias in ("selector", "dataSource", "dataSourceRef"):
        if spec.get(alias):
            words = f"spec.{alias}: kubelite provisions every volume empty and for one claim only"
            return Verdict("Pending", type="Warning", reason="ProvisioningFailed", message=words)
    return None


def _free(volume: Doc, claim: Doc) -> bool:
    """Whether the volume is unclaimed, or reserved for this claim."""
    ref = volume["spec"].get("claimRef")
    return not ref or refers_to(ref, claim)


def refers_to(ref: Doc, claim: Doc) -> bool:
    """Whether a claimRef names the claim. Its uid does not count: if a claim's manifest is removed and added again, its
    volume still refers to it."""
    own = claim["metadata"]
    return (ref.get("namespace"), ref.get("name")) == (own.get("namespace") or "default", own["name"])


def _size(volume: Doc) -> int:
    return Quantity((volume["spec"].get("capacity") or {}).get("storage", "0")).value()


def _requested(claim: Doc) -> int:
    wanted = (claim["spec"].get("resources") or {}).get("requests") or {}
    return Quantity(wanted.get("storage", "0")).value()


def _mode(doc: Doc) -> str:
    return str(doc["spec"].get("volumeMode") or "Filesystem")


def _selector(claim: Doc) -> LabelSelector | None:
    given = claim["spec"].get("selector")
    return LabelSelector.parse(given) if given else None


def on_node(volume: Doc, node: NodeFacts) -> bool:
    """Whether the volume's nodeAffinity matches the node."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return not required or matches_terms(NodeSelector.parse(required), node)


# -- the objects that are written ---------------------------------------------------------------------------------


def bound_claim(claim: Json, volume: Doc, classes: Mapping[str, Doc]) -> Json:
    """The claim's object once it is bound to a volume from a manifest."""
    spec, given = claim["spec"], volume["spec"]
    status = {
        "phase": "Bound",
        "accessModes": list(given.get("accessModes") or ()),
        "capacity": dict(given.get("capacity") or {}),
    }
    named = {"storageClassName": class_of(claim, classes), **spec, "volumeName": volume["metadata"]["name"]}
    return {**claim, "spec": named, "status": status}


def claimed_volume(volume: Json, claim: Doc) -> Json:
    """The volume's object once a claim is bound to it."""
    own = claim["metadata"]
    ref = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "name": own["name"],
        "namespace": own.get("namespace") or "default",
        "uid": own.get("uid", ""),
    }
    return {**volume, "spec": {**volume["spec"], "claimRef": ref}}


def phase_of(volume: Doc, claim: Doc | None) -> str:
    """The phase of a volume. `claim`: the claim that its claimRef names, if it exists."""
    ref = volume["spec"].get("claimRef")
    if not ref:
        return "Available"
    if claim is not None and claim["spec"].get("volumeName") == volume["metadata"]["name"]:
        return "Bound" if (claim.get("status") or {}).get("phase") == "Bound" else "Available"
    return "Released" if ref.get("uid") else "Available"


def in_phase(volume: Json, phase: str, at: str, *, reason: str = "", message: str = "") -> Json | None:
    """The volume's object with this phase; None if its status is the same already. `at`: RFC 3339."""
    old = volume.get("status") or {}
    words = {k: v for k, v in (("reason", reason), ("message", message)) if v}
    since = at if old.get("phase") != phase else old.get("lastPhaseTransitionTime", at)
    status = {"phase": phase, "lastPhaseTransitionTime": since, **words}
    return None if status == old else {**volume, "status": status}


def made_volume(claim: Doc, path: str, policy: str) -> Json:
    """The object of a provisioned volume, without the fields that the node adds."""
    spec: Json = {
        "accessModes": list(claim["spec"].get("accessModes") or ()),
        "capacity": dict((claim.get("status") or {}).get("capacity") or {}),
        "persistentVolumeReclaimPolicy": policy,
        "storageClassName": named_class(claim) or "",
        "volumeMode": _mode(claim),
    }
    spec |= {"local": {"path": path}} if _mode(claim) == "Block" else {"hostPath": {"path": path, "type": ""}}
    metadata = {"name": own_volume(claim), "annotations": {PROVISIONED_BY: PROVISIONER}}
    doc = {"apiVersion": "v1", "kind": KIND, "metadata": metadata, "spec": spec}
    return claimed_volume(doc, claim)


def built_in_class(policy: str) -> Json:
    """The StorageClass of volumes that the node provisions, which is the default class."""
    metadata = {"name": BUILT_IN, "annotations": {DEFAULT_CLASS: "true"}}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": CLASS_KIND,
        "metadata": metadata,
        "provisioner": PROVISIONER,
        "reclaimPolicy": policy,
        "volumeBindingMode": "Immediate",
        "allowVolumeExpansion": True,
    }


# -- scheduling ---------------------------------------------------------------------------------------------------


def unbound(pod: Pod, find: Find, node: NodeFacts) -> Unbound | None:
    namespace = pod.metadata.namespace or "default"
    for volume in pod.spec.volumes:
        if not (name := claim_name(pod, volume)):
            continue
        claim = find("PersistentVolumeClaim", namespace, name)
        if claim is None:
            waits = (
                "waiting for ephemeral volume controller to create the "
                if volume.ephemeral is not None
                else ""
            )
            return Unbound(f'{waits}persistentvolumeclaim "{name}"' + " not found" * (not waits))
        if claim["metadata"].get("deletionTimestamp"):
            return Unbound(f'persistentvolumeclaim "{name}" is being deleted')
        phase, own = (claim.get("status") or {}).get("phase"), claim["spec"].get("volumeName") or ""
        if phase == "Lost":
            words = f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{own}"'
            return Unbound(words)
        if phase != "Bound":
            found = find(CLASS_KIND, "", named_class(claim) or "")
            if found is not None and found.get("volumeBindingMode") == ON_FIRST_USE:
                return Unbound("node(s) didn't find available persistent volumes to bind", here=True)
            return Unbound("pod has unbound immediate PersistentVolumeClaims")
        held = find(KIND, "", own)
        if held is not None and not on_node(held, node):
            return Unbound("node(s) didn't match PersistentVolume's node affinity", here=True)
    return None


def by_name(docs: Iterable[Doc]) -> dict[str, Doc]:
    return {doc["metadata"]["name"]: doc for doc in docs}
