"""`POST …/pods/NAME/eviction`: evict a pod if its PodDisruptionBudget allows that, as `kubectl drain` does.

Source: Kubernetes pkg/registry/core/pod/storage/eviction.go. The answers of a refusal are those of the API server: 429
with the budget's words as a cause, 500 if several budgets select the pod.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.delete_options import dry_run
from kubelite.api.kube.routes import node_of
from kubelite.api.kube.writes.bodies import data_of, typed
from kubelite.kube.errors import bad_request
from kubelite.kube.json import Json

_VERSIONS = ("policy/v1", "policy/v1beta1")


async def evict(request: Request) -> Response:
    from kubelite.controllers.eviction import EvictionOptions

    namespace, name = request.path_params["namespace"], request.path_params["name"]
    body = await _body(request)
    if (body.get("metadata") or {}).get("name") != name:
        raise bad_request("name in URL does not match name in Eviction object")
    given: Json = body.get("deleteOptions") or {}
    grace, must = given.get("gracePeriodSeconds"), given.get("preconditions") or {}
    if grace is not None and (type(grace) is not int or grace < 0):
        raise bad_request(f"gracePeriodSeconds must be a whole number of seconds, not {grace!r}")
    options = EvictionOptions(
        grace,
        str(must.get("uid") or ""),
        str(must.get("resourceVersion") or ""),
        dry_run(request.query_params.getlist("dryRun"), given.get("dryRun")),
    )
    await node_of(request).evict_pod(namespace, name, options)
    done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    return JSONResponse(done, 201)


async def _body(request: Request) -> Json:
    body = typed(await data_of(request), _VERSIONS[0], "Eviction")
    if (
        not isinstance(body, dict)
        or body.get("kind") != "Eviction"
        or body.get("apiVersion") not in _VERSIONS
        or not all(isinstance(body.get(key) or {}, dict) for key in ("metadata", "deleteOptions"))
    ):
        raise bad_request(f"the body is not an Eviction of {_VERSIONS[0]}")
    return body


def routes() -> list[BaseRoute]:
    return [Route("/api/v1/namespaces/{namespace}/pods/{name}/eviction", evict, methods=["POST"])]
