"""What clients send: objects and patches, as JSON or YAML, and the parameters of a write."""

from __future__ import annotations

import re
import secrets
from typing import Any

from starlette.requests import Request

from kubelite.api.guard import PROTOBUF
from kubelite.api.kube.resources import Resource
from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.json import Json

#: Content types of patches → the kinds that sources/patches.py knows.
PATCHES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
}
APPLY = "application/apply-patch+yaml"  # of server-side apply (applying.py)
MOST_REVIEW = 64 << 10  # bytes of a review: hundreds of groups
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?")
_ALPHANUMERIC = "bcdfghjklmnpqrstvwxz2456789"  # of generated names (apimachinery pkg/util/rand)
_LONGEST_BASE = 58  # characters of generateName that are used (apiserver pkg/storage/names)


def content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def review_of(request: Request) -> Any:
    """Return the data in the body of a review, or of a request for a token. Everybody with a login may send reviews, so
    a large one must not keep the node busy. Raises BadRequest, RequestEntityTooLarge."""
    if len(await request.body()) > MOST_REVIEW:
        words = f"Request entity too large: the limit of a review is {MOST_REVIEW}"
        raise ApiError("RequestEntityTooLarge", words)
    return await data_of(request)


async def data_of(request: Request) -> Any:
    """Return the data in the body: protobuf, JSON (also if no type is given), or YAML within the limits of manifests.
    Raises BadRequest."""
    kind = content_type(request)
    if kind == PROTOBUF:
        from kubelite.api.kube.writes.protobuf import decoded

        return decoded(await request.body())
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8: {error}") from error
    read = _json_in if not kind or kind.endswith(("/json", "+json")) else _yaml_in
    if kind == APPLY and text.lstrip()[:1] == "{":
        read = _json_or_yaml_in
    data, request.state.duplicates = read(text)
    return data


def typed(body: Any, version: str, kind: str) -> Any:
    """Return a body with `version` and `kind` filled in where it has none: the Python and JavaScript clients leave them
    out. Source: apimachinery pkg/runtime/serializer/json (gvkWithDefaults)."""
    if not isinstance(body, dict):
        return body
    return {**body, "apiVersion": body.get("apiVersion") or version, "kind": body.get("kind") or kind}


def duplicates_in(request: Request) -> tuple[str, ...]:
    """Return the names of fields that the body has twice. The body was read by `data_of`."""
    return getattr(request.state, "duplicates", ())


def _json_in(text: str) -> tuple[Any, tuple[str, ...]]:
    from kubelite.api.kube.writes import json_text

    try:
        return json_text.read(text)
    except json_text.CannotRead as error:
        raise bad_request(f"the body cannot be read: {error}") from error


def _json_or_yaml_in(text: str) -> tuple[Any, tuple[str, ...]]:
    """Most clients apply JSON, which is YAML but for its escapes: a pair of surrogates is one character."""
    try:
        return _json_in(text)
    except ApiError:
        return _yaml_in(text)


def _yaml_in(text: str) -> tuple[Any, tuple[str, ...]]:
    from manifests.problems import field_path
    from manifests.yaml.document import SyntaxProblem, read_documents

    found = list(read_documents(text))
    if len(found) != 1:
        raise bad_request(f"the body must be one document, not {len(found)}")
    if isinstance(found[0], SyntaxProblem):
        raise bad_request(f"the body cannot be read: line {found[0].line}: {found[0]}")
    return found[0].data, tuple(field_path(path) for path, _, _ in found[0].problems)


async def object_of(request: Request, resource: Resource) -> Json:
    """Return the object in the body, with its apiVersion and kind. Raises BadRequest if it is of another kind."""
    found = await data_of(request)
    if not isinstance(found, dict):
        raise bad_request("the body is not an object")
    for key, wanted, words in (
        ("apiVersion", resource.group_version, "API version"),
        ("kind", resource.kind, "kind"),
    ):
        given = found.get(key) or wanted
        if given != wanted:
            raise bad_request(
                f"the {words} in the data ({given}) does not match the expected {words} ({wanted})"
            )
    if not isinstance(found.get("metadata") or {}, dict):
        raise bad_request("metadata is not an object")
    metadata = found.get("metadata") or {}
    return {**found, "apiVersion": resource.group_version, "kind": resource.kind, "metadata": metadata}


def named(doc: Json, resource: Resource, namespace: str) -> Json:
    """Return the object with its name and namespace. Raises ApiError if they do not fit."""
    metadata = dict(doc["metadata"])
    if not metadata.get("name") and isinstance(base := metadata.get("generateName"), str) and base:
        suffix = "".join(secrets.choice(_ALPHANUMERIC) for _ in range(5))
        metadata["name"] = base[:_LONGEST_BASE] + suffix
    name = metadata.get("name")
    if not name:
        raise ApiError(
            "Invalid", f"{resource.kind} is invalid: metadata.name: Required value: name is required"
        )
    if not isinstance(name, str) or not _PATH_SEGMENT.fullmatch(name):
        raise ApiError("Invalid", f"{resource.kind} is invalid: metadata.name: Invalid value: {name!r}")
    if namespace and not _PATH_SEGMENT.fullmatch(namespace):
        raise ApiError("Invalid", f'{resource.kind} "{name}" is invalid: metadata.namespace: Invalid value')
    if (metadata.get("namespace") or namespace) != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if namespace:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)  # empty, in whatever form
    return {**doc, "metadata": metadata}


def is_dry_run(request: Request) -> bool:
    """Whether nothing may change. Raises BadRequest (apimachinery pkg/apis/meta/v1/validation, ValidateDryRun)."""
    given = request.query_params.getlist("dryRun")
    if other := [one for one in given if one not in ("All", "")]:
        raise bad_request(f'dryRun: Unsupported value: "{other[0]}": supported values: "All"')
    return "All" in given
