"""The node as the cluster sees it. Pure.

Sources: Kubernetes pkg/kubelet/kubelet_node_status.go (initialNode, updateExistingNode, tryUpdateNodeStatus),
pkg/kubelet/nodestatus/setters.go, pkg/util/node/node.go (PatchNodeStatus: addresses are replaced as a whole).
"""

from __future__ import annotations

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339, rfc3339_micro

REPORT = 300.0  # seconds after which the status is sent without a change (nodeStatusReportFrequency)
LEFT = "kubelite.io/left"  # annotation of a Node that `kubelite leave` has cordoned: at which time
LEASE_SECONDS = 40  # nodeLeaseDurationSeconds
#: The version of Kubernetes' API for pods that the node implements, in the form that typed clients expect.
API_VERSION = "v1.36.0"
#: Labels that a node may set on itself (NodeRestriction: pkg/kubelet/apis/well_known_labels.go).
_OWN_PREFIXES = ("kubelet.kubernetes.io/", "node.kubernetes.io/")


def node_object(node: Json, *, port: int, version: str, now: float) -> Json:
    """Return the Node to register, from the node's own document. `port`: of the node's server."""
    metadata, spec = node["metadata"], node.get("spec") or {}
    labels = {key: value for key, value in metadata["labels"].items() if may_set(key)}
    made: Json = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": metadata["name"],
            "labels": labels,
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": {},
        "status": node_status(node, port=port, version=version, now=now),
    }
    if taints := [_plain(one) for one in spec.get("taints") or ()]:
        made["spec"]["taints"] = taints
    return made


def takeover(found: Json, made: Json) -> Json:
    """Return the patch that gives the existing Node `found` the labels and annotations of `made`, which cannot be
    created because `found` has its name. If `kubelite leave` has cordoned `found`, the patch uncordons it."""
    metadata = made["metadata"]
    patch: Json = {"metadata": {"labels": metadata["labels"], "annotations": dict(metadata["annotations"])}}
    if LEFT in (found["metadata"].get("annotations") or {}):
        patch["metadata"]["annotations"][LEFT] = None
        patch["spec"] = {"unschedulable": None}
    return patch


def may_set(label: str) -> bool:
    """Whether a node may set a label on itself: Kubernetes reserves its own prefixes, with a few exceptions."""
    prefix = label.partition("/")[0] if "/" in label else ""
    if prefix not in ("kubernetes.io", "k8s.io") and not prefix.endswith((".kubernetes.io", ".k8s.io")):
        return True
    known = ("kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os",
             "beta.kubernetes.io/arch")  # fmt: skip
    return label in known or label.startswith(_OWN_PREFIXES)


def _plain(taint: Json) -> Json:
    return {key: taint[key] for key in ("key", "value", "effect") if taint.get(key)}


def node_status(node: Json, *, port: int, version: str, now: float) -> Json:
    """Return the status of the Node. `version`: kubelite's own."""
    status = node["status"]
    beat = rfc3339(now)
    conditions = [{**one, "lastHeartbeatTime": beat} for one in status["conditions"]]
    info = {**status["nodeInfo"], "kubeletVersion": f"{API_VERSION}+kubelite{version.replace('+', '.')}"}
    return {
        **status,
        "conditions": conditions,
        "nodeInfo": info,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "runtimeHandlers": [
            {"name": "", "features": {"recursiveReadOnlyMounts": True, "userNamespaces": True}}
        ],
        # An API server hands kubectl's newest protocol through only to a node that declares this feature.
        "declaredFeatures": ["ExtendWebSocketsToKubelet"],
    }


def status_patch(last: Json | None, new: Json, *, sent: float, now: float) -> Json | None:
    """Return the strategic merge patch that brings the Node's status to `new`, or None if `last` says the same and is
    recent. `last`: the status that was sent at `sent` (Unix seconds), None if none was."""
    if last is not None and now - sent < REPORT and _bare(last) == _bare(new):
        return None
    gone = {key: None for key in last or () if key not in new}
    return {"status": {**new, **gone, "addresses": [{"$patch": "replace"}, *new["addresses"]]}}


def _bare(status: Json) -> Json:
    """Return a status without its heartbeats."""
    conditions = [
        {key: value for key, value in one.items() if key != "lastHeartbeatTime"}
        for one in status["conditions"]
    ]
    return {**status, "conditions": conditions}


def lease(node: Json, old: Json | None, now: float) -> Json:
    """Return the Lease of the node, renewed. `node`: the Node as the API server has it. Nobody else ever holds the
    Lease, so it has neither acquireTime nor leaseTransitions, like kubelet's."""
    metadata = node["metadata"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": metadata["name"], "uid": metadata["uid"]}
    fresh = {"name": metadata["name"], "namespace": "kube-node-lease", "ownerReferences": [owner]}
    spec = {
        "holderIdentity": metadata["name"],
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": rfc3339_micro(now),
    }
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": fresh if old is None else {**old["metadata"], "ownerReferences": [owner]},
        "spec": spec if old is None else {**old["spec"], **spec},
    }
