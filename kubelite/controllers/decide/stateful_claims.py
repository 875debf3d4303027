"""The PersistentVolumeClaims of a StatefulSet's pods: their names, the pods' volumes, and who owns them.

Sources: Kubernetes pkg/controller/statefulset/stateful_set_utils.go. Pure. Who owns a claim says with what it is
deleted (persistentVolumeClaimRetentionPolicy): with the set, with a pod that is scaled down, or with neither.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubelite.controllers.references import owner_reference
from kubelite.kube.json import Json

KIND = "PersistentVolumeClaim"
# What the API server adds to every claim (plugin/pkg/admission/storage/storageobjectinuseprotection).
FINALIZER = "kubernetes.io/pvc-protection"
_SET, _POD = ("apps/v1", "StatefulSet"), ("v1", "Pod")


def templates(owner: Json) -> Iterator[Json]:
    yield from owner["spec"].get("volumeClaimTemplates") or ()


def claim_name(template: Json, pod: str) -> str:
    """TEMPLATE-SET-ORDINAL. `pod`: the pod's name."""
    return f"{template['metadata']['name']}-{pod}"


def new_claims(owner: Json, pod: str) -> list[Json]:
    """Return the claims of one pod, as they are created (getPersistentVolumeClaims). They belong to the set already, if
    they are to be deleted with it."""
    selected = (owner["spec"].get("selector") or {}).get("matchLabels") or {}
    return [_claim(owner, template, pod, selected) for template in templates(owner)]


def _claim(owner: Json, template: Json, pod: str, selected: Json) -> Json:
    given = template["metadata"]
    metadata: Json = {
        "name": claim_name(template, pod),
        "namespace": owner["metadata"].get("namespace", "default"),
        "labels": {**(given.get("labels") or {}), **selected},
        "finalizers": [FINALIZER],
    }
    if given.get("annotations"):
        metadata["annotations"] = dict(given["annotations"])
    if policy(owner)[1]:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return {"apiVersion": "v1", "kind": KIND, "metadata": metadata, "spec": template.get("spec") or {}}


def with_volumes(owner: Json, spec: Json, pod: str) -> Json:
    """Return a pod's spec with a volume for each claim; it replaces one of the template with this name
    (updateStorage)."""
    volumes = {
        template["metadata"]["name"]: {
            "name": template["metadata"]["name"],
            "persistentVolumeClaim": {"claimName": claim_name(template, pod)},
        }
        for template in templates(owner)
    }
    if not volumes:
        return spec
    others = [volume for volume in spec.get("volumes") or () if volume["name"] not in volumes]
    return {**spec, "volumes": [*volumes.values(), *others]}


def has_volumes(owner: Json, pod: Json) -> bool:
    """Whether a pod mounts its claims (storageMatches)."""
    name = pod["metadata"]["name"]
    mounted = {
        volume["name"]: (volume.get("persistentVolumeClaim") or {}).get("claimName")
        for volume in pod["spec"].get("volumes") or ()
    }
    return all(
        mounted.get(template["metadata"]["name"]) == claim_name(template, name)
        for template in templates(owner)
    )


def policy(owner: Json) -> tuple[bool, bool]:
    """Whether claims are deleted when the set is scaled down, and when it is deleted."""
    given = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return given.get("whenScaled") == "Delete", given.get("whenDeleted") == "Delete"


def is_stale(claim: Json, pod: Json) -> bool:
    """Whether a claim belongs to an earlier pod of this name, with which it is being deleted (hasStaleOwnerRef)."""
    first = next((ref for ref in _owners(claim) if _names(ref, pod, _POD)), None)
    return first is not None and first.get("uid") != pod["metadata"].get("uid")


def has_other_controller(claim: Json, owner: Json, pod: Json) -> bool:
    """Whether something else controls the claim, so that the policy is ignored (hasUnexpectedController)."""
    if not any(policy(owner)):
        return False
    for ref in _owners(claim):
        ours = next((one for one, kind in ((owner, _SET), (pod, _POD)) if _names(ref, one, kind)), None)
        if ours is not None and ref.get("uid") != ours["metadata"].get("uid"):
            return True  # an earlier object of this name
        if ours is None and ref.get("controller"):
            return True
    return False


def has_right_owners(claim: Json, owner: Json, pod: Json, condemned: bool) -> bool:
    """Whether the claim's owners are those that the policy asks for (isClaimOwnerUpToDate). `condemned`: the pod is
    scaled down. A claim of an earlier set or pod of this name is right as it is: it is being deleted."""
    if _is_stale_set(claim, owner) or is_stale(claim, pod):
        return True
    of_set, of_pod = _has(claim, owner), _has(claim, pod)
    if has_other_controller(claim, owner, pod):
        return not of_set and not of_pod
    ours = (owner["metadata"].get("uid"), pod["metadata"].get("uid"))
    if any(ref.get("uid") in ours and not ref.get("controller") for ref in _owners(claim)):
        return False
    return (of_set, of_pod) == _wanted(owner, condemned)


def with_owners(claim: Json, owner: Json, pod: Json, condemned: bool) -> Json:
    """Return the claim with the owners that the policy asks for, and others that it has
    (updateClaimOwnerRefForSetAndPod)."""
    left = [ref for ref in _owners(claim) if not _names(ref, owner, _SET) and not _names(ref, pod, _POD)]
    if not has_other_controller(claim, owner, pod):
        by_set, by_pod = _wanted(owner, condemned)
        wanted = [one for one, needed in ((owner, by_set), (pod, by_pod)) if needed]
        known = {ref.get("uid") for ref in left}
        left += [owner_reference(one) for one in wanted if one["metadata"]["uid"] not in known]
    metadata = {key: value for key, value in claim["metadata"].items() if key != "ownerReferences"}
    return {**claim, "metadata": {**metadata, **({"ownerReferences": left} if left else {})}}


def _wanted(owner: Json, condemned: bool) -> tuple[bool, bool]:
    """Whether a claim belongs to the set, and whether it belongs to its pod."""
    when_scaled, when_deleted = policy(owner)
    by_pod = when_scaled and condemned
    return when_deleted and not by_pod, by_pod


def _owners(claim: Json) -> list[Json]:
    return list(claim["metadata"].get("ownerReferences") or ())


def _has(claim: Json, doc: Json) -> bool:
    return any(ref.get("uid") == doc["metadata"].get("uid") for ref in _owners(claim))


def _names(ref: Json, doc: Json, kind: tuple[str, str]) -> bool:
    return (ref.get("apiVersion"), ref.get("kind")) == kind and ref.get("name") == doc["metadata"]["name"]


def _is_stale_set(claim: Json, owner: Json) -> bool:
    first = next((ref for ref in _owners(claim) if _names(ref, owner, _SET)), None)
    return first is not None and first.get("uid") != owner["metadata"].get("uid")
