"""Image operations under /kubelite/v1 that are not in routes.py: inspect, history, push, save, tag, prune, repair and
disk usage."""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.audit import note
from kubelite.api.kube.routes import node_of
from kubelite.api.own.routes import json_body, progress_stream
from kubelite.kube.errors import bad_request
from kubelite.kube.json import Json


async def inspect(request: Request) -> Response:
    return JSONResponse(node_of(request).images_api.inspect(request.path_params["ref"]))


async def history(request: Request) -> Response:
    return JSONResponse({"history": node_of(request).images_api.history(request.path_params["ref"])})


async def push(request: Request) -> Response:
    wanted = await json_body(request)
    reference, target = _text(wanted, "reference"), _text(wanted, "target", optional=True)
    form, level = wanted.get("compressionFormat") or "gzip", wanted.get("compressionLevel") or 0
    if not isinstance(form, str) or not isinstance(level, int):
        raise bad_request("compressionFormat must be a name, compressionLevel a number")
    note(request, f"image {reference}", *([f"image {target}"] if target else []))
    images, how = node_of(request).images_api, {"form": form, "level": level}
    return progress_stream(lambda progress: images.push(reference, target, how, progress))


async def save(request: Request) -> Response:
    wanted = await json_body(request)
    references, path, form = wanted.get("references"), _text(wanted, "path"), _text(wanted, "format")
    if not isinstance(references, list) or not references or not os.path.isabs(path):
        raise bad_request('save needs {"references": [IMAGE], "path": an absolute path, "format"}')
    images, names = node_of(request).images_api, [str(reference) for reference in references]
    note(request, *[f"image {name}" for name in names], f"archive {path}")
    return progress_stream(lambda progress: images.save(names, path, form, progress))


async def tag(request: Request) -> Response:
    wanted = await json_body(request)
    reference, target = _text(wanted, "reference"), _text(wanted, "target")
    note(request, f"image {reference}", f"image {target}")
    return JSONResponse(await node_of(request).images_api.tag(reference, target))


async def prune(request: Request) -> Response:
    wanted = await json_body(request)
    older = wanted.get("olderSeconds") or 0
    if not isinstance(older, int | float) or older < 0:
        raise bad_request("olderSeconds must be a number of seconds")
    images = node_of(request).images_api
    cache = bool(wanted.get("buildCache", True))
    return JSONResponse(await images.prune(every=bool(wanted.get("all")), older=float(older), cache=cache))


async def disk_usage(request: Request) -> Response:
    verbose = request.query_params.get("verbose") == "true"
    return JSONResponse({"usage": await node_of(request).images_api.disk_usage(verbose=verbose)})


async def repair(request: Request) -> Response:
    wanted = await json_body(request)
    done = await node_of(request).images_api.repair(deep=bool(wanted.get("deep")))
    return JSONResponse({"done": done})


def _text(document: Json, key: str, *, optional: bool = False) -> str:
    value = document.get(key, "" if optional else None)
    if not isinstance(value, str) or not (value or optional):
        raise bad_request(f'"{key}" is missing or not a string')
    return value


def routes() -> list[BaseRoute]:
    own = "/kubelite/v1"
    return [
        Route(f"{own}/df", disk_usage),
        Route(f"{own}/images/push", push, methods=["POST"]),
        Route(f"{own}/images/save", save, methods=["POST"]),
        Route(f"{own}/images/tag", tag, methods=["POST"]),
        Route(f"{own}/images/prune", prune, methods=["POST"]),
        Route(f"{own}/images/repair", repair, methods=["POST"]),
        Route(f"{own}/images/inspect/{{ref:path}}", inspect),
        Route(f"{own}/images/history/{{ref:path}}", history),
    ]
