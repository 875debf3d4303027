"""What of the cluster a pod needs before it starts: ConfigMaps, Secrets, tokens, claims. Pure.

The Node authorizer lets a node read only what its pods refer to (Kubernetes plugin/pkg/auth/authorizer/node/graph.go,
AddPod): the same references.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from kubelite.kube.json import Json
from kubelite.kube.objects import is_terminal
from kubelite.node.spec.cluster_objects import TOKEN_SECONDS, TokenAsked

_KEY = re.compile(r"(?!\.$)[-._a-zA-Z0-9]{1,253}")
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


class Reference(NamedTuple):
    """An object that a pod names: ConfigMap or Secret."""

    kind: str
    namespace: str
    name: str


def content(pod: Json) -> set[Reference]:
    """Return the ConfigMaps and Secrets that a pod refers to."""
    namespace, spec = pod["metadata"]["namespace"], pod["spec"]
    found = {("Secret", one.get("name")) for one in spec.get("imagePullSecrets") or ()}
    for part in _CONTAINERS:
        for container in spec.get(part) or ():
            found.update(_of_container(container))
    for volume in spec.get("volumes") or ():
        found.update(_of_volume(volume))
    return {Reference(kind, namespace, str(name)) for kind, name in found if name}


def _of_container(container: Json) -> Iterator[tuple[str, str | None]]:
    for one in container.get("envFrom") or ():
        yield "ConfigMap", (one.get("configMapRef") or {}).get("name")
        yield "Secret", (one.get("secretRef") or {}).get("name")
    for one in container.get("env") or ():
        source = one.get("valueFrom") or {}
        yield "ConfigMap", (source.get("configMapKeyRef") or {}).get("name")
        yield "Secret", (source.get("secretKeyRef") or {}).get("name")


def _of_volume(volume: Json) -> Iterator[tuple[str, str | None]]:
    yield "ConfigMap", (volume.get("configMap") or {}).get("name")
    yield "Secret", (volume.get("secret") or {}).get("secretName")
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield "ConfigMap", (source.get("configMap") or {}).get("name")
        yield "Secret", (source.get("secret") or {}).get("name")


def tokens(pod: Json) -> set[TokenAsked]:
    """Return the tokens that a pod's volumes have."""
    every = (
        source["serviceAccountToken"]
        for volume in pod["spec"].get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
        if source.get("serviceAccountToken")
    )
    return {
        TokenAsked(one.get("audience") or "", int(one.get("expirationSeconds") or TOKEN_SECONDS))
        for one in every
    }


def claims(pod: Json) -> dict[str, tuple[str, bool]]:
    """Return the claims that a pod mounts: name of the volume → (name of the claim, whether it is read-only)."""
    found: dict[str, tuple[str, bool]] = {}
    for volume in pod["spec"].get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            found[volume["name"]] = str(claim["claimName"]), bool(claim.get("readOnly"))
        elif volume.get("ephemeral"):  # the cluster's controller makes the claim under this name
            found[volume["name"]] = f"{pod['metadata']['name']}-{volume['name']}", False
    return found


def volume_of(claim: Json, volume: Json, *, read_only: bool) -> Json | str:
    """Return the volume of a pod that a bound PersistentVolume is, or why the node has none. `local` and `hostPath` are
    directories of the node; where a pod may run because of them, the scheduler has decided."""
    spec, name = volume["spec"], claim["metadata"]["name"]
    if (claim["spec"].get("volumeMode") or "Filesystem") != "Filesystem":
        return f"claim {name}: block volumes of the cluster are not supported on this node"
    if path := (spec.get("hostPath") or {}).get("path"):
        return {"hostPath": {"path": path, "type": (spec["hostPath"].get("type") or "")}}
    if path := (spec.get("local") or {}).get("path"):
        return {"hostPath": {"path": path, "type": "Directory"}}
    if export := spec.get("nfs"):
        given = {"server": export["server"], "path": export["path"]}
        return {"nfs": {**given, "readOnly": True} if read_only or export.get("readOnly") else given}
    kinds = sorted(set(spec) - {"accessModes", "capacity", "claimRef", "persistentVolumeReclaimPolicy",
                                "storageClassName", "volumeMode", "nodeAffinity", "mountOptions"})  # fmt: skip
    return f"claim {name}: volumes of kind {', '.join(kinds) or 'unknown'} are not supported on this node"


def safe(doc: Json) -> Json:
    """Return a ConfigMap or Secret without the keys that are no file names. An API server has none (Kubernetes
    apimachinery pkg/util/validation, IsConfigMapKey), but the node does not rely on that: it makes paths of keys."""
    parts = {part: doc[part] for part in ("data", "binaryData", "stringData") if doc.get(part)}
    kept = {
        part: {key: value for key, value in found.items() if _KEY.fullmatch(key) and not key.startswith("..")}
        for part, found in parts.items()
    }
    return {**doc, **kept} if kept != parts else doc


def is_over(pod: Json) -> bool:
    """Whether a pod of the cluster needs nothing any more."""
    return is_terminal(pod.get("status") or {})
