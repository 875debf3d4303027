"""The node's usage as answers of HTTP: metrics pages, in the format and encoding that a client prefers, and the
summary."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from kubelite.kube.json import Json
from kubelite.telemetry.metrics.exposition import OPENMETRICS, TEXT, prefers_openmetrics
from kubelite.telemetry.metrics.summary import cpu_and_memory


class Measured(Protocol):
    """What is known of the node's usage (kubelite.telemetry.metrics.pages)."""

    @property
    def names(self) -> tuple[str, ...]: ...

    async def render(self, name: str, *, openmetrics: bool, compressed: bool) -> bytes: ...

    async def summary(self) -> Json: ...


async def scrape(pages: Measured, name: str, request: Request) -> Response:
    """Return the page of this name; 404 if there is none."""
    if name not in pages.names:
        return PlainTextResponse(
            f"there is no page {name}; the pages are: {', '.join(pages.names[1:])}\n", 404
        )
    openmetrics = prefers_openmetrics(request.headers.get("accept", ""))
    compressed = accepts_gzip(request.headers.get("accept-encoding", ""))
    body = await pages.render(name, openmetrics=openmetrics, compressed=compressed)
    headers = {"content-type": OPENMETRICS if openmetrics else TEXT, "vary": "accept, accept-encoding"}
    if compressed:
        headers["content-encoding"] = "gzip"
    return Response(body, headers=headers)


async def stats_summary(pages: Measured, request: Request) -> Response:
    """Return the Summary API's document; with `only_cpu_and_memory=true`, as old metrics-servers ask, only a part."""
    document = await pages.summary()
    if request.query_params.get("only_cpu_and_memory") == "true":
        document = cpu_and_memory(document)
    return JSONResponse(document)


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110, 12.5.3)."""
    for part in header.split(","):
        coding, _, weight = part.replace(" ", "").partition(";q=")
        if coding == "gzip":
            return weight not in ("0", "0.0", "0.00", "0.000")
    return False
