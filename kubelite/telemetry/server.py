"""What Prometheus and load balancers ask: /metrics, /healthz and /readyz on the node's TCP port. Nothing else is there:
the API itself is on the unix socket only."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import resource
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

from kubelite.telemetry.metrics import ContainerCollector, SandboxTarget, Target
from kubelite.telemetry.pods import NodeCollector, PodCollector
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from kubelite.agent import Agent


def registry(agent: Agent) -> CollectorRegistry:
    """Every collector of the node."""
    found = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=found)
    PlatformCollector(registry=found)
    GCCollector(registry=found)
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    found.register(ContainerCollector(lambda: targets(agent), agent.disk_usage.get, descriptors=descriptors))
    found.register(PodCollector(agent))
    found.register(NodeCollector(agent))
    return found


def targets(agent: Agent) -> tuple[list[Target], list[SandboxTarget]]:
    """What to report on, as the shims last said."""
    found: list[Target] = []
    sandboxes: list[SandboxTarget] = []
    for uid, record in agent.cri.living().items():
        pod = agent.store.get_uid(uid)
        if pod is None:
            continue
        place = (pod.namespace, pod.name)
        sandboxes.append(
            SandboxTarget(record.pid, record.cgroup, record.sandbox_id, *place, uid, record.host_network)
        )
        found.append(Target(record.cgroup, *place, started_at=record.created_at))
        for c in record.containers:
            if c["status"] == "running":
                name = f"k8s_{c['name']}_{pod.name}_{pod.namespace}_{uid}_{c['attempt']}"
                image, upper = c["labels"].get("image", ""), f"{c['bundle']}/upper"
                found.append(Target(c["cgroup"], *place, c["name"], image, name, c["started_at"], upper))
    return found, sandboxes


def create_app(agent: Agent) -> Starlette:
    metrics = registry(agent)
    one_at_a_time = asyncio.Lock()  # collectors keep descriptors; two scrapes at once would share them

    async def scrape(request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        async with one_at_a_time:
            body = await asyncio.to_thread(encoder, metrics)
        headers = {"content-type": content_type}
        if "gzip" in request.headers.get("accept-encoding", ""):
            body = await asyncio.to_thread(gzip.compress, body, 1)
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        ready, why = agent.ready()
        return PlainTextResponse("ok\n" if ready else f"{why}\n", 200 if ready else 503)

    return Starlette(
        routes=[
            Route("/metrics", scrape),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/livez", healthz),
        ]
    )


@contextlib.asynccontextmanager
async def serve_metrics(agent: Agent, host: str, port: int) -> AsyncIterator[int]:
    """Listen while the context lasts; gives the port (useful when 0 was asked for). Raises RuntimeFault when the
    address cannot be had."""
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        words = (
            f"cannot listen on {host}:{port} for metrics: {error.strerror} (set --listen to another, or none)"
        )
        raise RuntimeFault(words, reason="AddressInUse") from error
    config = Config(
        create_app(agent), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = _QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="metrics")
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        listener.close()


class _QuietServer(Server):
    """uvicorn's server without its own signal handlers: signals are the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield
