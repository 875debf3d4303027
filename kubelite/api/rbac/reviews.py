"""Reviews: what a user may do (`kubectl auth can-i`), and who a user is (`kubectl auth whoami`).

Source: Kubernetes pkg/registry/authorization and pkg/registry/authentication. Nothing is stored.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.kube.routes import node_of
from kubelite.api.kube.writes.bodies import review_of, typed
from kubelite.api.peer import KEY as PEER
from kubelite.api.rbac.authorizer import allowed, roles_of
from kubelite.api.rbac.rules import Attributes
from kubelite.api.secure.users import AUTHENTICATED, MASTERS, READERS, User, user_of
from kubelite.kube.errors import bad_request
from kubelite.kube.json import Json

_AUTHORIZATION, _AUTHENTICATION = "authorization.k8s.io/v1", "authentication.k8s.io/v1"
_ACCESS, _IDENTITY = f"/apis/{_AUTHORIZATION}", f"/apis/{_AUTHENTICATION}"
_EVERYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}


def acting(request: Request) -> User:
    """Return the user of a request. On the unix socket that is root, or a member of the group that may read."""
    if (user := user_of(request.scope)) is not None:
        return user
    peer = request.scope.get(PEER)
    if peer is None or peer.uid == 0:
        return User("uid:0", (MASTERS, AUTHENTICATED))
    return User(f"uid:{peer.uid}", (READERS, AUTHENTICATED))


async def self_access(request: Request) -> Response:
    body, spec = await _review(request, "SelfSubjectAccessReview")
    return _decided(request, body, acting(request), _attributes(spec))


async def access(request: Request) -> Response:
    local = "namespace" in request.path_params
    body, spec = await _review(request, "LocalSubjectAccessReview" if local else "SubjectAccessReview")
    name, groups = spec.get("user", ""), spec.get("groups") or []
    if (
        not isinstance(name, str)
        or not isinstance(groups, list)
        or not all(isinstance(one, str) for one in groups)
    ):
        raise bad_request("spec.user must be a string, spec.groups a list of strings")
    if not name and not groups:
        raise bad_request("spec.user: Invalid value: at least one of user or group must be specified")
    return _decided(request, body, User(name, tuple(groups)), _attributes(spec))


async def self_rules(request: Request) -> Response:
    body, spec = await _review(request, "SelfSubjectRulesReview")
    user, namespace = acting(request), spec.get("namespace", "")
    if not isinstance(namespace, str):
        raise bad_request("spec.namespace must be a string")
    rules = [rule for rule, _ in roles_of(node_of(request).store).rules(user, namespace)]
    if MASTERS in user.groups and _EVERYTHING not in rules:
        rules.append(_EVERYTHING)
    status = {
        "resourceRules": [rule for rule in rules if rule.get("resources")],
        "nonResourceRules": [rule for rule in rules if rule.get("nonResourceURLs")],
        "incomplete": False,
    }
    return JSONResponse({**body, "status": status}, 201)


async def whoami(request: Request) -> Response:
    body, _ = await _review(request, "SelfSubjectReview", _AUTHENTICATION)
    return JSONResponse({**body, "status": {"userInfo": acting(request).info()}}, 201)


def _decided(request: Request, body: Json, user: User, wanted: Attributes) -> Response:
    found = allowed(node_of(request).store, user, wanted)
    return JSONResponse({**body, "status": {"allowed": found}}, 201)


async def _review(request: Request, kind: str, version: str = _AUTHORIZATION) -> tuple[Json, Json]:
    """Return a review, and its spec. Raises BadRequest, RequestEntityTooLarge."""
    body = typed(await review_of(request), version, kind)
    spec = body.get("spec") or {} if isinstance(body, dict) else None
    if not isinstance(spec, dict) or (body["kind"], body["apiVersion"]) != (kind, version):
        raise bad_request(f"the body is not a {kind} of {version}")
    return {**body, "metadata": {"creationTimestamp": None}}, spec


def _attributes(spec: Json) -> Attributes:
    """Return what a review asks about. Raises BadRequest."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(resource, dict) and path is None:
        fields = ("verb", "group", "resource", "subresource", "namespace", "name")
        return Attributes(*(_text(resource, field) for field in fields))
    if isinstance(path, dict) and resource is None:
        return Attributes(_text(path, "verb"), path=_text(path, "path") or "/")
    raise bad_request("spec needs exactly one of resourceAttributes and nonResourceAttributes")


def _text(given: Json, field: str) -> str:
    found: Any = given.get(field) or ""
    if not isinstance(found, str):
        raise bad_request(f"{field} must be a string")
    return found


def routes() -> list[BaseRoute]:
    return [
        Route(f"{_ACCESS}/selfsubjectaccessreviews", self_access, methods=["POST"]),
        Route(f"{_ACCESS}/selfsubjectrulesreviews", self_rules, methods=["POST"]),
        Route(f"{_ACCESS}/subjectaccessreviews", access, methods=["POST"]),
        Route(f"{_ACCESS}/namespaces/{{namespace}}/localsubjectaccessreviews", access, methods=["POST"]),
        Route(f"{_IDENTITY}/selfsubjectreviews", whoami, methods=["POST"]),
    ]
