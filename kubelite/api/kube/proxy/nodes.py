"""`…/nodes/NAME/proxy`: what kubelet serves on its own port, answered by the node itself. Monitoring agents and kubectl
(`get --raw`) read it through the API of a cluster.

Only GET, and nothing that runs a program: the streams of pods have paths of their own. Paths: Kubernetes
pkg/kubelet/server/server.go.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.kube.logs import open_log, pick_container
from kubelite.api.kube.resources import RESOURCES, list_document, read_list, read_one
from kubelite.api.kube.routes import flag, log_query, node_of
from kubelite.api.stream import Stream
from kubelite.kube.errors import ApiError, not_found

_HEALTH = frozenset({"healthz", "healthz/log", "healthz/ping", "healthz/syncloop"})
_SERVED = "stats/summary, metrics, metrics/cadvisor, metrics/resource, metrics/probes, pods, containerLogs and healthz"


async def _node(request: Request) -> Response:
    """Answer for the node. Raises ApiError."""
    from kubelite.api.kube.proxy import location

    node = node_of(request)
    wanted = location.given(request.path_params["name"], "node")
    if wanted.name != node.node_name:
        raise not_found("nodes", wanted.name)
    path = request.path_params.get("path", "").strip("/")
    first, _, rest = path.partition("/")
    if path == "stats/summary":
        from kubelite.telemetry.web.scrape import stats_summary

        return await stats_summary(node.pages(), request)
    if first == "metrics":
        from kubelite.telemetry.web.scrape import scrape

        # Kubelet's page has its own metrics; those of containers and objects are other pages here, too.
        return await scrape(node.pages(), rest or "agent", request)
    if path in _HEALTH:
        return PlainTextResponse("ok")
    if path in ("pods", "runningpods"):
        pods = RESOURCES["pods"]
        return JSONResponse(list_document(pods, read_list(node, pods, None), node.store.resource_version))
    if first == "containerLogs" and rest.count("/") == 2:
        return _container_log(request, *rest.split("/"))
    if first == "logs":
        words = "the node's own log is not served: read it with `journalctl --unit kubelite` on the machine"
        raise ApiError("NotFound", words)
    raise ApiError("NotFound", f'this node has no page "{path[:100]}" here: it has {_SERVED}')


def _container_log(request: Request, namespace: str, name: str, container: str) -> Response:
    node = node_of(request)
    pod = read_one(node, RESOURCES["pods"], namespace, name)
    if pod is None:
        raise not_found("pods", name)
    chosen, previous = pick_container(pod, container), flag(request, "previous")
    return Stream(open_log(node, pod, chosen, log_query(request), previous=previous), media_type="text/plain")


def routes() -> list[BaseRoute]:
    path = "/api/v1/nodes/{name}/proxy"
    return [Route(place, _node, methods=["GET"]) for place in (path, f"{path}/{{path:path}}")]
