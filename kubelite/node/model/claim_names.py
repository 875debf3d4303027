"""Pure: the PersistentVolumeClaims of a pod's volumes: those that it names, and those of its generic ephemeral volumes.
The latter belong to the pod: they are named `<pod>-<volume>`, created from a template and deleted with the pod
(Kubernetes pkg/controller/volume/ephemeral).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubelite.kube.json import Json
from manifests.types.claim import PersistentVolumeClaim, default_claim
from manifests.types.core import Pod, Volume

KIND = "PersistentVolumeClaim"


def claim_name(pod: Pod, volume: Volume) -> str:
    """The claim of a volume; "" if the volume has none."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.metadata.name}-{volume.name}" if volume.ephemeral is not None else ""


def claim_name_in(pod: str, volume: Mapping[str, Any]) -> str:
    """The same as `claim_name` for a volume in JSON form. `pod`: the pod's name."""
    if (claim := volume.get("persistentVolumeClaim")) is not None:
        return str(claim.get("claimName") or "")
    return f"{pod}-{volume['name']}" if volume.get("ephemeral") is not None else ""


def claim_names(pod: Pod) -> tuple[str, ...]:
    """All claims that the pod mounts, including its own."""
    return tuple(name for volume in pod.spec.volumes if (name := claim_name(pod, volume)))


def own_claims(pod: Pod) -> list[Json]:
    """The claims to create for the pod's ephemeral volumes, without uid and status."""
    return [_own(pod, volume) for volume in pod.spec.volumes if volume.ephemeral is not None]


def _own(pod: Pod, volume: Volume) -> Json:
    assert volume.ephemeral is not None
    template = volume.ephemeral.volume_claim_template
    given = template.metadata if template is not None else None
    claim = PersistentVolumeClaim() if template is None else PersistentVolumeClaim(spec=template.spec)
    doc = default_claim(claim).to_json()
    metadata: Json = {"name": claim_name(pod, volume), "namespace": pod.metadata.namespace or "default"}
    if given is not None and given.labels:
        metadata["labels"] = dict(given.labels)
    if given is not None and given.annotations:
        metadata["annotations"] = dict(given.annotations)
    metadata["ownerReferences"] = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.metadata.name,
            "uid": pod.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    return {"apiVersion": "v1", "kind": KIND, "metadata": metadata, "spec": doc.get("spec") or {}}


def own_volume(claim: Mapping[str, Any]) -> str:
    """The name of the volume that is provisioned for a claim."""
    return f"pvc-{claim['metadata'].get('uid', '')}"


def owner_of(claim: Mapping[str, Any]) -> str:
    """The uid of the pod that a claim was created for, as one of its ephemeral volumes; "" if there is none.

    A StatefulSet's claim belongs to a pod, too, if it is to be deleted after the set has been scaled down. It is named
    `<template>-<pod>`, an ephemeral volume's `<pod>-<volume>`.
    """
    name = str(claim["metadata"].get("name", ""))
    owners = claim["metadata"].get("ownerReferences") or ()
    return next(
        (
            o["uid"]
            for o in owners
            if o.get("kind") == "Pod" and o.get("controller") and name.startswith(f"{o.get('name', '')}-")
        ),
        "",
    )


def not_owner(pod: Pod, name: str) -> str:
    """The message of Kubernetes component-helpers/storage/ephemeral, VolumeIsForPod."""
    namespace = pod.metadata.namespace or "default"
    return (
        f"PVC {namespace}/{name} was not created for pod {namespace}/{pod.metadata.name} (pod is not owner)"
    )


def followed(claim: Json, wanted: Json) -> Json | None:
    """A pod's own claim, updated after an edit of its template in the pod; None if nothing changes."""
    spec = {**claim["spec"], **wanted["spec"]}
    kept = {k: v for k, v in claim["metadata"].items() if k not in ("labels", "annotations")}
    changed = {**claim, "metadata": {**kept, **wanted["metadata"]}, "spec": spec}
    return None if changed == claim else changed
