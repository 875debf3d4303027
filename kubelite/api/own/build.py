"""/kubelite/v1/build: the operations of the node that an image build uses. The build itself runs in the process of
`kubelite build`."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.errors import from_exception, status
from kubelite.api.kube.routes import node_of
from kubelite.api.own.routes import json_body
from kubelite.api.stream import Stream
from kubelite.kube.errors import bad_request
from kubelite.kube.json import Json


async def about(request: Request) -> Response:
    return JSONResponse(node_of(request).builds_api.about())


async def network(request: Request) -> Response:
    """Attach a network namespace to the pod network while the connection is open. The answer is one line: {"address"}
    or {"error": a Status}."""
    pid = (await json_body(request)).get("pid")
    if not isinstance(pid, int) or pid <= 1:
        raise bad_request('network needs {"pid": of a process with a network namespace of its own}')
    return Stream(_lines(node_of(request).builds_api.attach(pid)), media_type="application/x-ndjson")


async def _lines(attached: AsyncGenerator[Json, None]) -> AsyncGenerator[bytes, None]:
    try:
        async for document in attached:
            yield json.dumps(document).encode() + b"\n"
    except Exception as error:  # noqa: BLE001 - sent to the client as the last line of the stream
        yield json.dumps({"error": status(from_exception(error))}).encode() + b"\n"
    finally:
        await attached.aclose()


def routes() -> list[BaseRoute]:
    return [
        Route("/kubelite/v1/build", about),
        Route("/kubelite/v1/build/network", network, methods=["POST"]),
    ]
