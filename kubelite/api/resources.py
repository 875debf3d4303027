"""The kinds served under /api/v1: their names, discovery documents, and how they are read from the node.

Namespaces are what the stored objects live in (and `default`); there is exactly one node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from kubelite.api.node import NodeApi

Json = dict[str, Any]


class Resource(NamedTuple):
    plural: str
    kind: str
    namespaced: bool
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ("get", "list", "watch")

    @property
    def stored(self) -> bool:
        """Whether the store has it; the others are made up on reading."""
        return self.namespaced


RESOURCES = {
    r.plural: r
    for r in (
        Resource("configmaps", "ConfigMap", True, ("cm",)),
        Resource("events", "Event", True, ("ev",)),
        Resource("namespaces", "Namespace", False, ("ns",)),
        Resource("nodes", "Node", False, ("no",), ("get", "list", "patch", "watch")),
        Resource("persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",)),
        Resource("pods", "Pod", True, ("po",), ("delete", "get", "list", "watch")),
        Resource("secrets", "Secret", True),
    )
}
_SUBRESOURCES = (
    ("pods/attach", "get"),
    ("pods/ephemeralcontainers", "get"),
    ("pods/exec", "get"),
    ("pods/log", "get"),
    ("pods/status", "get"),
)
_STREAMED = {"pods/attach": "PodAttachOptions", "pods/exec": "PodExecOptions"}


def api_resource_list() -> Json:
    """Discovery of /api/v1."""
    entries = [
        {
            "name": r.plural,
            "singularName": r.kind.lower(),
            "namespaced": r.namespaced,
            "kind": r.kind,
            "verbs": list(r.verbs),
            "shortNames": list(r.short),
        }
        for r in RESOURCES.values()
    ]
    for name, verb in _SUBRESOURCES:
        kind = _STREAMED.get(name, "Pod")
        verbs = [verb, "create"] if name in _STREAMED else [verb]
        verbs += ["patch", "update"] * (name == "pods/ephemeralcontainers")
        verbs += ["patch"] * (name == "pods/status")
        entries.append({"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": entries}


def api_versions() -> Json:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def api_group_list() -> Json:
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}


def complete(resource: Resource, doc: Json) -> Json:
    """The document with apiVersion and kind in front, whatever its writer left out."""
    return {"apiVersion": "v1", "kind": resource.kind, **doc}


def read_list(node: NodeApi, resource: Resource, namespace: str | None) -> list[Json]:
    """All documents of a resource, of one namespace or of all (None)."""
    if resource.kind == "Node":
        return [complete(resource, node.node())]
    if resource.kind == "Namespace":
        return _namespaces(node)
    return [complete(resource, record.doc) for record in node.store.list(resource.kind, namespace)]


def read_one(node: NodeApi, resource: Resource, namespace: str, name: str) -> Json | None:
    if resource.stored:
        record = node.store.get(resource.kind, namespace, name)
        return complete(resource, record.doc) if record else None
    return next((d for d in read_list(node, resource, None) if d["metadata"]["name"] == name), None)


def _namespaces(node: NodeApi) -> list[Json]:
    """Made up from what is stored: a namespace is as old as its oldest object."""
    started = str(node.node()["metadata"].get("creationTimestamp", ""))
    born = {"default": started}
    for resource in RESOURCES.values():
        if not resource.stored:
            continue
        for record in node.store.list(resource.kind):
            made = str(record.doc["metadata"].get("creationTimestamp") or started)
            born[record.namespace] = min(born.get(record.namespace, made), made)
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "creationTimestamp": at,
                "labels": {"kubernetes.io/metadata.name": name},
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        }
        for name, at in sorted(born.items())
    ]


def list_document(resource: Resource, items: Sequence[Json], resource_version: int) -> Json:
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": str(resource_version)},
        "items": list(items),
    }
