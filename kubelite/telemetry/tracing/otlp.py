"""Exports container starts as OpenTelemetry traces, by OTLP over HTTP with JSON, if a collector is configured.

Sources: OTLP specification 1.x (opentelemetry.io/docs/specs/otlp: OTLP/HTTP, JSON encoding), the trace data model, and
the semantic conventions for Kubernetes resources. A trace has the steps of a pod's start. Its root span lasts from the
manifest (or the decision) to the process's first instruction; each other span is a step of the start trace (trace.py).

Nothing waits for the collector. If more than `MOST` starts wait to be sent, the oldest are dropped, and this is logged
once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from kubelite.kube.json import Json
from kubelite.version import version

log = logging.getLogger(__name__)


MOST = 1000  # starts waiting to be sent
BATCH = 50  # starts in one request
SETTLE = (
    1.0  # seconds between a start and sending it, so that steps of the pod's other containers are included
)
TIMEOUT = 10.0  # seconds for the collector's answer
PAUSE, LONGEST = 5.0, 300.0  # seconds before the first retry; most seconds before a retry
_INTERNAL, _ERROR = 1, 2  # SpanKind, StatusCode


def trace_id(uid: str, begin: float) -> str:
    """Return the trace id of the start whose first step was at `begin` (Unix seconds)."""
    return hashlib.sha256(f"{uid} {begin!r}".encode()).hexdigest()[:32]


def spans(pod: Json, steps: Sequence[Json]) -> list[Json]:
    """Return the steps of a start as OTLP spans of one trace, the root first. `pod`: namespace, name and uid. The ids
    are derived from the start, so sending it twice does not duplicate it."""
    begin = min(step["at"] for step in steps)
    end = max(step["at"] + step.get("took", 0.0) for step in steps)
    trace = trace_id(pod["uid"], begin)
    name = f"start {pod['namespace']}/{pod['name']}"
    root = _span(trace, "root", "", name=name, begin=begin, end=end, words={})
    found = [root]
    # container → begin, end and id of the span that contains the steps of its init.
    outer: dict[str, tuple[float, float, str]] = {}
    for place, step in enumerate(steps):
        container, took = step.get("container", ""), step.get("took", 0.0)
        parent = root["spanId"]
        if step.get("call") and container in outer and step["at"] < outer[container][1] + 1e-3:
            parent = outer[container][2]
        words = {
            "k8s.container.name": container,
            "kubelite.detail": step.get("detail", ""),
            "kubelite.syscall": step.get("call", ""),
        }
        name, begin = step["step"], step["at"]
        span = _span(trace, f"{place} {name}", parent, name=name, begin=begin, end=begin + took, words=words)
        if step.get("error"):
            span["status"] = {"code": _ERROR, "message": step["error"]}
        if container and not step.get("call"):
            outer[container] = (step["at"], step["at"] + took, span["spanId"])
        found.append(span)
    return found


def _span(
    trace: str, key: str, parent: str, *, name: str, begin: float, end: float, words: dict[str, str]
) -> Json:
    span: Json = {
        "traceId": trace,
        "spanId": hashlib.sha256(f"{trace} {key}".encode()).hexdigest()[:16],
        "name": name,
        "kind": _INTERNAL,
        "startTimeUnixNano": str(round(begin * 1e9)),
        "endTimeUnixNano": str(round(end * 1e9)),
        "attributes": attributes(words),
    }
    return {**span, "parentSpanId": parent} if parent else span


def attributes(words: dict[str, str]) -> list[Json]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in words.items() if value]


def request(node: str, starts: Sequence[tuple[Json, Sequence[Json]]]) -> Json:
    """Return an ExportTraceServiceRequest with one resource for each pod."""
    scope = {"name": "kubelite", "version": version()}
    return {
        "resourceSpans": [
            {
                "resource": {
                    "attributes": attributes(
                        {
                            "service.name": "kubelite",
                            "k8s.node.name": node,
                            "k8s.namespace.name": pod["namespace"],
                            "k8s.pod.name": pod["name"],
                            "k8s.pod.uid": pod["uid"],
                        }
                    )
                },
                "scopeSpans": [{"scope": scope, "spans": spans(pod, steps)}],
            }
            for pod, steps in starts
        ]
    }


def _key(step: Json) -> tuple[float, str, str]:
    return step["at"], step.get("container", ""), step["step"]


class Exporter:
    """Sends traces. Call `started(uid, steps)` when a container has started; `run()` sends until cancelled. `pod(uid)`
    returns the pod's namespace, name and uid, or None if the pod is deleted."""

    def __init__(self, endpoint: str, node: str, pod: Callable[[str], Json | None]) -> None:
        self.endpoint = endpoint
        self._node = node
        self._pod = pod
        self._due: dict[str, float] = {}  # uid → loop time at which to send it
        self._steps: dict[str, Callable[[], list[Json]]] = {}  # the steps of each pod that is due
        # uid → keys of the steps sent. Times cannot tell them: a long step is recorded after later, shorter ones.
        self._sent: dict[str, set[tuple[float, str, str]]] = {}
        self._waiting: deque[tuple[Json, list[Json]]] = deque()
        self._wake = asyncio.Event()
        self.dropped = 0

    def started(self, uid: str, steps: Callable[[], list[Json]]) -> None:
        """Report that a container of the pod has started. `steps` is called `SETTLE` seconds later, when the pod's
        other containers may have started, too."""
        self._steps[uid] = steps
        self._due[uid] = asyncio.get_running_loop().time() + SETTLE
        self._wake.set()

    def forget(self, uid: str) -> None:
        """Forget a deleted pod. Steps of its start that are not sent yet are sent with the next request."""
        if uid in self._due:
            self._take(uid)
        self._sent.pop(uid, None)

    def _take(self, uid: str) -> None:
        del self._due[uid]
        pod, steps = self._pod(uid), self._steps.pop(uid)
        if pod is None:
            return
        found, sent = steps(), self._sent.get(uid, set())
        new = [step for step in found if _key(step) not in sent]
        if not new:
            return
        self._sent[uid] = set(map(_key, found))
        if len(self._waiting) >= MOST:
            self._waiting.popleft()
            self._say_dropped()
        self._waiting.append((pod, new))

    def _say_dropped(self) -> None:
        self.dropped += 1
        if self.dropped == 1:
            log.warning("dropping traces: %s does not accept them", self.endpoint)

    async def run(self) -> None:
        import httpx  # loaded only if a collector is configured

        pause = PAUSE
        async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as client:
            while True:
                await self._ready()
                batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
                error = await self._send(client, batch)
                if error is None:
                    for _ in batch:
                        self._waiting.popleft()
                    pause = PAUSE
                    continue
                if pause == PAUSE:
                    log.warning("cannot send traces, retrying: %s: %s", self.endpoint, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST)

    async def _ready(self) -> None:
        """Wait until a start can be sent."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            for uid in [uid for uid, due in self._due.items() if due <= now]:
                self._take(uid)
            if self._waiting:
                return
            self._wake.clear()
            left = min(self._due.values(), default=None)
            try:
                async with asyncio.timeout(None if left is None else left - now):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _send(self, client: Any, batch: list[tuple[Json, list[Json]]]) -> str | None:
        """Send a batch. Return None if it was accepted or permanently refused, otherwise the reason for a retry."""
        import httpx

        headers = {"Content-Type": "application/json"}
        body = json.dumps(request(self._node, batch), separators=(",", ":")).encode()
        try:
            answer = await client.post(self.endpoint, content=body, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            return str(error) or type(error).__name__
        if answer.is_success:
            return None
        words = f"HTTP {answer.status_code} {answer.text[:200].strip()}".strip()
        if answer.status_code in (429, 502, 503, 504):  # OTLP/HTTP defines these as retryable
            return words
        log.warning("the collector refused traces: %s: %s", self.endpoint, words)
        return None
