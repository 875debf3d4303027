"""Pure: keeps deleted claims and volumes that are in use, as a cluster does (Kubernetes
pkg/controller/volume/pvcprotection and pvprotection). They are Terminating until no pod uses the claim, and no claim is
bound to the volume.

Unlike on a cluster, adding the manifest again before then cancels the deletion.
"""

from __future__ import annotations

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

FINALIZERS = {
    "PersistentVolumeClaim": "kubernetes.io/pvc-protection",
    "PersistentVolume": "kubernetes.io/pv-protection",
}


def protected(kind: str, metadata: Json) -> Json:
    """An object's metadata with the finalizer that protects it."""
    if kind not in FINALIZERS:
        return metadata
    others = [one for one in metadata.get("finalizers") or () if one != FINALIZERS[kind]]
    return {**metadata, "finalizers": [*others, FINALIZERS[kind]]}


def terminating(doc: Json, kind: str, now: float) -> Json | None:
    """The object, marked as being deleted; None if it is marked already."""
    if doc["metadata"].get("deletionTimestamp"):
        return None
    metadata = {**protected(kind, doc["metadata"]), "deletionTimestamp": rfc3339(now)}
    return {**doc, "metadata": {**metadata, "deletionGracePeriodSeconds": 0}}


def is_terminating(doc: Json) -> bool:
    return bool(doc["metadata"].get("deletionTimestamp"))
