"""The API server's checks of whole objects, in its words, after defaulting.

The models check shapes and types (manifests.problems words those errors). This module has the checks that Kubernetes
1.36 makes on create (pkg/apis/core/validation/validation.go). All problems are reported, not just the first. The rules
of pods are in manifests.validation.pod, container and volume, those of workloads in manifests.validation.workloads.
"""

import base64
import json
from collections.abc import Iterator

from manifests.names import config_key
from manifests.problems import Path, Problem, forbidden, invalid, required
from manifests.types.annotations import validate_annotations
from manifests.types.claim import PersistentVolumeClaim
from manifests.types.core import ConfigMap, Pod, Secret
from manifests.types.meta import Object
from manifests.types.persistent_volume import PersistentVolume, StorageClass
from manifests.types.priority import PriorityClass
from manifests.types.trust_bundle import ClusterTrustBundle
from manifests.validation.claim import claim_problems
from manifests.validation.meta import validate_meta
from manifests.validation.persistent_volume import persistent_volume_problems, storage_class_problems
from manifests.validation.pod import validate_pod_spec
from manifests.validation.priority import priority_class_problems
from manifests.validation.trust_bundle import trust_bundle_problems

MAX_DATA = 1 << 20  # bytes of all values of a ConfigMap or Secret


def validate_object(obj: Object) -> list[Problem]:
    """Return everything that is wrong with a defaulted object by the rules of its kind."""
    match obj:
        case Pod():
            return validate_pod(obj)
        case ConfigMap():
            return validate_config_map(obj)
        case Secret():
            return validate_secret(obj)
        case PersistentVolumeClaim():
            return [*validate_meta(obj.metadata), *claim_problems(obj)]
        case PersistentVolume():
            return [*validate_meta(obj.metadata, namespaced=False), *persistent_volume_problems(obj)]
        case StorageClass():
            return [*validate_meta(obj.metadata, namespaced=False), *storage_class_problems(obj)]
        case PriorityClass():
            return [*validate_meta(obj.metadata, namespaced=False), *priority_class_problems(obj)]
        case ClusterTrustBundle():  # has its own rules for names
            meta = obj.metadata.model_copy(update={"name": "x"} if obj.metadata.name else {})
            return [*validate_meta(meta, namespaced=False), *trust_bundle_problems(obj)]
    # Imported here: a node with nothing but pods needs none of it.
    from manifests.validation.workloads.kinds import workload_problems

    return workload_problems(obj)


def validate_pod(pod: Pod) -> list[Problem]:
    return [
        *validate_meta(pod.metadata),
        *validate_annotations(pod, ("metadata", "annotations")),
        *validate_pod_spec(pod, ("spec",)),
    ]


def validate_config_map(config_map: ConfigMap) -> list[Problem]:
    return [*validate_meta(config_map.metadata), *_config_data(config_map)]


def validate_secret(secret: Secret) -> list[Problem]:
    return [*validate_meta(secret.metadata), *_secret_data(secret)]


def _config_data(config_map: ConfigMap) -> Iterator[Problem]:
    for key in config_map.data:
        yield from _key(("data", key), key)
        if key in config_map.binary_data:
            yield invalid(("data", key), key, "duplicate of key present in binaryData")
    for key in config_map.binary_data:
        yield from _key(("binaryData", key), key)
    size = sum(len(text.encode()) for text in config_map.data.values())
    size += sum(_decoded_size(text) for text in config_map.binary_data.values())
    if size > MAX_DATA:
        yield Problem((), f"Too long: may not be more than {MAX_DATA} bytes")


def _key(path: Path, key: str) -> Iterator[Problem]:
    for sentence in config_key(key):
        yield invalid(path, key, sentence)


def _decoded_size(text: str) -> int:
    return len(base64.b64decode(text))


_TYPE_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _secret_data(secret: Secret) -> Iterator[Problem]:
    data = secret.data
    for key in data:
        yield from _key(("data", key), key)
    if sum(map(_decoded_size, data.values())) > MAX_DATA:
        yield Problem(("data",), f"Too long: may not be more than {MAX_DATA} bytes")
    for key in _TYPE_KEYS.get(secret.type or "", ()):
        if key not in data:
            yield required(("data", key))
        elif key.startswith(".docker") and not _is_json(data[key]):
            # The value is secret, so it is not shown.
            yield invalid(("data", key), "<secret contents redacted>", "must be a JSON document")
    if secret.type == "kubernetes.io/basic-auth" and not data.keys() & {"username", "password"}:
        yield required(("data", "username"))
        yield required(("data", "password"))
    if secret.type == "kubernetes.io/service-account-token":
        name = "kubernetes.io/service-account.name"
        if not secret.metadata.annotations.get(name):
            yield required(("metadata", "annotations", name))
    if secret.type == "bootstrap.kubernetes.io/token" and secret.metadata.namespace != "kube-system":
        yield forbidden(("metadata", "namespace"), "bootstrap tokens live in kube-system")


def _is_json(text: str) -> bool:
    try:
        json.loads(base64.b64decode(text))
    except ValueError:
        return False
    return True
