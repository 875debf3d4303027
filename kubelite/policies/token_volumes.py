"""The volume with a token and the CA certificate of the node's API: which pods get it, and its content. Pure.

Source: Kubernetes plugin/pkg/admission/serviceaccount/admission.go (shouldAutomount, mountServiceAccountToken,
TokenVolumeSource). A pod gets the volume when it is created and keeps it, so a change of the setting or of a
ServiceAccount, or an upgrade, restarts nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kubelite.kube.json import Json
from kubelite.kube.objects import (
    AUTHORITY,
    AUTHORITY_KEY,
    DEFAULT_ACCOUNT,
    MOUNTED_SECONDS,
    Automount,
    is_of_cluster,
)

MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
PREFIX = "kube-api-access-"  # of the volume's name
_ALPHANUMERIC = "bcdfghjklmnpqrstvwxz2456789"  # apimachinery pkg/util/rand
_DECIDING = ("serviceAccountName", "automountServiceAccountToken")


@dataclass(frozen=True, slots=True)
class TokenVolumes:
    """`mode`: the node's setting; `accounts`: the ServiceAccounts, by namespace and name."""

    mode: Automount = Automount.NONE
    accounts: Mapping[tuple[str, str], Json] = field(default_factory=dict)

    def added(self, doc: Json) -> Json:
        """Return a new pod with the volume, if it gets one."""
        return _with_volume(doc, _name(doc)) if self._wants(doc) else doc

    def kept(self, old: Json, doc: Json) -> Json:
        """Return the new form of a recorded pod. It has the volume if the pod has it, unless the edit changes what
        decides about it."""
        before, after = (one.get("spec") or {} for one in (old, doc))
        if any(before.get(key) != after.get(key) for key in _DECIDING):
            return self.added(doc)
        given = {one["name"] for one in after.get("volumes") or ()}
        had = (one["name"] for one in before.get("volumes") or ())
        own = next((name for name in had if name.startswith(PREFIX) and name not in given), None)
        return _with_volume(doc, own) if own is not None else doc

    def _wants(self, doc: Json) -> bool:
        if self.mode is Automount.NONE:
            return False
        spec, namespace = doc["spec"], doc["metadata"].get("namespace") or DEFAULT_ACCOUNT
        name = spec.get("serviceAccountName") or DEFAULT_ACCOUNT
        account = self.accounts.get((namespace, name))
        if account is None and name != DEFAULT_ACCOUNT:
            return False  # on a cluster, the pod is refused; here it runs without a token
        asked = spec.get("automountServiceAccountToken")
        if asked is None and account is not None:
            asked = account.get("automountServiceAccountToken")
        if asked is None:
            return self.mode is Automount.ALL or name != DEFAULT_ACCOUNT
        return bool(asked)


def token_volumes(mode: Automount, accounts: Iterable[Json]) -> TokenVolumes:
    if mode is Automount.NONE:
        return TokenVolumes()
    return TokenVolumes(
        mode, {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in accounts}
    )


def uses_api(doc: Json) -> bool:
    """Whether a pod has a volume with a token for the node's API, or with the API's authority. A pod of a cluster has
    those of the cluster's API."""
    if is_of_cluster((doc.get("metadata") or {}).get("annotations") or {}):
        return False
    for volume in (doc.get("spec") or {}).get("volumes") or ():
        if (volume.get("configMap") or {}).get("name") == AUTHORITY:
            return True
        for source in (volume.get("projected") or {}).get("sources") or ():
            token = source.get("serviceAccountToken")
            if (source.get("configMap") or {}).get("name") == AUTHORITY or (
                token and not token.get("audience")
            ):
                return True
    return False


def _with_volume(doc: Json, name: str) -> Json:
    """Return the pod with the volume in each container that mounts nothing at its place."""
    spec, mounted = dict(doc["spec"]), False
    mount = {"name": name, "readOnly": True, "mountPath": MOUNT}
    for part in ("initContainers", "containers"):
        containers = spec.get(part) or ()
        lacking = [one for one in containers if not _mounts(one)]
        if lacking:
            mounted = True
            spec[part] = [
                {**one, "volumeMounts": [*(one.get("volumeMounts") or ()), mount]} if one in lacking else one
                for one in containers
            ]
    if not mounted:
        return doc
    spec["volumes"] = [*(spec.get("volumes") or ()), {"name": name, "projected": _projected()}]
    return {**doc, "spec": spec}


def _mounts(container: Json) -> bool:
    return any(one.get("mountPath") == MOUNT for one in container.get("volumeMounts") or ())


def _projected() -> Json:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": MOUNTED_SECONDS, "path": "token"}},
            {"configMap": {"name": AUTHORITY, "items": [{"key": AUTHORITY_KEY, "path": AUTHORITY_KEY}]}},
            {"downwardAPI": {"items": [namespace]}},
        ],
    }


def _name(doc: Json) -> str:
    """Return a name for the volume that the pod does not use. It follows from the pod's name."""
    metadata = doc["metadata"]
    taken = {one["name"] for one in doc["spec"].get("volumes") or ()}
    seed = f"{metadata.get('namespace', '')}/{metadata.get('name') or metadata.get('generateName', '')}"
    while True:
        digest = hashlib.sha256(seed.encode()).digest()
        name = PREFIX + "".join(_ALPHANUMERIC[byte % len(_ALPHANUMERIC)] for byte in digest[:5])
        if name not in taken:
            return name
        seed += "+"
