"""Mirror pods: what the cluster sees of the pods that are the node's own. Pure.

The cluster cannot change the node's own pods. It sees one mirror of each, so that its scheduler counts what they use. A
mirror that somebody deletes comes back.

Sources: Kubernetes pkg/kubelet/config/common.go (generatePodName, applyDefaults), pkg/kubelet/pod/mirror_client.go
(CreateMirrorPod), plugin/pkg/admission/noderestriction/admission.go (admitPodCreate).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from kubelite.cluster.decide.pod_status import status_patch
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE, TERMINAL_PHASES, belongs_to_cluster, own_to_node

#: Annotations of a mirror pod (Kubernetes pkg/kubelet/types/pod_update.go, constants Config…AnnotationKey).
MIRROR = "kubernetes.io/config.mirror"
_HASH, _SOURCE, _SEEN = (f"kubernetes.io/config.{one}" for one in ("hash", "source", "seen"))
#: What admission fills in: the cluster refuses other values, and a priority is one of its own classes.
_LEFT_OUT = ("priority", "preemptionPolicy", "serviceAccount")
_LONGEST = 253  # characters of a pod's name


@dataclass(frozen=True, slots=True)
class Plan:
    """`create`: uid of the node's pod → its mirror; `delete`: mirrors; `tell`: a mirror and the patch of its status."""

    create: dict[str, Json]
    delete: tuple[Json, ...] = ()
    tell: tuple[tuple[Json, Json], ...] = ()


def is_mirror(pod: Json) -> bool:
    return MIRROR in (pod["metadata"].get("annotations") or {})


def mirror_name(name: str, node: str) -> str:
    """Return the name of a pod's mirror: NAME-NODE, like that of a kubelet's static pod. So two nodes with the same
    manifests have different mirrors. The pod itself keeps its name."""
    return f"{name}-{node}"


def has_mirror(pod: Json) -> bool:
    """Whether a pod in the store has a mirror. A pod with a document of its own always has one; a workload's pod has
    one until it ends."""
    if belongs_to_cluster(pod):
        return False
    annotations = pod["metadata"].get("annotations") or {}
    return SOURCE in annotations or (pod.get("status") or {}).get("phase") not in TERMINAL_PHASES


def mirror(pod: Json, node: str, node_uid: str) -> Json:
    """Return the mirror of one of the node's pods."""
    metadata = pod["metadata"]
    spec = {key: value for key, value in pod["spec"].items() if key not in _LEFT_OUT}
    spec["nodeName"] = node
    spec["tolerations"] = [
        *(one for one in spec.get("tolerations") or () if one != _ALWAYS),
        _ALWAYS,
    ]
    annotations = {k: v for k, v in own_to_node(metadata.get("annotations") or {}).items() if k != SOURCE}
    labels = metadata.get("labels") or {}
    what = json.dumps([metadata["uid"], annotations, labels, spec], sort_keys=True)
    digest = hashlib.sha256(what.encode()).hexdigest()[:32]
    own = {MIRROR: digest, _HASH: digest, _SOURCE: "file", _SEEN: metadata.get("creationTimestamp") or ""}
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": True}
    made = {
        "name": mirror_name(metadata["name"], node),
        "namespace": metadata["namespace"],
        "labels": labels,
        "annotations": {**annotations, **own},
        "ownerReferences": [owner],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": spec}


#: The cluster cannot evict what it does not run (config.applyDefaults).
_ALWAYS = {"operator": "Exists", "effect": "NoExecute"}


def plan(own: Iterable[Json], mirrors: Iterable[Json], node: str, node_uid: str) -> Plan:
    """`own`: the pods in the store; `mirrors`: those that the API server has of this node."""
    wanted = {}
    for pod in own:
        if has_mirror(pod) and len(mirror_name(pod["metadata"]["name"], node)) <= _LONGEST:
            made = mirror(pod, node, node_uid)
            wanted[made["metadata"]["namespace"], made["metadata"]["name"]] = pod, made
    delete, tell = [], []
    for there in mirrors:
        metadata = there["metadata"]
        pod, made = wanted.pop((metadata["namespace"], metadata["name"]), ({}, {}))
        is_same = made and metadata["annotations"][MIRROR] == made["metadata"]["annotations"][MIRROR]
        if not is_same or metadata.get("deletionTimestamp"):
            delete.append(there)
        elif (patch := status_patch(there, pod.get("status") or {})) is not None:
            tell.append((there, patch))
    create = {str(pod["metadata"]["uid"]): made for pod, made in wanted.values()}
    return Plan(create, tuple(delete), tuple(tell))
