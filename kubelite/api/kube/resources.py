"""The kinds served under /api/v1 and /apis: their names, discovery documents, and how they are read from the node.

A namespace exists if the store has an object in it, other than an event; `default` always exists. There is exactly one
node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kubelite.api.kube.pod_defaults import with_defaults
from kubelite.api.node import NodeApi
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import selector_of, selector_text
from kubelite.kube.objects import ACCOUNT, AUTHORITY, CONTROLLED, DEFAULT_ACCOUNT, WORKLOADS

_ONE_BY_ONE = ("create", "delete", "get", "list", "patch", "update", "watch")
_WRITTEN = ("create", "delete", "deletecollection", *_ONE_BY_ONE[2:])


class Resource(NamedTuple):
    plural: str
    kind: str
    namespaced: bool
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _WRITTEN
    group_version: str = "v1"
    scaled: bool = False  # has the subresource `scale`

    @property
    def group(self) -> str:
        return self.group_version.rpartition("/")[0]

    @property
    def workload(self) -> bool:
        return self.kind in WORKLOADS

    @property
    def has_status(self) -> bool:
        """Whether the resource has the subresource `status`, as a pod has it too."""
        return self.kind in CONTROLLED or self.kind in _STATUS

    @property
    def stored(self) -> bool:
        """Whether the store has objects of the kind. Objects of other kinds are derived when they are read."""
        return self.kind not in ("Namespace", "Node")


_ALL = (
    "HorizontalPodAutoscaler",
    "Pod",
    "Service",
)  # the kinds in kubectl's category "all", besides workloads
_DEFAULTED = ("ClusterRole", "ClusterRoleBinding")
_NETWORKING = "networking.k8s.io/v1"
_RBAC = "rbac.authorization.k8s.io/v1"
_READ = ("get", "list", "watch")
#: Kinds with a status, besides those of controllers.
_STATUS = frozenset(
    {
        "HorizontalPodAutoscaler",
        "Ingress",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "ResourceQuota",
        "Service",
    }
)
NAMESPACE_SUBRESOURCES = ("finalize", "status")

RESOURCES = {
    r.plural: r
    for r in (
        Resource(
            "clustertrustbundles",
            "ClusterTrustBundle",
            False,
            group_version="certificates.k8s.io/v1beta1",
        ),
        Resource("clusterrolebindings", "ClusterRoleBinding", False, group_version=_RBAC),
        Resource("clusterroles", "ClusterRole", False, group_version=_RBAC),
        Resource("configmaps", "ConfigMap", True, ("cm",)),
        Resource("controllerrevisions", "ControllerRevision", True, verbs=_READ, group_version="apps/v1"),
        Resource("cronjobs", "CronJob", True, ("cj",), group_version="batch/v1"),
        Resource("daemonsets", "DaemonSet", True, ("ds",), group_version="apps/v1"),
        Resource("deployments", "Deployment", True, ("deploy",), group_version="apps/v1", scaled=True),
        Resource("endpoints", "Endpoints", True, ("ep",)),
        Resource("endpointslices", "EndpointSlice", True, group_version="discovery.k8s.io/v1"),
        Resource("events", "Event", True, ("ev",), _READ),
        Resource(
            "horizontalpodautoscalers",
            "HorizontalPodAutoscaler",
            True,
            ("hpa",),
            group_version="autoscaling/v2",
        ),
        Resource("ingressclasses", "IngressClass", False, group_version=_NETWORKING),
        Resource("ingresses", "Ingress", True, ("ing",), group_version=_NETWORKING),
        Resource("jobs", "Job", True, group_version="batch/v1"),
        Resource("limitranges", "LimitRange", True, ("limits",)),
        Resource("namespaces", "Namespace", False, ("ns",), _ONE_BY_ONE),
        Resource("networkpolicies", "NetworkPolicy", True, ("netpol",), group_version="networking.k8s.io/v1"),
        Resource("nodes", "Node", False, ("no",), ("get", "list", "patch", "watch")),
        Resource("persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",)),
        Resource("persistentvolumes", "PersistentVolume", False, ("pv",)),
        Resource("poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), group_version="policy/v1"),
        Resource("pods", "Pod", True, ("po",)),
        Resource("priorityclasses", "PriorityClass", False, ("pc",), group_version="scheduling.k8s.io/v1"),
        Resource("replicasets", "ReplicaSet", True, ("rs",), group_version="apps/v1", scaled=True),
        Resource("replicationcontrollers", "ReplicationController", True, ("rc",), scaled=True),
        Resource("resourcequotas", "ResourceQuota", True, ("quota",)),
        Resource("rolebindings", "RoleBinding", True, group_version=_RBAC),
        Resource("roles", "Role", True, group_version=_RBAC),
        Resource("secrets", "Secret", True),
        Resource("serviceaccounts", "ServiceAccount", True, ("sa",)),
        Resource("services", "Service", True, ("svc",)),
        Resource("statefulsets", "StatefulSet", True, ("sts",), group_version="apps/v1", scaled=True),
        Resource("storageclasses", "StorageClass", False, ("sc",), group_version="storage.k8s.io/v1"),
    )
}
#: Resources that another group or version serves as well; their documents are converted.
CONVERTED = (
    RESOURCES["events"]._replace(group_version="events.k8s.io/v1"),
    RESOURCES["horizontalpodautoscalers"]._replace(group_version="autoscaling/v1"),
)
#: Resources of metrics.k8s.io, which have other routes (metrics/): the same names as in the core group.
METRICS = (
    Resource("nodes", "NodeMetrics", False, verbs=("get", "list"), group_version="metrics.k8s.io/v1beta1"),
    Resource("pods", "PodMetrics", True, verbs=("get", "list"), group_version="metrics.k8s.io/v1beta1"),
)
_SUBRESOURCES = (
    ("pods/attach", "get"),
    ("pods/ephemeralcontainers", "get"),
    ("pods/eviction", "create"),
    ("pods/exec", "get"),
    ("pods/log", "get"),
    ("pods/portforward", "get"),
    ("pods/status", "get"),
    ("serviceaccounts/token", "create"),
)
_OF_GROUP = {
    "pods/eviction": {"group": "policy", "version": "v1", "kind": "Eviction"},
    "serviceaccounts/token": {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"},
}
_STREAMED = {
    "pods/attach": "PodAttachOptions",
    "pods/exec": "PodExecOptions",
    "pods/portforward": "PodPortForwardOptions",
}


_PROXIED = {"pods/proxy": "PodProxyOptions", "services/proxy": "ServiceProxyOptions"}


def find_resource(group_version: str, plural: str) -> Resource | None:
    known = (RESOURCES.get(plural), *CONVERTED)
    named = (one for one in known if one is not None and one.plural == plural)
    return next((one for one in named if one.group_version == group_version), None)


#: API group → what to do in place of its objects.
_INSTEAD = {
    "apiextensions.k8s.io": "Kinds cannot be added: an operator for its own kinds needs a cluster",
    "admissionregistration.k8s.io": "For rules about pods, use Pod Security levels, LimitRanges and ResourceQuotas",
    "apiregistration.k8s.io": "APIs cannot be added: a program that adds one needs a cluster",
}


def not_served(path: str) -> str:
    """Return why a path of Kubernetes' API has no objects here: "" if it has, or is of another form."""
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "v1"]:
        version, rest = "v1", parts[2:]
    elif parts[0] == "apis" and len(parts) > 2:
        version, rest = f"{parts[1]}/{parts[2]}", parts[3:]
    else:
        return ""
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in NAMESPACE_SUBRESOURCES:
        rest = rest[2:]
    # Requests about access are answered elsewhere: there are no objects of them on a cluster either.
    if not rest or version.partition("/")[0] in ("authentication.k8s.io", "authorization.k8s.io"):
        return ""
    if find_resource(version, rest[0]) is not None:
        return ""
    remedy = _INSTEAD.get(version.partition("/")[0], "`kubelite api-resources` lists those that it has")
    return f"{rest[0]} of {version} are not supported: kubelite runs no such kind. {remedy}"


def api_resource_list(group_version: str = "v1") -> Json:
    """Return the discovery document of a group version: v1 for /api/v1, or GROUP/VERSION."""
    entries = [
        {
            "name": r.plural,
            "singularName": r.kind.lower(),
            "namespaced": r.namespaced,
            "kind": r.kind,
            "verbs": list(r.verbs),
            "shortNames": list(r.short),
            **({"categories": ["all"]} if r.kind in _ALL or r.workload else {}),
        }
        for r in (*RESOURCES.values(), *CONVERTED, *METRICS)
        if r.group_version == group_version
    ]
    for name, verb in _SUBRESOURCES if group_version == "v1" else ():
        kind = _STREAMED.get(name, "Pod")
        verbs = [verb, "create"] if name in _STREAMED else [verb]
        verbs += ["patch", "update"] * (name == "pods/ephemeralcontainers")
        verbs += ["patch"] * (name == "pods/status")
        entry = {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
        entries.append({**entry, **_OF_GROUP.get(name, {})})
    for name, kind in _PROXIED.items() if group_version == "v1" else ():
        verbs = ["create", "delete", "get", "patch", "update"]
        entries.append({"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs})
    if group_version == "v1":
        of_node = {"kind": "NodeProxyOptions", "verbs": ["get"]}
        entries.append({"name": "nodes/proxy", "singularName": "", "namespaced": False, **of_node})
    for r in RESOURCES.values():
        if r.has_status and r.group_version == group_version:
            entries += _subresources(r)
    head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version}
    return {**head, "resources": entries}


def _subresources(resource: Resource) -> list[Json]:
    common = {"singularName": "", "namespaced": resource.namespaced, "verbs": ["get"]}
    found: list[Json] = [{"name": f"{resource.plural}/status", **common, "kind": resource.kind}]
    if resource.scaled:
        scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        found.append(
            {"name": f"{resource.plural}/scale", **common, **scale, "verbs": ["get", "patch", "update"]}
        )
    return found


def scale_of(doc: Json) -> Json:
    """Return the autoscaling/v1 Scale of a workload. Source: Kubernetes pkg/registry/apps/deployment/storage
    (scaleFromDeployment)."""
    metadata, spec, status = doc["metadata"], doc.get("spec") or {}, doc.get("status") or {}
    own = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    selector = selector_of(doc) or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in own if key in metadata},
        "spec": {"replicas": spec.get("replicas", 0)},
        "status": {"replicas": status.get("replicas", 0), "selector": selector_text(selector)},
    }


def api_versions() -> Json:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def api_group_list() -> Json:
    main = {r.group_version for r in (*RESOURCES.values(), *METRICS)} - {"v1"}
    groups = {one.partition("/")[0] for one in main}
    named = sorted(main | {r.group_version for r in CONVERTED if r.group not in groups})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(version) for version in named]}


def api_group(name: str) -> Json | None:
    """Return the discovery document of a group; None if there is no such group."""
    found = next((group for group in api_group_list()["groups"] if group["name"] == name), None)
    return {"kind": "APIGroup", "apiVersion": "v1", **found} if found is not None else None


def _group(group_version: str) -> Json:
    name, _, version = group_version.partition("/")
    served = {"groupVersion": group_version, "version": version}
    older = [
        {"groupVersion": one.group_version, "version": one.group_version.partition("/")[2]}
        for one in CONVERTED
        if one.group == name and one.group_version != group_version
    ]
    return {"name": name, "versions": [served, *older], "preferredVersion": served}


def complete(resource: Resource, doc: Json) -> Json:
    """Return the document with apiVersion and kind, which stored documents may lack, and a pod with the defaults of an
    API server."""
    if resource.kind == "Pod":
        doc = with_defaults(doc)
    if resource.group == "events.k8s.io":
        from kubelite.api.kube.events.version_1 import as_v1 as event_v1

        return event_v1({"kind": resource.kind, **doc})
    if resource in CONVERTED:
        from kubelite.api.kube.autoscaling.version_1 import as_v1

        return as_v1({"kind": resource.kind, **doc})
    return {"apiVersion": resource.group_version, "kind": resource.kind, **doc}


def is_only_stored(resource: Resource) -> bool:
    """Whether the objects of a resource are those in the store, and no others."""
    return resource.stored and resource.kind not in (ACCOUNT, "ConfigMap", *_DEFAULTED)


def read_list(node: NodeApi, resource: Resource, namespace: str | None) -> list[Json]:
    """Return all documents of a resource, in one namespace or in all (None)."""
    if resource.kind == "Node":
        return [complete(resource, node.node())]
    if resource.kind == "Namespace":
        return _namespaces(node)
    stored = [complete(resource, record.doc) for record in node.store.list(resource.kind, namespace)]
    if resource.kind in (ACCOUNT, "ConfigMap"):
        return [*_of_every_namespace(node, resource.kind, namespace, stored), *stored]
    return _with_defaults(resource.kind, stored) if resource.kind in _DEFAULTED else stored


def read_one(node: NodeApi, resource: Resource, namespace: str, name: str) -> Json | None:
    if resource.stored:
        record = node.store.get(resource.kind, namespace, name)
        if record is None and (resource.kind, name) in ((ACCOUNT, DEFAULT_ACCOUNT), ("ConfigMap", AUTHORITY)):
            return _of_namespace(node, resource.kind, namespace)
        if record is None and resource.kind in _DEFAULTED:
            return next(
                (doc for doc in _with_defaults(resource.kind, []) if doc["metadata"]["name"] == name), None
            )
        return complete(resource, record.doc) if record else None
    return next((d for d in read_list(node, resource, None) if d["metadata"]["name"] == name), None)


def _of_every_namespace(
    node: NodeApi, kind: str, namespace: str | None, stored: list[Json]
) -> Iterator[Json]:
    """Yield the objects that every namespace has: the ServiceAccount `default`, and the ConfigMap that says whom
    clients of the API trust. One that is stored takes the place."""
    if kind == "ConfigMap" and node.authority() is None:
        return
    name = DEFAULT_ACCOUNT if kind == ACCOUNT else AUTHORITY
    known = {doc["metadata"]["namespace"] for doc in stored if doc["metadata"]["name"] == name}
    every = [namespace] if namespace else [doc["metadata"]["name"] for doc in _namespaces(node)]
    for one in every:
        if one not in known and (found := _of_namespace(node, kind, one)) is not None:
            yield found


def _of_namespace(node: NodeApi, kind: str, namespace: str) -> Json | None:
    account, authority = node.tokens.account(namespace, DEFAULT_ACCOUNT), node.authority()
    if account is None or kind == ACCOUNT:
        return account
    from kubelite.accounts.objects import authority_map

    return authority_map(namespace, authority) if authority is not None else None


def _with_defaults(kind: str, stored: list[Json]) -> list[Json]:
    """Add the roles or bindings that every node has, except those of the same name."""
    from kubelite.api.rbac.defaults import cluster_role_bindings, cluster_roles

    own = cluster_roles() if kind == "ClusterRole" else cluster_role_bindings()
    names = {doc["metadata"]["name"] for doc in stored}
    return [*(doc for name, doc in own.items() if name not in names), *stored]


def _namespaces(node: NodeApi) -> list[Json]:
    """Return the namespaces: those of manifests, and those that a stored object is in, which are as old as their oldest
    object."""
    started = str(node.node()["metadata"].get("creationTimestamp", ""))
    born = {"default": started}
    for resource in RESOURCES.values():
        if not resource.stored or not resource.namespaced or resource.kind == "Event":
            continue
        for record in node.store.list(resource.kind):
            made = str(record.doc["metadata"].get("creationTimestamp") or started)
            born[record.namespace] = min(born.get(record.namespace, made), made)
    defined = {record.name: record.doc for record in node.store.list("Namespace")}
    return [
        _namespace(node, name, born.get(name, ""), defined.get(name)) for name in sorted({*born, *defined})
    ]


def _namespace(node: NodeApi, name: str, born: str, defined: Json | None) -> Json:
    """`defined`: the recorded Namespace, if there is one."""
    metadata = {"name": name, "creationTimestamp": born, **(defined or {}).get("metadata", {})}
    given = metadata.get("labels") or {}
    own = {"kubernetes.io/metadata.name": name, **node.pod_security.levels(name).labels(given)}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {**metadata, "labels": {**given, **own}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": (defined or {}).get("status") or {"phase": "Active"},
    }


def list_document(resource: Resource, items: Sequence[Json], resource_version: int) -> Json:
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.group_version,
        "metadata": {"resourceVersion": str(resource_version)},
        "items": list(items),
    }
