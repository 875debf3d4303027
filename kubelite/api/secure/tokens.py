"""Tokens of ServiceAccounts: TokenRequest (`kubectl create token`), TokenReview, bearer tokens of requests, and the
documents by which others can check tokens.

Source: Kubernetes pkg/registry/core/serviceaccount/storage/token.go (Create), pkg/registry/authentication/tokenreview,
apiserver pkg/authentication/request/bearertoken, pkg/routes/openidmetadata.go.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from kubelite.accounts.claims import (
    BOUND_KINDS,
    DEFAULT_SECONDS,
    LONGEST,
    SHORTEST,
    Bound,
    Identity,
    Rejected,
    Wish,
)
from kubelite.accounts.tokens import Tokens
from kubelite.api.audit import note
from kubelite.api.kube.routes import node_of
from kubelite.api.kube.writes.bodies import is_dry_run, review_of, typed
from kubelite.api.secure.users import User
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from runtime.errors import RuntimeFault

_VERSION = "authentication.k8s.io/v1"
_MOST_AUDIENCES = 32


def bearer(scope: Scope) -> str | None:
    """Return the bearer token of a request; None if it has none."""
    given = next((value for key, value in scope["headers"] if key == b"authorization"), b"")
    kind, _, token = given.decode("latin-1").strip().partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def user_of_token(tokens: Tokens, token: str) -> User | None:
    """Return the user of a bearer token; None if it is not accepted."""
    try:
        return _user(tokens.check(token))
    except (Rejected, RuntimeFault):
        return None


def _user(found: Identity) -> User:
    return User(found.username, found.groups, found.uid, found.extra)


async def create_token(request: Request) -> Response:
    """Answer a TokenRequest."""
    tokens, given = node_of(request).tokens, request.path_params
    namespace, name = given["namespace"], given["name"]
    body, spec = await _body(request, "TokenRequest")
    metadata = body.get("metadata") or {}
    if metadata.get("name", name) not in ("", name) or metadata.get("namespace", namespace) not in (
        "",
        namespace,
    ):
        raise bad_request(
            f'the TokenRequest is not for serviceaccount "{name}" in the namespace "{namespace}"'
        )
    wish = _wish(spec, tokens)
    account = tokens.account(namespace, name)
    if account is None:
        raise not_found("serviceaccounts", name)
    if wish.bound is not None:
        wish = wish._replace(bound=_existing(wish.bound, namespace, name, tokens))
    done = {"name": name, "namespace": namespace, "creationTimestamp": None}
    spec = {**spec, "audiences": list(wish.audiences), "expirationSeconds": wish.seconds}
    spec.setdefault("boundObjectRef", None)
    status = {"token": "", "expirationTimestamp": None}
    if not is_dry_run(request):
        token = tokens.issue(account, wish)
        status = {"token": token.text, "expirationTimestamp": rfc3339(token.expires)}
        note(request, f"token of serviceaccount {namespace}/{name}")
    head = {"apiVersion": _VERSION, "kind": "TokenRequest", "metadata": done}
    return JSONResponse({**head, "spec": spec, "status": status}, 201)


async def review(request: Request) -> Response:
    """Answer a TokenReview."""
    tokens = node_of(request).tokens
    body, spec = await _body(request, "TokenReview")
    token = spec.get("token")
    if not isinstance(token, str) or not token:
        raise bad_request("token is required for TokenReview in authentication")
    audiences = _texts(spec, "audiences")
    try:
        found = tokens.check(token, audiences)
    except Rejected as error:
        status: Json = {"authenticated": False, "user": {}, "error": f"[invalid bearer token, {error}]"}
    else:
        user = {"username": found.username, "uid": found.uid, "groups": list(found.groups)}
        extra = {key: list(values) for key, values in found.extra}
        status = {"authenticated": True, "user": {**user, "extra": extra}, "audiences": list(found.audiences)}
    return JSONResponse({**body, "metadata": {"creationTimestamp": None}, "status": status}, 201)


async def configuration(request: Request) -> Response:
    return _public(node_of(request).tokens.discovery(), "application/json")


async def keys(request: Request) -> Response:
    return _public(node_of(request).tokens.public_keys(), "application/jwk-set+json")


def _public(document: Json, kind: str) -> Response:
    return JSONResponse(document, media_type=kind, headers={"Cache-Control": "public, max-age=3600"})


async def _body(request: Request, kind: str) -> tuple[Json, Json]:
    """Return an object of authentication.k8s.io, and its spec. Raises ApiError."""
    body = typed(await review_of(request), _VERSION, kind)
    spec = body.get("spec") or {} if isinstance(body, dict) else None
    if (
        not isinstance(spec, dict)
        or not isinstance(body.get("metadata") or {}, dict)
        or (body["kind"], body["apiVersion"]) != (kind, _VERSION)
    ):
        raise bad_request(f"the body is not a {kind} of {_VERSION}")
    return body, spec


def _wish(spec: Json, tokens: Tokens) -> Wish:
    """Return the token that is asked for. Raises ApiError."""
    seconds: Any = spec.get("expirationSeconds")
    seconds = DEFAULT_SECONDS if seconds is None else seconds
    if type(seconds) is not int:
        raise bad_request("spec.expirationSeconds must be a whole number")
    if not SHORTEST <= seconds <= LONGEST:
        words = (
            "a duration less than 10 minutes" if seconds < SHORTEST else "a duration larger than 2^32 seconds"
        )
        said = f"spec.expirationSeconds: Invalid value: {seconds}: may not specify {words}"
        raise ApiError("Invalid", f'TokenRequest.authentication.k8s.io "" is invalid: {said}')
    audiences = tuple(_texts(spec, "audiences")) or tokens.audiences
    bound: Any = spec.get("boundObjectRef")
    if bound is None:
        return Wish(audiences, seconds)
    if not isinstance(bound, dict):
        raise bad_request("spec.boundObjectRef must be an object")
    fields = {key: bound.get(key) or "" for key in ("apiVersion", "kind", "name", "uid")}
    if not all(isinstance(value, str) for value in fields.values()):
        raise bad_request("the fields of spec.boundObjectRef must be strings")
    if fields["apiVersion"] != "v1" or fields["kind"] not in BOUND_KINDS:
        raise bad_request(
            f"cannot bind token to object of type {fields['apiVersion']}, Kind={fields['kind']}"
        )
    return Wish(audiences, seconds, Bound(fields["kind"], fields["name"], fields["uid"]))


def _existing(bound: Bound, namespace: str, name: str, tokens: Tokens) -> Bound:
    """Return the object that a token of a ServiceAccount is bound to, with its uid. Raises ApiError."""
    found = tokens.find(bound.kind, "" if bound.kind == "Node" else namespace, bound.name)
    if found is None:
        raise not_found(f"{bound.kind.lower()}s", bound.name)
    if bound.kind == "Pod" and ((found.get("spec") or {}).get("serviceAccountName") or "default") != name:
        words = f'cannot bind token for serviceaccount "{name}" to pod running with different serviceaccount name.'
        raise bad_request(words)
    uid = str(found["metadata"]["uid"])
    if bound.uid not in ("", uid):
        said = f"the UID in the bound object reference ({bound.uid}) does not match the UID in record. "
        words = f'Operation cannot be fulfilled on {bound.kind} "{bound.name}": {said}'
        raise ApiError("Conflict", f"{words}The object might have been deleted and then recreated")
    return bound._replace(uid=uid)


def _texts(spec: Json, field: str) -> list[str]:
    found: Any = spec.get(field) or []
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise bad_request(f"spec.{field} must be a list of strings")
    if len(found) > _MOST_AUDIENCES or sum(map(len, found)) > 4096:
        raise bad_request(
            f"spec.{field}: too many or too long: at most {_MOST_AUDIENCES}, and 4096 characters"
        )
    return found


def routes() -> list[BaseRoute]:
    return [
        Route("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", create_token, methods=["POST"]),
        Route("/apis/authentication.k8s.io/v1/tokenreviews", review, methods=["POST"]),
        Route("/.well-known/openid-configuration", configuration),
        Route("/openid/v1/jwks", keys),
    ]
