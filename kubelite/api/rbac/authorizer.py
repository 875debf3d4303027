"""Decides requests by the roles and bindings in the store, and those that every node has."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import Scope

from kubelite.api.audit import object_of, verb_of
from kubelite.api.node import StoreView
from kubelite.api.rbac import defaults
from kubelite.api.rbac.rules import Attributes, Roles
from kubelite.api.secure.users import MASTERS, User
from kubelite.api.upgrade import upgrades
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json

_OF_MANY = frozenset({"list", "watch"})  # not deletecollection, as on a cluster
_STREAMS = frozenset({"attach", "exec", "portforward"})
_WRITES = frozenset({"create", "delete", "deletecollection", "patch", "update"})


def roles_of(store: StoreView) -> Roles:
    """Return what decides now."""
    cluster_roles = defaults.cluster_roles() | {one.name: one.doc for one in store.list("ClusterRole")}
    bindings = defaults.cluster_role_bindings() | {
        one.name: one.doc for one in store.list("ClusterRoleBinding")
    }
    roles = {(one.namespace, one.name): one.doc for one in store.list("Role")}
    return Roles(cluster_roles, bindings.values(), roles, [one.doc for one in store.list("RoleBinding")])


def allowed(store: StoreView, user: User, request: Attributes) -> bool:
    """Whether a user may do this. As on a cluster, system:masters are not asked for a role."""
    return MASTERS in user.groups or roles_of(store).allow(user, request)


def attributes_of(scope: Scope) -> Attributes:
    """Return what a request does. Source: apiserver pkg/endpoints/request/requestinfo.go."""
    found = object_of(scope["path"])
    # A WebSocket begins with a GET, and runs a program: RBAC asks for create (Kubernetes 1.35). Any other request may
    # have the headers of an upgrade, too; they do not change what it does.
    verb = "create" if scope["type"] == "websocket" or _streams(scope, found) else verb_of(scope)
    if "resource" not in found:
        verbs = {"list": "get", "watch": "get"}
        return Attributes(verbs.get(verb, verb), path=scope["path"])
    namespace = found.get("namespace", "")
    if found["resource"] == "namespaces":
        namespace = found.get("name", "")
    name = found.get("name", "")
    if not name and verb in _OF_MANY:
        name = _selected(HTTPConnection(scope).query_params.get("fieldSelector", ""))
    return Attributes(
        verb, found.get("apiGroup", ""), found["resource"], found.get("subresource", ""), namespace, name
    )


def _streams(scope: Scope, found: Json) -> bool:
    """Whether a request runs a program in a pod, or forwards a port of it, over SPDY."""
    stream = found.get("resource") == "pods" and found.get("subresource") in _STREAMS
    return stream and scope["method"] in ("GET", "POST") and upgrades(scope)


def _selected(fields: str) -> str:
    """Return the name of the only object that a field selector can match: a rule with resourceNames allows to list and
    watch it."""
    named = [term for term in fields.split(",") if term.strip().startswith("metadata.name=")]
    return named[0].strip().partition("=")[2].lstrip("=").strip() if len(named) == 1 else ""


def forbidden(store: StoreView, user: User, scope: Scope) -> ApiError | None:
    """Return the error if a user may not send a request, else None."""
    return refused(store, user, attributes_of(scope))


def refused(store: StoreView, user: User, request: Attributes) -> ApiError | None:
    """Return the error if a user may not do this, else None."""
    if MASTERS in user.groups:
        return None
    roles = roles_of(store)
    if not roles.allow(user, request):
        return ApiError("Forbidden", refusal(user, request))
    # Who writes roles could give themselves any right. An API server compares the rules
    # (pkg/registry/rbac/escalation_check.go); here the verb `escalate` is needed, which cluster-admin has.
    writes_roles = request.group == defaults.GROUP and request.verb in _WRITES
    if not writes_roles or roles.allow(user, request._replace(verb="escalate")):
        return None
    words = "on this node, the verb escalate is needed to write roles and bindings"
    return ApiError("Forbidden", f"{refusal(user, request)}: {words}")


def refusal(user: User, request: Attributes) -> str:
    """Return the message of an API server (apiserver pkg/endpoints/handlers/responsewriters/errors.go, Forbidden;
    apimachinery pkg/api/errors, NewForbidden)."""
    who = f'User "{user.name}"'
    if request.path:
        return f'forbidden: {who} cannot {request.verb} path "{request.path}"'
    resource = f"{request.resource}/{request.subresource}" if request.subresource else request.resource
    where = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
    title = f"{request.resource}.{request.group}" if request.group else request.resource
    name = f' "{request.name}"' if request.name else ""
    said = f'{who} cannot {request.verb} resource "{resource}" in API group "{request.group}" {where}'
    return f"{title}{name} is forbidden: {said}"
