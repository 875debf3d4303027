"""Writes that an API server has and this node refuses, each with a sentence about what to do in its place.

They are writes of what the node decides itself: a pod's node, an object's status, the end of a namespace.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kubelite.api.kube.resources import RESOURCES, read_one
from kubelite.api.kube.routes import node_of, resource_of
from kubelite.kube.errors import ApiError, not_found


async def bind(request: Request) -> Response:
    """POST of a Binding: a scheduler of a cluster tells a pod's node so."""
    words = "bindings are not supported on this node: pods are bound by the node's own scheduler"
    raise ApiError("MethodNotAllowed", words)


async def write_status(request: Request) -> Response:
    """PUT or PATCH of a status."""
    resource, given = resource_of(request), request.path_params
    if not resource.has_status and resource.kind != "Pod":
        raise ApiError("NotFound", "the server could not find the requested resource")
    if read_one(node_of(request), resource, given.get("namespace", ""), given["name"]) is None:
        raise not_found(resource.plural, given["name"])
    remedy = "clients may PATCH the status of pods, to set conditions of their own"
    if resource.kind == "Node":
        remedy = "it shows what the node observes, and clients may change labels, annotations, taints and unschedulable"
    words = f"the status of {resource.plural} is written by the node alone: {remedy}"
    raise ApiError("MethodNotAllowed", words)


async def write_namespace_status(request: Request) -> Response:
    _namespace(request)
    raise ApiError("MethodNotAllowed", "the status of namespaces is written by the node alone")


async def finalize(request: Request) -> Response:
    """PUT of a namespace's finalizers: on a cluster, a way out for one that does not end."""
    name = _namespace(request)
    words = f"the node ends namespace {name} itself when its objects are gone (`kubelite get all -n {name}`)"
    raise ApiError("MethodNotAllowed", f"namespaces are not finalized by clients: {words}")


def _namespace(request: Request) -> str:
    name: str = request.path_params["name"]
    if read_one(node_of(request), RESOURCES["namespaces"], "", name) is None:
        raise not_found("namespaces", name)
    return name


def routes() -> list[BaseRoute]:
    """Return the routes, which come before those of objects: a subresource of a namespace looks like a resource in
    it."""
    writes = ["PATCH", "PUT"]
    namespace = "/api/v1/namespaces/{name}"
    found: list[BaseRoute] = [
        Route(f"{namespace}/finalize", finalize, methods=["PUT"]),
        Route(f"{namespace}/status", write_namespace_status, methods=writes),
        Route("/api/v1/namespaces/{namespace}/bindings", bind, methods=["POST"]),
        Route("/api/v1/namespaces/{namespace}/pods/{name}/binding", bind, methods=["POST"]),
    ]
    for version in ("/api/v1", "/apis/{group}/{version}"):
        for scope in ("/namespaces/{namespace}", ""):
            found.append(
                Route(f"{version}{scope}/{{resource}}/{{name}}/status", write_status, methods=writes)
            )
    return found
