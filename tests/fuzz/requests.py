# ruff: noqa: E501 - tables, a line an entry
"""Requests to the API at random: methods, paths, queries, headers and bodies, most of them wrong. A seed and a number
name a request."""

from __future__ import annotations

import json
from functools import cache
from random import Random
from typing import Any, Final, NamedTuple

from kubelite.api.kube.resources import RESOURCES, Resource
from tests.fuzz import mutate
from tests.fuzz.foreign import damaged

_METHODS: Final = (
    "GET",
    "GET",
    "POST",
    "POST",
    "PUT",
    "PATCH",
    "PATCH",
    "PATCH",
    "DELETE",
    "HEAD",
    "OPTIONS",
)
_TYPES: Final = (
    "application/json", "application/json-patch+json", "application/merge-patch+json", "application/yaml",
    "application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/vnd.kubernetes.protobuf",
    "application/json; charset=utf-16", "text/plain", "",
)  # fmt: skip
_HOSTILE: Final = (
    "..", ".", "%2e%2e", "%2F", "%00", "%0a", "%0d%0aX: y", "%ff", "a%2F..%2Fb", "~", "*", "x" * 300, "%F0%9F%98%80", "-",
    "A", "a b", "{}", "null", "0", "system:masters", "status", "scale", "watch", "namespaces",
)  # fmt: skip
_SUBRESOURCES: Final = (
    "status",
    "scale",
    "log",
    "exec",
    "attach",
    "portforward",
    "eviction",
    "ephemeralcontainers",
    "binding",
    "finalize",
    "proxy",
)
_VALUES: Final = (
    "", "1", "0", "-1", "true", "All", "²", "9" * 30, "9" * 5000, "1e9", "\x00", "a,b", "a=b", "a in (b,c)", "a notin (",
    "!a", "metadata.name=a", "status.phase!=Running", "metadata.name", "2026-12-02T00:00:00Z", "9999-12-31T23:59:59Z",
    "0000-00-00", "Strict", "Warn", "Ignore", "%", "%zz", "é", "Background", "Orphan", "Foreground", "keep",
    "Exact", "NotOlderThan", "99999", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYVx1MDAwMCJ9",
)  # fmt: skip
_NAMES: Final = (
    "watch", "labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "timeoutSeconds", "dryRun", "at",
    "sendInitialEvents", "allowWatchBookmarks", "fieldValidation", "fieldManager", "force", "gracePeriodSeconds",
    "propagationPolicy", "orphanDependents", "manifest", "container", "tailLines", "sinceSeconds", "sinceTime", "previous",
    "limitBytes", "timestamps", "includeObject", "pretty", "portForward", "command", "resourceVersionMatch",
)  # fmt: skip
_REVIEWS: Final = ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews")
_OTHERS: Final = (
    "/", "/api", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/openapi/v3", "/openapi/v3/api/v1", "/openapi/v2",
    "/healthz", "/kubelite/v1/change", "/apis/x/y/z", "/api/v1/nodes/here", "/api/v1/namespaces/default",
    "/api/v1/namespaces/gone", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
)  # fmt: skip


class Sent(NamedTuple):
    method: str
    target: str  # path and query
    headers: tuple[tuple[str, str], ...]
    body: bytes


@cache
def objects() -> tuple[dict[str, Any], ...]:
    """Objects that the API takes: each has the name of its kind in the namespace default."""
    pod = {
        "containers": [
            {
                "name": "c",
                "image": "busybox",
                "env": [{"name": "A", "value": "1"}],
                "ports": [{"containerPort": 80}],
            }
        ]
    }
    template = {"metadata": {"labels": {"app": "a"}}, "spec": pod}
    selector = {"matchLabels": {"app": "a"}}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "role"}
    quota = {"hard": {"pods": "100"}}
    policy = {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": selector}]}],
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "deployment"}
    backend = {"service": {"name": "service", "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    bodies: dict[str, dict[str, Any]] = {
        "Pod": {"spec": {**pod, "volumes": [{"name": "v", "emptyDir": {}}]}},
        "ConfigMap": {"data": {"k": "v", "n": "1\n---\nkind: Pod\n", "é": "\u0085 # not a comment"}},
        "Secret": {"stringData": {"k": "v"}, "type": "Opaque"},
        "Service": {"spec": {"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": 80}]}},
        "Deployment": {"spec": {"replicas": 1, "selector": selector, "template": template}},
        "StatefulSet": {"spec": {"serviceName": "service", "selector": selector, "template": template}},
        "DaemonSet": {"spec": {"selector": selector, "template": template}},
        "Job": {"spec": {"template": {"spec": {**pod, "restartPolicy": "Never"}}}},
        "CronJob": {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {**pod, "restartPolicy": "Never"}}}}}},
        "Role": {"rules": rules},
        "ClusterRole": {"rules": rules},
        "RoleBinding": {"roleRef": role, "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "default"}]},
        "ServiceAccount": {},
        "Namespace": {},
        "ResourceQuota": {"spec": quota},
        "LimitRange": {"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}},
        "NetworkPolicy": {"spec": policy},
        "PodDisruptionBudget": {"spec": {"minAvailable": 1, "selector": selector}},
        "HorizontalPodAutoscaler": {"spec": {"scaleTargetRef": target, "maxReplicas": 3}},
        "Ingress": {"spec": {"rules": [{"http": {"paths": paths}}]}},
        "PriorityClass": {"value": 5},
    }  # fmt: skip
    by_kind = {one.kind: one for one in RESOURCES.values()}
    found = []
    for kind, body in bodies.items():
        resource = by_kind[kind]
        metadata: dict[str, Any] = {"name": kind.lower(), "labels": {"app": "a"}, "annotations": {"a": "b"}}
        if resource.namespaced:
            metadata["namespace"] = "default"
        found.append({"apiVersion": resource.group_version, "kind": kind, "metadata": metadata, **body})
    return tuple(found)


def path_of(resource: Resource, name: str = "", namespace: str = "default") -> str:
    version = resource.group_version
    start = f"/apis/{version}" if "/" in version else f"/api/{version}"
    middle = f"/namespaces/{namespace}" if resource.namespaced and namespace else ""
    return f"{start}{middle}/{resource.plural}{f'/{name}' if name else ''}"


def request(seed: int, number: int) -> Sent:
    random = Random(f"api:{seed}:{number}")
    document = random.choice(objects())
    resource = next(one for one in RESOURCES.values() if one.kind == document["kind"])
    method = random.choice(_METHODS)
    named = method not in ("POST", "OPTIONS") if random.random() < 0.9 else random.random() < 0.5
    name = document["metadata"]["name"] if named else ""
    path = path_of(resource, name, random.choice(("default",) * 8 + ("", "other")))
    if name and random.random() < 0.2:
        path += f"/{random.choice(_SUBRESOURCES)}"
    path = _path(path, random)
    kind = _TYPES[0] if method in ("POST", "PUT", "DELETE") else random.choice(_TYPES[1:5])
    if random.random() < 0.1:
        kind = random.choice(_TYPES)
    body = _body(document, method, kind, random)
    headers = [("content-type", kind)] * bool(kind or random.random() < 0.5)
    return Sent(method, path + _query(random), (*headers, *_headers(random)), body)


def _path(path: str, random: Random) -> str:
    chance = random.random()
    if chance < 0.05:
        return random.choice(_OTHERS)
    if chance < 0.08:
        group = random.choice(("authorization.k8s.io", "authentication.k8s.io"))
        return f"/apis/{group}/v1/{random.choice(_REVIEWS)}"
    if chance < 0.25:
        parts = path.split("/")
        at = random.randrange(1, len(parts))
        parts[at : at + random.randrange(2)] = [random.choice(_HOSTILE)]
        return "/".join(parts)
    return path + "/" * (chance > 0.98)


def _query(random: Random) -> str:
    count = random.choice((0, 0, 0, 1, 1, 2, 4))
    pairs = [f"{random.choice(_NAMES)}={random.choice(_VALUES)}" for _ in range(count)]
    return f"?{'&'.join(pairs)}" if pairs else ""


def _headers(random: Random) -> list[tuple[str, str]]:
    found = []
    if random.random() < 0.2:
        accepts = (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "*/*", "application/json;as=Table;v=v9", ";;,=",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        )  # fmt: skip
        found.append(("accept", random.choice(accepts)))
    if random.random() < 0.02:
        odd = (
            ("host", "evil.test"),
            ("origin", "http://evil.test"),
            ("impersonate-user", "a"),
            ("content-length", "-1"),
        )
        found.append(random.choice((*odd, ("user-agent", "a" * 60_000), ("x-\xe9", "\xff"))))
    return found


def _body(document: dict[str, Any], method: str, kind: str, random: Random) -> bytes:
    given: Any = document
    if method == "PATCH":
        given = _steps(random) if "json-patch" in kind else _part(document, random)
    elif method == "DELETE" and random.random() < 0.9:
        if random.random() < 0.5:
            return b""
        given = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": "u"},
        }
    if random.random() < 0.5:
        return json.dumps(given).encode()
    if random.random() < 0.8:
        return mutate.mutated(given, random)
    return damaged(json.dumps(given).encode(), random, _samples())


@cache
def _samples() -> tuple[bytes, ...]:
    envelope = b"k8s\x00\n\x0e\n\x02v1\x12\x08Eviction\x12\x05\n\x03\n\x01a"
    bomb = b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nmetadata: {name: c}\n"
    return (
        *(json.dumps(one).encode() for one in objects()),
        envelope,
        bomb,
        b"[" * 5000,
        b"%YAML 1.1\n---\n...\n---\n",
    )


def _part(document: dict[str, Any], random: Random) -> dict[str, Any]:
    """Return a patch: some of an object, with directives."""
    keys = [key for key in document if random.random() < 0.5]
    found = {key: document[key] for key in keys}
    if random.random() < 0.3:
        directive = random.choice(
            ("$patch", "$retainKeys", "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers")
        )
        found[directive] = random.choice(("replace", "delete", "merge", ["a"], {}, 1, None))
    if random.random() < 0.3:
        found["metadata"] = {
            "labels": {"l": str(random.randrange(9))},
            "finalizers": ["a/b"],
            "ownerReferences": [],
        }
    return found


def _steps(random: Random) -> list[dict[str, Any]]:
    places = (
        "/metadata/labels/a", "/metadata/name", "/metadata", "/spec/replicas", "/data", "/data/-", "/spec/template", "", "/",
        "/spec/template/spec/containers/0", "/spec/template/spec/containers/-", "/~1/~0", "/spec/ports/99999999999999999999",
    )  # fmt: skip
    operations = ("add", "remove", "replace", "move", "copy", "test", "x")
    return [
        {
            "op": random.choice(operations), "path": random.choice(places), "from": random.choice(places),
            "value": random.choice((1, "a", None, {}, {"a": "b"}, [1])),
        }
        for _ in range(random.choice((0, 1, 1, 2, 3, 40)))
    ]  # fmt: skip
