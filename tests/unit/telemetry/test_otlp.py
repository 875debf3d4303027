"""Starts as OpenTelemetry traces: their structure, and sending with and without a collector."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from kubelite.kube.json import Json
from kubelite.settings import Settings, SettingsError
from kubelite.telemetry.tracing import otlp
from kubelite.telemetry.tracing.otlp import Exporter, request, spans
from tests.waiting import until_async as until

POD = {"namespace": "default", "name": "web", "uid": "u1"}
STEPS: list[Json] = [
    {"at": 100.0, "step": "manifest changed", "detail": "web.yaml"},
    {"at": 100.5, "step": "network", "took": 0.25},
    {"at": 101.0, "step": "create", "took": 1.0, "container": "app"},
    {"at": 101.25, "step": "clone3", "took": 0.5, "container": "app", "call": "clone3"},
    {"at": 102.0, "step": "start", "took": 0.5, "container": "app", "error": "no such file"},
]


def test_spans_of_a_start() -> None:
    root, *found = spans(POD, STEPS)
    assert root["name"] == "start default/web" and "parentSpanId" not in root
    assert (root["startTimeUnixNano"], root["endTimeUnixNano"]) == ("100000000000", "102500000000")
    assert {span["traceId"] for span in found} == {root["traceId"]} and len(root["traceId"]) == 32
    assert len({span["spanId"] for span in (root, *found)}) == 6 and len(root["spanId"]) == 16
    parents = {span["name"]: span["parentSpanId"] for span in found}
    create = next(span for span in found if span["name"] == "create")
    assert parents["clone3"] == create["spanId"] and parents["network"] == root["spanId"]
    assert found[-1]["status"] == {"code": 2, "message": "no such file"}
    assert spans(POD, STEPS)[0] == root, "the same start has the same ids"
    syscall = {"key": "kubelite.syscall", "value": {"stringValue": "clone3"}}
    assert syscall in next(span for span in found if span["name"] == "clone3")["attributes"]


def test_a_request_names_node_and_pod() -> None:
    (one,) = request("node-1", [(POD, STEPS)])["resourceSpans"]
    words = {pair["key"]: pair["value"]["stringValue"] for pair in one["resource"]["attributes"]}
    assert words == {
        "service.name": "kubelite", "k8s.node.name": "node-1", "k8s.namespace.name": "default",
        "k8s.pod.name": "web", "k8s.pod.uid": "u1",
    }  # fmt: skip


class Collector:
    """A collector that answers with these status lines, then always with the last one."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, Json]] = []
        self.endpoint = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.split("content-length: ")[1].split("\r\n")[0])
                body = json.loads(await reader.readexactly(size))
                self.requests.append((head.split()[1], body))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Collector]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces"
        try:
            yield self
        finally:
            server.close()


@contextlib.asynccontextmanager
async def exporting(endpoint: str) -> AsyncIterator[Exporter]:
    exporter = Exporter(endpoint, "node-1", lambda _uid: POD)
    task = asyncio.create_task(exporter.run())
    try:
        yield exporter
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_start_is_sent_once_and_a_restart_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "SETTLE", 0.01)
    steps = list(STEPS)
    async with Collector("200 OK").running() as collector, exporting(collector.endpoint) as exporter:
        exporter.started("u1", lambda: list(steps))
        await until(lambda: len(collector.requests) == 1)
        path, body = collector.requests[0]
        assert path == "/v1/traces" and len(body["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 6
        steps.append({"at": 200.0, "step": "create", "took": 0.1, "container": "app"})
        exporter.started("u1", lambda: list(steps))
        await until(lambda: len(collector.requests) == 2)
        names = [s["name"] for s in collector.requests[1][1]["resourceSpans"][0]["scopeSpans"][0]["spans"]]
        assert names == ["start default/web", "create"]


async def test_a_step_that_ends_after_a_later_one_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's image may be pulled while others start."""
    monkeypatch.setattr(otlp, "SETTLE", 0.01)
    steps = list(STEPS)
    async with Collector("200 OK").running() as collector, exporting(collector.endpoint) as exporter:
        exporter.started("u1", lambda: list(steps))
        await until(lambda: len(collector.requests) == 1)
        steps.insert(1, {"at": 100.25, "step": "pull", "took": 30.0, "container": "side"})
        exporter.started("u1", lambda: list(steps))
        await until(lambda: len(collector.requests) == 2)
        names = [s["name"] for s in collector.requests[1][1]["resourceSpans"][0]["scopeSpans"][0]["spans"]]
        assert names == ["start default/web", "pull"]


async def test_a_busy_collector_is_retried_a_rejection_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(otlp, "SETTLE", 0.01)
    monkeypatch.setattr(otlp, "PAUSE", 0.01)
    collector = Collector("503 Busy", "503 Busy", "400 No", "200 OK")
    async with collector.running(), exporting(collector.endpoint) as exporter:
        exporter.started("u1", lambda: list(STEPS))
        await until(lambda: len(collector.requests) == 3)
        await until(lambda: "the collector refused traces" in caplog.text)
        assert caplog.text.count("cannot send traces") == 1, "said once"
        await asyncio.sleep(0.1)
        assert len(collector.requests) == 3


async def test_without_a_collector_a_bounded_number_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "SETTLE", 0.0)
    monkeypatch.setattr(otlp, "MOST", 3)
    monkeypatch.setattr(otlp, "PAUSE", 0.01)
    async with exporting("http://127.0.0.1:9/v1/traces") as exporter:
        for number in range(6):
            exporter.started(f"u{number}", lambda: list(STEPS))
        await until(lambda: exporter.dropped == 3)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://collector.test/", "https://collector.test/v1/traces"),
        ("http://c:1/otlp/v1/traces", "http://c:1/otlp/v1/traces"),
    ],
)
def test_an_endpoint(given: str, kept: str) -> None:
    assert Settings.load({"otlp_endpoint": given}, {}).otlp_endpoint == kept


@pytest.mark.parametrize(
    "given",
    ["127.0.0.1:4318", "grpc://c:4317", "http://", "http://c:99999", "http://me:secret@c", "http://c?a=b"],
)
def test_invalid_endpoints_are_rejected(given: str) -> None:
    with pytest.raises(SettingsError, match=r"otlp-endpoint: must"):
        Settings.load({"otlp_endpoint": given}, {})
