"""The Kubernetes half of the API: discovery, get, list, watch and log under /api and /apis.

Documents and messages are those of Kubernetes' API server, so that kubectl works. Objects are written in writes/, which
edits the manifest directory; a pod's status and ephemeral containers in conditions.py and
ephemeral.py; its streams are in streams/.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.kube.discovery import openapi
from kubelite.api.kube.lists.options import check_list_options, check_watch_options
from kubelite.api.kube.logfiles import LogQuery
from kubelite.api.kube.logs import open_log, pick_container
from kubelite.api.kube.printers import table
from kubelite.api.kube.resources import (
    RESOURCES,
    Resource,
    api_group,
    api_group_list,
    api_resource_list,
    api_versions,
    complete,
    find_resource,
    list_document,
    not_served,
    read_list,
    read_one,
    scale_of,
)
from kubelite.api.kube.watch import WatchRequest, open_watch
from kubelite.api.node import NodeApi
from kubelite.api.stream import Stream
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from kubelite.kube.objects import WORKLOADS
from kubelite.kube.selectors import Selector, matches_fields, parse_fields
from kubelite.kube.times import parse_time

_LARGEST = 2**63 - 1  # an int64, as in Kubernetes' options
_TRUE = ("1", "true", "True", "t", "T")


def node_of(connection: HTTPConnection) -> NodeApi:
    node: NodeApi = connection.app.state.node
    return node


def resource_of(request: Request) -> Resource:
    given = request.path_params
    version = f"{given['group']}/{given['version']}" if "group" in given else "v1"
    found = find_resource(version, given["resource"])
    if found is None or (not found.namespaced and "namespace" in given):
        words = not_served(request.scope["path"]) or "the server could not find the requested resource"
        raise ApiError("NotFound", words)
    return found


def flag(connection: HTTPConnection, name: str) -> bool:
    return connection.query_params.get(name) in _TRUE


def number_of(request: Request, name: str, *, least: int = 0) -> int | None:
    text = request.query_params.get(name)
    if text is None or text == "":
        return None
    try:
        value = int(text)
    except ValueError:
        raise bad_request(f"query parameter {name} must be a whole number, not {text!r}") from None
    if value < least:
        raise bad_request(f"query parameter {name} must not be less than {least}, not {value}")
    if value > _LARGEST:
        raise bad_request(f"query parameter {name} is out of range: {text[:40]}")
    return value


def table_version(accept: str) -> str | None:
    """Return the version of the Table (`meta.k8s.io/v1` or `v1beta1`) that the client prefers, None if it prefers the
    object."""
    for offer in accept.split(","):
        parts = dict(p.strip().partition("=")[::2] for p in offer.split(";")[1:])
        if parts.get("as") == "Table" and parts.get("v") in ("v1", "v1beta1"):
            return f"meta.k8s.io/{parts['v']}"
        if parts.get("as") is None and offer.strip():
            return None
    return None


def selector(request: Request, resource: Resource, *, name: str = "") -> Selector:
    """Return what the selectors of a request choose. Raises BadRequest."""
    from manifests.types.meta import parse_selector

    try:
        labels = parse_selector(request.query_params.get("labelSelector", ""))
    except ValueError as error:
        raise bad_request(str(error)) from error
    kind = resource.group if resource.group == "events.k8s.io" else resource.kind
    fields = parse_fields(request.query_params.get("fieldSelector", ""), kind)

    def selects(doc: Json) -> bool:
        metadata = doc["metadata"]
        if name and metadata.get("name") != name:
            return False
        return labels.matches(metadata.get("labels") or {}) and matches_fields(fields, doc)

    return selects


async def list_or_watch(request: Request) -> Response:
    node, resource = node_of(request), resource_of(request)
    namespace = request.path_params.get("namespace")
    if flag(request, "watch"):
        return _watch(request, node, resource, namespace)
    selects = selector(request, resource)
    await _settled(node, resource)
    version = node.store.resource_version
    check_list_options(request.query_params, version)
    at, limit, more = _moment(request, resource), _limit(request), Json()
    if at is not None:
        items = [doc for doc in await _then(node, resource, namespace, at) if selects(doc)]
    elif limit or request.query_params.get("continue"):
        from kubelite.api.kube.lists.paging import page_of

        items, version, more = page_of(request, node, resource, namespace, selects, limit=limit)
    else:
        items = [doc for doc in read_list(node, resource, namespace) if selects(doc)]
    as_table = table_version(request.headers.get("accept", ""))
    if as_table is None:
        found = list_document(resource, items, version)
    else:
        found = _table(request, resource, items, version, as_table, now=at)
    found["metadata"] |= more
    return JSONResponse(found)


def _limit(request: Request) -> int:
    """Return the greatest number of objects in a page; 0 means no limit. As on a cluster, a list with resourceVersion
    0, which informers send, has no pages (apiserver pkg/storage/cacher/cacher.go)."""
    limit = number_of(request, "limit") or 0
    return 0 if request.query_params.get("resourceVersion") == "0" else limit


def _moment(request: Request, resource: Resource) -> float | None:
    """Return the Unix seconds of kubelite's query parameter `at`, an RFC 3339 time in the past at which objects are
    shown; None if it is not given. Raises BadRequest."""
    text = request.query_params.get("at", "")
    if not text:
        return None
    if resource.kind not in WORKLOADS | {"Pod"}:
        raise bad_request(f"history is only kept for pods and workloads, not for {resource.plural}")
    found = parse_time(text)
    if found is None:
        raise bad_request(f"at {text!r} is not an RFC 3339 time")
    return found


async def _then(node: NodeApi, resource: Resource, namespace: str | None, at: float) -> list[Json]:
    docs = await node.history.objects_at(resource.kind, at)
    return [
        complete(resource, doc) for doc in docs if namespace in (None, doc["metadata"].get("namespace", ""))
    ]


async def _settled(node: NodeApi, resource: Resource) -> None:
    """Wait until the store has every recorded event, so that a client that sees a change also finds its events."""
    if resource.kind == "Event":
        await node.events_settled()


def _table(
    request: Request,
    resource: Resource,
    items: list[Json],
    version: int,
    api_version: str,
    *,
    now: float | None = None,
) -> Json:
    include = request.query_params.get("includeObject", "Metadata")
    return table(
        resource.kind,
        items,
        now=time.time() if now is None else now,
        resource_version=version,
        include=include,
        api_version=api_version,
    )


def _watch(
    request: Request, node: NodeApi, resource: Resource, namespace: str | None, *, name: str = ""
) -> Response:
    since = number_of(request, "resourceVersion")
    check_watch_options(request.query_params, node.store.resource_version)
    bookmarks, chosen = flag(request, "allowWatchBookmarks"), request.query_params.get("sendInitialEvents")
    initial = flag(request, "sendInitialEvents") if chosen else not since
    timeout = number_of(request, "timeoutSeconds")
    as_table = table_version(request.headers.get("accept", ""))

    def render(doc: Json) -> Json:
        if as_table is None:
            return doc
        version = int(doc["metadata"].get("resourceVersion") or 0)
        return _table(request, resource, [doc], version, as_table)

    return open_watch(
        node,
        WatchRequest(
            resource=resource,
            namespace=namespace,
            selects=selector(request, resource, name=name),
            render=render,
            since=None if initial else since or node.store.resource_version,
            timeout=timeout or None,
            bookmark=bookmarks and flag(request, "sendInitialEvents"),
            bookmarks=bookmarks,
        ),
    )


async def get_one(request: Request) -> Response:
    node, resource = node_of(request), resource_of(request)
    namespace, name = request.path_params.get("namespace", ""), request.path_params["name"]
    if flag(request, "watch"):
        return _watch(request, node, resource, namespace or None, name=name)
    await _settled(node, resource)
    at = _moment(request, resource)
    if at is None:
        doc = read_one(node, resource, namespace, name)
    else:
        then = await _then(node, resource, namespace, at)
        doc = next((found for found in then if found["metadata"]["name"] == name), None)
    if doc is None:
        raise not_found(resource.plural, name)
    as_table = table_version(request.headers.get("accept", ""))
    if as_table is None:
        return JSONResponse(doc)
    version = int(doc["metadata"].get("resourceVersion") or node.store.resource_version)
    return JSONResponse(_table(request, resource, [doc], version, as_table, now=at))


def pod_of(connection: HTTPConnection) -> Json:
    namespace, name = connection.path_params["namespace"], connection.path_params["name"]
    doc = read_one(node_of(connection), RESOURCES["pods"], namespace, name)
    if doc is None:
        raise not_found("pods", name)
    return doc


async def get_pod_status(request: Request) -> Response:
    return JSONResponse(pod_of(request))


async def pod_log(request: Request) -> Response:
    pod = pod_of(request)
    container = pick_container(pod, request.query_params.get("container", ""))
    log = open_log(node_of(request), pod, container, log_query(request), previous=flag(request, "previous"))
    return Stream(log, media_type="text/plain")


def log_query(request: Request) -> LogQuery:
    """Return which part of a log is asked for. Raises BadRequest."""
    since = None
    if (seconds := number_of(request, "sinceSeconds", least=1)) is not None:
        since = time.time() - seconds
    if since_time := request.query_params.get("sinceTime"):
        if seconds is not None:
            raise bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified")
        since = parse_time(since_time)
        if since is None:
            raise bad_request(f"sinceTime {since_time!r} is not an RFC 3339 time")
    return LogQuery(
        follow=flag(request, "follow"),
        tail=number_of(request, "tailLines"),
        since=since,
        timestamps=flag(request, "timestamps"),
        limit=number_of(request, "limitBytes", least=1),
    )


async def get_scale(request: Request) -> Response:
    node, resource = node_of(request), resource_of(request)
    given = request.path_params
    doc = read_one(node, resource, given["namespace"], given["name"])
    if doc is None or not resource.scaled:
        raise not_found(resource.plural, given["name"])
    return JSONResponse(scale_of(doc))


async def get_namespace_status(request: Request) -> Response:
    doc = read_one(node_of(request), RESOURCES["namespaces"], "", request.path_params["name"])
    if doc is None:
        raise not_found("namespaces", request.path_params["name"])
    return JSONResponse(doc)


async def get_status(request: Request) -> Response:
    if not resource_of(request).has_status:
        raise ApiError("NotFound", "the server could not find the requested resource")
    return await get_one(request)


def version_document() -> Json:
    """Return the document of /version: the Kubernetes release whose API is served, with kubelite's version after a plus
    sign."""
    import platform

    from kubelite.version import version

    return {
        "major": "1",
        "minor": "32",
        "gitVersion": f"v1.32.0+kubelite-{version()}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{platform.machine()}",
    }


async def get_group(request: Request) -> Response:
    """Answer /apis/<group> and /apis/<group>/<version>."""
    found = api_group(request.path_params["group"])
    if found is not None and (version := request.path_params.get("version")):
        name = f"{found['name']}/{version}"
        served = any(one["groupVersion"] == name for one in found["versions"])
        found = api_resource_list(name) if served else None
    if found is None:
        raise ApiError("NotFound", "the server could not find the requested resource")
    return JSONResponse(found)


def _document(build: Any) -> Any:
    async def answer(_: Request) -> Response:
        return JSONResponse(build())

    return answer


def _discovery(build: Callable[[], Json], *, core: bool) -> Any:
    async def answer(request: Request) -> Response:
        from kubelite.api.kube.discovery import aggregated

        version = aggregated.version_wanted(request.headers.get("accept", ""))
        if version is None:
            return JSONResponse(build(), headers={"Vary": "Accept"})
        kind = aggregated.MEDIA_TYPE.format(version=version)
        document = aggregated.document(core=core, version=version)
        return JSONResponse(document, media_type=kind, headers={"Vary": "Accept"})

    return answer


def routes() -> list[BaseRoute]:
    one = "/api/v1/namespaces/{namespace}/{resource}/{name}"
    pod = "/api/v1/namespaces/{namespace}/pods/{name}"
    group = "/apis/{group}/{version}"
    of_namespace = f"{group}/namespaces/{{namespace}}/{{resource}}"
    return [
        Route("/api", _discovery(api_versions, core=True)),
        Route("/api/v1", _document(api_resource_list)),
        Route("/apis", _discovery(api_group_list, core=False)),
        Route("/apis/{group}", get_group),
        Route(group, get_group),
        Route(of_namespace, list_or_watch),
        Route(f"{of_namespace}/{{name}}", get_one),
        Route(f"{of_namespace}/{{name}}/scale", get_scale),
        Route(f"{of_namespace}/{{name}}/status", get_status),
        Route(f"{group}/{{resource}}/{{name}}/status", get_status),
        Route(f"{group}/{{resource}}", list_or_watch),
        Route(f"{group}/{{resource}}/{{name}}", get_one),
        Route("/version", _document(version_document)),
        *openapi.routes(),
        Route(f"{pod}/log", pod_log),
        Route(f"{pod}/status", get_pod_status),
        Route("/api/v1/namespaces/{name}/status", get_namespace_status),
        Route("/api/v1/namespaces/{namespace}/{resource}", list_or_watch),
        Route(one, get_one),
        Route(f"{one}/scale", get_scale),
        Route(f"{one}/status", get_status),
        Route("/api/v1/{resource}", list_or_watch),
        Route("/api/v1/{resource}/{name}", get_one),
        Route("/api/v1/{resource}/{name}/status", get_status),
    ]
