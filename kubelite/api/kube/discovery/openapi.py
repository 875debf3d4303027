"""/openapi/v3: a document for each group version, with the schemas of its kinds and the paths that write them.
/openapi/v2, for older clients: one document of Swagger 2.0 with the same definitions, as JSON.

A document is made when it is asked for, and nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.kube.discovery.schemas import REFERENCE, schema_name, schemas
from kubelite.api.kube.resources import CONVERTED, RESOURCES, Resource
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json
from manifests.types.meta import Object

_VERBS = {"get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete"}
_PARAMETERS = [
    {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for name in ("dryRun", "fieldManager", "fieldValidation")
]

_FORCE = {"name": "force", "in": "query", "schema": {"type": "boolean", "uniqueItems": True}}


def served() -> Iterator[Resource]:
    yield from (*RESOURCES.values(), *CONVERTED)


def index() -> Json:
    """Return the paths of the documents (apiserver pkg/endpoints: OpenAPIV3Discovery)."""
    versions = sorted({resource.group_version for resource in served()})
    return {"paths": {_path(one)[1:]: {"serverRelativeURL": f"/openapi/v3{_path(one)}"} for one in versions}}


def document(group_version: str) -> Json | None:
    """Return the document of a group version; None if it is not served."""
    from manifests.yaml.loader import KINDS

    resources = [one for one in served() if one.group_version == group_version]
    if not resources:
        return None
    kinds = {
        (group_version, one.kind): KINDS[group_version, one.kind]
        for one in resources
        if (group_version, one.kind) in KINDS
    }
    paths: Json = {}
    for one in resources:
        paths.update(_paths(one, kinds.get((group_version, one.kind))))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.32.0"},
        "paths": paths,
        "components": {"schemas": schemas(kinds)},
    }


def _path(group_version: str) -> str:
    return f"/api/{group_version}" if group_version == "v1" else f"/apis/{group_version}"


def _paths(resource: Resource, model: type[Object] | None) -> Json:
    """Return the paths of a resource. Clients read from PATCH what the server understands (client-go openapi3:
    QueryParamVerifierV3)."""
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    base = f"{_path(resource.group_version)}{scope}/{resource.plural}"
    group, _, version = resource.group_version.rpartition("/")
    identity = {"group": group, "version": version, "kind": resource.kind}
    schema = {"$ref": REFERENCE + schema_name(model)} if model else {"type": "object"}
    answer = {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}}
    named: Json = {}
    listed: Json = {}
    for verb in resource.verbs:
        if verb in _VERBS:
            operation: Json = {"responses": answer, "x-kubernetes-group-version-kind": identity}
            if verb in ("create", "update", "patch"):
                operation["parameters"] = [*_PARAMETERS, *([_FORCE] if verb == "patch" else [])]
            (listed if verb == "create" else named)[_VERBS[verb]] = operation
    for verb, method in (("list", "get"), ("deletecollection", "delete")):
        if verb in resource.verbs:
            listed[method] = {"responses": answer, "x-kubernetes-group-version-kind": identity}
    return {base: listed, f"{base}/{{name}}": named}


def swagger() -> Json:
    """Return the document of all kinds for /openapi/v2. It has what clients read there: definitions, and which kind a
    path is about."""
    paths: Json = {}
    definitions: Json = {}
    for version in sorted({resource.group_version for resource in served()}):
        found = document(version) or {}
        paths |= _swagger_paths(found["paths"])
        definitions |= _at_definitions(found["components"]["schemas"])
    info = {"title": "Kubernetes", "version": "v1.32.0"}
    return {"swagger": "2.0", "info": info, "paths": paths, "definitions": definitions}


def _swagger_paths(paths: Json) -> Json:
    """Return paths in the form of Swagger 2.0: an answer has a schema, and a parameter a type, without a level
    between."""
    found: Json = {}
    for path, operations in paths.items():
        found[path] = {}
        for verb, operation in operations.items():
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            given = [
                {key: value for key, value in one.items() if key != "schema"} | one["schema"]
                for one in operation.get("parameters", ())
            ]
            found[path][verb] = {
                **operation,
                **({"parameters": given} if given else {}),
                "responses": {"200": {"description": "OK", "schema": _at_definitions(schema)}},
            }
    return found


def _at_definitions(value: Any) -> Any:
    """Return schemas with their references where Swagger 2.0 has them."""
    if isinstance(value, dict):
        return {
            key: one.replace(REFERENCE, "#/definitions/")
            if key == "$ref" and isinstance(one, str)
            else _at_definitions(one)
            for key, one in value.items()
        }
    return [_at_definitions(one) for one in value] if isinstance(value, list) else value


async def get_swagger(request: Request) -> Response:
    """Answer in JSON, unless only another form would do: kubectl before 1.27 asks for protobuf alone."""
    accepted = request.headers.get("accept", "")
    if accepted and not any(word in accepted for word in ("json", "*/*", "application/*")):
        words = "/openapi/v2 is served as JSON: use kubectl 1.27 or newer, which reads /openapi/v3, or --validate=false"
        raise ApiError("NotAcceptable", words)
    return JSONResponse(swagger())


async def get_index(_: Request) -> Response:
    return JSONResponse(index())


async def get_document(request: Request) -> Response:
    given = request.path_params
    found = document(f"{given['group']}/{given['version']}" if "group" in given else given["version"])
    if found is None:
        raise ApiError("NotFound", "the server could not find the requested resource")
    return JSONResponse(found)


def routes() -> list[BaseRoute]:
    return [
        Route("/openapi/v2", get_swagger),
        Route("/openapi/v3", get_index),
        Route("/openapi/v3/api/{version}", get_document),
        Route("/openapi/v3/apis/{group}/{version}", get_document),
    ]
