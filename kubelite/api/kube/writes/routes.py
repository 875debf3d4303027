"""The paths that change objects: POST, PUT, PATCH and DELETE below /api and /apis."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.kube.resources import not_served
from kubelite.api.kube.routes import node_of, resource_of
from kubelite.api.kube.writes import refusals
from kubelite.api.kube.writes.bodies import APPLY, content_type, data_of
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.node.model.node_facts import ForbiddenPatch, InvalidPatch, StalePatch


async def write(request: Request) -> Response:
    """Carry out a POST, PUT or PATCH of an object that a manifest can define."""
    from kubelite.api.kube.writes import writing

    if said := not_served(request.url.path):
        raise ApiError("NotFound", said)
    resource, given = resource_of(request), request.path_params
    expected = ("PUT", "PATCH") if "name" in given else ("POST",)
    if not writing.is_written(resource) or request.method not in expected:
        words = (
            f"{resource.plural} of {resource.group_version}: {request.method} is not supported on this node"
        )
        raise ApiError("MethodNotAllowed", words)
    node, namespace = node_of(request), given.get("namespace", "")
    if request.method == "POST":
        if resource.namespaced and not namespace:
            raise ApiError(
                "MethodNotAllowed", f"{resource.plural} are created in a namespace: name it in the path"
            )
        return await writing.create(request, node, resource, namespace)
    if request.method == "PUT":
        return await writing.update(request, node, resource, namespace, given["name"])
    if content_type(request) == APPLY:
        from kubelite.api.kube.writes.applying import apply

        return await apply(request, node, resource, namespace, given["name"])
    return await writing.patch(request, node, resource, namespace, given["name"])


async def write_scale(request: Request) -> Response:
    from kubelite.api.kube.writes import writing

    given, resource = request.path_params, resource_of(request)
    if not resource.scaled:
        raise not_found(resource.plural, given["name"])
    if request.method == "PATCH" and content_type(request) == APPLY:
        from kubelite.api.kube.writes.applying import apply_scale

        return await apply_scale(request, node_of(request), resource, given["namespace"], given["name"])
    return await writing.scale(request, node_of(request), resource, given["namespace"], given["name"])


async def delete_one(request: Request) -> Response:
    from kubelite.api.kube.deletion import deleted

    given = request.path_params
    return await deleted(
        request, node_of(request), resource_of(request), given.get("namespace", ""), given["name"]
    )


async def delete_many(request: Request) -> Response:
    from kubelite.api.kube.writes.collection import deleted_collection

    if said := not_served(request.url.path):
        raise ApiError("NotFound", said)
    return await deleted_collection(
        request, node_of(request), resource_of(request), request.path_params.get("namespace", "")
    )


async def patch_node(request: Request) -> Response:
    """Implement `kubectl label|annotate|taint|cordon`. Both kinds of patches have the same effect, because the lists
    that can be patched are replaced as a whole."""
    node, name = node_of(request), request.path_params["name"]
    if name != node.node_name:
        raise not_found("nodes", name)
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind not in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
        raise ApiError(
            "UnsupportedMediaType",
            f"a node can only be changed by a merge patch, not by {kind or 'an untyped body'}",
        )
    patch = await data_of(request)
    if not isinstance(patch, dict):
        raise bad_request("the body is not a JSON object")
    if request.query_params.get("dryRun"):
        return JSONResponse(node.node())
    try:
        return JSONResponse(await node.patch_node(patch))
    except ForbiddenPatch as error:
        raise ApiError("Forbidden", f'nodes "{name}" is forbidden: {error}') from error
    except StalePatch as error:
        raise ApiError("Conflict", f'Operation cannot be fulfilled on nodes "{name}": {error}') from error
    except InvalidPatch as error:
        raise ApiError("Invalid", f'Node "{name}" is invalid: {error}') from error


def routes() -> list[BaseRoute]:
    """Return the routes. Those of subresources that are written elsewhere come before them."""
    found: list[BaseRoute] = [
        *refusals.routes(),
        Route("/api/v1/nodes/{name}", patch_node, methods=["PATCH"]),
    ]
    for version in ("/api/v1", "/apis/{group}/{version}"):
        for scope in ("/namespaces/{namespace}", ""):
            objects = f"{version}{scope}/{{resource}}"
            one = f"{objects}/{{name}}"
            if scope:
                found.append(Route(f"{one}/scale", write_scale, methods=["PATCH", "PUT"]))
            found += [
                Route(one, delete_one, methods=["DELETE"]),
                Route(one, write, methods=["POST", "PUT", "PATCH"]),
                Route(objects, delete_many, methods=["DELETE"]),
                Route(objects, write, methods=["POST", "PUT", "PATCH"]),
            ]
    return found
