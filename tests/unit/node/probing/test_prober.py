"""The prober with real servers on loopback and a fake node: requests, times, and events."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.model.cri import (
    ContainerState,
    ExecResult,
    ObservedContainer,
    ObservedPod,
    ObservedSandbox,
)
from kubelite.node.model.observer import Observer
from kubelite.node.model.probe_results import Health, Kind, Outcome
from kubelite.node.probing import exchange, grpc_health
from kubelite.node.probing.http_get import Get, fetch
from kubelite.node.probing.prober import Prober
from manifests.types.core import Pod, PodStatus
from runtime.errors import StartError
from tests.unit.node.decide.pod_worlds import CONFIG, UID, container, deleted, edited, make_pod
from tests.unit.node.fake_cri import FakeCri
from tests.unit.node.worker.worker_kit import Events
from tests.waiting import until_async


class Server:
    """Answers each connection with the next of `answers`, then with the last one, and records the requests."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]
        self.asked: list[bytes] = []
        self.port = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.read(65536))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await reader.read()  # sends nothing until the client leaves
        else:
            writer.write(answer)
        writer.close()


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


# -- the exchanges ----------------------------------------------------------------------------------------------


async def test_get() -> None:
    async with Server().serving() as server:
        get = Get("http", "127.0.0.1", server.port, "/healthz?x=1", [("X-A", "b")])
        found = await fetch(get, 5)
        assert (found.status, found.body) == (200, b"ok")
        assert server.asked[0].startswith(b"GET /healthz?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
        assert b"\r\nX-A: b\r\n" in server.asked[0]


async def test_redirects_are_followed_only_on_the_same_host() -> None:
    async with Server().serving() as server:
        away = b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\n\r\n"
        here = b"HTTP/1.1 302 Found\r\nLocation: /next\r\n\r\n"
        server.answers = [here, away]
        found = await fetch(Get("http", "127.0.0.1", server.port, "/"), 5)
        assert found.status == 302
        assert [line.split(b" ")[1] for line in server.asked] == [b"/", b"/next"]
        server.answers = [here]
        with pytest.raises(exchange.WireError, match="stopped after 10 redirects"):
            await fetch(Get("http", "127.0.0.1", server.port, "/"), 5)


async def test_errors_have_gos_messages() -> None:
    port = closed_port()
    refused = f'Get "http://127.0.0.1:{port}/": dial tcp 127.0.0.1:{port}: connect: connection refused'
    with pytest.raises(exchange.WireError) as error:
        await fetch(Get("http", "127.0.0.1", port, "/"), 5)
    assert str(error.value) == refused
    with pytest.raises(exchange.WireError, match=r"^dial tcp 127.0.0.1:\d+: connect: connection refused$"):
        await exchange.connect("127.0.0.1", port, 5)
    async with Server().serving() as server:
        server.answers = [None]
        with pytest.raises(exchange.TimedOut, match=r"context deadline exceeded \(Client.Timeout exceeded"):
            await fetch(Get("http", "127.0.0.1", server.port, "/"), 0.05)
        server.answers = [b""]
        with pytest.raises(exchange.WireError, match="EOF"):
            await fetch(Get("http", "127.0.0.1", server.port, "/"), 5)
        await exchange.connect("127.0.0.1", server.port, 5)


async def test_a_large_response_is_read_only_as_far_as_needed() -> None:
    async with Server().serving() as server:
        server.answers = [b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000]
        assert len((await fetch(Get("http", "127.0.0.1", server.port, "/"), 5)).body) == 10240


class Grpc:
    """A gRPC health server built on h2: answers with a serving status, or with an error."""

    def __init__(self, body: bytes = b"", status: str = "0", message: str = "") -> None:
        self.body = body
        self.trailers = {"grpc-status": status, "grpc-message": message}
        self.services: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from h2.events import DataReceived, RequestReceived, StreamEnded

        link = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        link.initiate_connection()
        writer.write(link.data_to_send())
        path = ""
        while chunk := await reader.read(65536):
            for event in link.receive_data(chunk):
                if isinstance(event, RequestReceived):
                    path = next(str(v) for k, v in event.headers or () if str(k) == ":path")
                elif isinstance(event, DataReceived):
                    self.services.append(bytes(event.data or b""))
                elif isinstance(event, StreamEnded):
                    assert path == "/grpc.health.v1.Health/Check"
                    head = [(":status", "200"), ("content-type", "application/grpc")]
                    link.send_headers(event.stream_id, head)
                    if self.body:
                        link.send_data(event.stream_id, self.body)
                    trailers = list(self.trailers.items())
                    link.send_headers(event.stream_id, trailers, end_stream=True)
            writer.write(link.data_to_send())
        writer.close()


SERVING = b"\x00\x00\x00\x00\x02\x08\x01"


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (Grpc(SERVING), (True, "service healthy")),
        (Grpc(SERVING[:-1] + b"\x02"), (False, 'service unhealthy (responded with "NOT_SERVING")')),
        (Grpc(b"\x00\x00\x00\x00\x00"), (False, 'service unhealthy (responded with "UNKNOWN")')),
        (
            Grpc(status="5", message="unknown%20service"),
            (False, "error: health rpc probe failed: unknown service"),
        ),
        (
            Grpc(status="12", message="unknown service"),
            (
                False,
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): "
                "unknown service",
            ),
        ),
    ],
)
async def test_grpc(server: Grpc, expected: tuple[bool, str]) -> None:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    assert await grpc_health.check("127.0.0.1", port, "db", 5) == expected
    assert server.services == [b"\x00\x00\x00\x00\x04\x0a\x02db"]
    listener.close()


async def test_a_grpc_server_that_does_not_respond() -> None:
    async with Server().serving() as server:
        server.answers = [None]
        good, text = await grpc_health.check("127.0.0.1", server.port, "", 0.05)
        assert (good, text) == (False, "timeout: health rpc did not complete within 0.05s")
    good, text = await grpc_health.check("127.0.0.1", closed_port(), "", 5)
    assert not good
    assert "connect: connection refused" in text


# -- the prober -------------------------------------------------------------------------------------------------


class Tries(Observer):
    """Records which probes ran."""

    def __init__(self) -> None:
        self.kinds: list[Kind] = []

    def probed(self, pod: Pod, container: str, kind: Kind, outcome: Outcome, took: float) -> None:
        self.kinds.append(kind)


class Probed:
    """A pod with one running container on a fake node, and the prober."""

    def __init__(self, **probes: Any) -> None:
        self.pod = make_pod(container("a", **probes), hostNetwork=True)
        self.fake = FakeCri()
        tries = Tries()
        self.tried = tries.kinds
        self.events = Events()
        self.woken: list[str] = []
        config = replace(CONFIG, host_ip="127.0.0.1")
        self.prober = Prober(
            self.fake, config, self.events,
            clock=lambda: self.fake.now, wake=self.woken.append, observer=tries,
        )  # fmt: skip
        self.instance = ObservedContainer(
            "c1", "a", 0, ContainerState.RUNNING, started_at=self.fake.now, sandbox_id="s"
        )
        self.fake.containers[UID] = [self.instance]
        self.follow()

    def follow(self, pod: Pod | None = None, **changes: Any) -> Health:
        self.instance = replace(self.instance, **changes)
        sandbox = ObservedSandbox("s", True, 1, self.fake.now, host_network=True)
        found = self.prober.follow(pod or self.pod, ObservedPod(UID, sandbox, (self.instance,)))
        return found.get("c1", Health())

    async def until(self, condition: Callable[[], object]) -> None:
        await until_async(condition)

    async def tries(self, number: int) -> None:
        """Let time pass until so many probes have run."""
        while len(self.tried) < number:
            self.fake.now += 0.5
            await asyncio.sleep(0.002)
            for one in self.prober._pods.get(UID, {}).values():
                for watch in one.watches.values():
                    if watch.timer is not None:
                        watch.timer.cancel()
                        self.prober._due(one, watch)


EXEC = {"exec": {"command": ["check"]}, "failureThreshold": 2, "periodSeconds": 1}


async def test_readiness_changes_with_the_probe() -> None:
    node = Probed(readinessProbe=EXEC)
    assert node.follow() == Health(ready=False)
    await node.until(lambda: node.woken)
    assert node.follow() == Health()
    node.fake.exec_result = ExecResult(1, "no luck")
    await node.tries(2)
    assert node.follow() == Health(), "one failure is not enough"
    await node.tries(3)
    assert node.follow() == Health(ready=False)
    assert len(node.woken) == 2
    assert node.events.messages("Unhealthy") == ["Readiness probe failed: no luck"] * 2
    await node.prober.close()


async def test_a_failed_liveness_probe_stops() -> None:
    node = Probed(livenessProbe={**EXEC, "failureThreshold": 1})
    node.fake.exec_result = ExecResult(137, "", timed_out=True)
    await node.until(lambda: node.woken)
    assert node.follow().failed is Kind.LIVENESS
    assert node.events.messages("Unhealthy") == [
        'Liveness probe failed: command timed out: "check" timed out after 1s'
    ]
    calls = len(node.fake.calls)
    assert not node.prober._pods[UID]["c1"].watches[Kind.LIVENESS].timer
    node.follow(id="c2")
    node.fake.containers[UID] = [node.instance]
    assert not node.prober.health(UID)["c2"].failed, "a new instance starts anew"
    await node.until(lambda: len(node.fake.calls) > calls)
    await node.prober.close()


async def test_other_probes_start_after_the_startup_probe_succeeds() -> None:
    node = Probed(startupProbe={**EXEC, "failureThreshold": 9}, readinessProbe=EXEC, livenessProbe=EXEC)
    node.fake.exec_result = ExecResult(1)
    await node.tries(3)
    assert set(node.tried) == {Kind.STARTUP}
    assert node.follow() == Health(started=False, ready=False)
    node.fake.exec_result = ExecResult(0)
    await node.tries(4)
    await node.until(lambda: node.follow() == Health())
    assert not node.prober._pods[UID]["c1"].watches[Kind.STARTUP].timer, "it is asked no more"
    await node.prober.close()


async def test_a_probe_that_cannot_run_does_not_count() -> None:
    node = Probed(livenessProbe={**EXEC, "failureThreshold": 1})
    node.fake.exec_result = StartError("check: no such file")
    await node.tries(1)
    assert node.follow() == Health()
    assert [call for call, _ in node.fake.calls] == ["exec"] * 3, "up to three times"
    assert node.events.messages("Unhealthy") == [
        "Liveness probe errored and resulted in unknown state: check: no such file"
    ]
    await node.prober.close()


async def test_only_readiness_is_probed_while_a_container_stops() -> None:
    node = Probed(livenessProbe=EXEC, readinessProbe=EXEC)
    await node.until(lambda: node.woken)
    gone = deleted(node.pod)
    assert node.follow(gone) == Health()
    watches = node.prober._pods[UID]["c1"].watches
    assert not watches[Kind.LIVENESS].timer
    assert watches[Kind.READINESS].timer
    node.follow(gone, state=ContainerState.EXITED)
    assert not watches[Kind.READINESS].timer
    assert node.prober.health(UID) == {}
    await node.prober.close()


async def test_a_new_daemon_uses_the_status_until_the_first_probe() -> None:
    node = Probed()
    status = {"name": "a", "ready": True, "started": True, "containerID": "kubelite://c1", "restartCount": 0}
    probes = {"startupProbe": {**EXEC, "failureThreshold": 1}, "readinessProbe": EXEC, "livenessProbe": EXEC}
    node.pod = edited(node.pod, {"containers": [container("a", **probes)]})
    node.pod = node.pod.model_copy(
        update={"status": PodStatus.parse({"containerStatuses": [{**status, "image": "", "imageID": ""}]})}
    )
    node.fake.exec_result = ExecResult(1)
    assert node.follow() == Health(), "no startup probe again, ready until it is not"
    await node.tries(3)
    assert Kind.STARTUP not in node.tried
    await node.until(lambda: not node.follow().ready)
    await node.prober.close()


async def test_an_edit_changes_the_probe_in_place() -> None:
    node = Probed(livenessProbe=EXEC)
    await node.tries(1)
    node.fake.exec_result = ExecResult(1)
    other = edited(node.pod, {"containers": [container("a", livenessProbe={**EXEC, "failureThreshold": 1})]})
    node.follow(other)
    await node.tries(2)
    assert node.follow(other).failed is Kind.LIVENESS
    gone = edited(node.pod, {"containers": [container("a")]})
    assert node.follow(gone) == Health()
    assert node.prober.health(UID) == {}
    await node.prober.close()


async def test_tcp_and_http_go_to_the_pods_address() -> None:
    async with Server().serving() as server:
        http = {"httpGet": {"port": server.port, "path": "/", "scheme": "HTTP"}}
        node = Probed(readinessProbe=http, livenessProbe={"tcpSocket": {"port": server.port}})
        await node.until(lambda: node.follow() == Health())
        server.answers = [b"HTTP/1.1 500 Oh\r\n\r\n"]
        await node.tries(len(node.tried) + 2)
        await node.until(lambda: node.events.messages("Unhealthy"))
        assert node.events.messages("Unhealthy")[0] == (
            "Readiness probe failed: HTTP probe failed with statuscode: 500"
        )
        await node.prober.close()


async def test_a_probe_that_lasts_a_period_is_followed_by_the_next_at_once() -> None:
    """Like kubelet's ticker, which keeps one tick. Otherwise a hanging probe would run only every other period."""
    async with Server().serving() as server:
        server.answers = [None, b"HTTP/1.0 200 OK\r\n\r\n"]
        node = Probed(
            livenessProbe={"httpGet": {"port": server.port, "scheme": "HTTP"}, "periodSeconds": 3600}
        )
        (one,) = node.prober._pods[UID].values()
        watch = one.watches[Kind.LIVENESS]
        await node.until(lambda: server.asked)
        first = watch.exchange
        assert first is not None
        assert watch.timer is not None
        watch.timer.cancel()
        node.prober._due(one, watch)
        assert watch.exchange is first, "one at a time"
        first.expire()
        await node.until(lambda: len(node.tried) == 2)
        assert len(server.asked) == 2
        assert [text.rpartition("(")[2] for text in node.events.messages("Unhealthy")] == [
            "Client.Timeout exceeded while awaiting headers)"
        ]
        await node.prober.close()


async def test_tcp_and_http_probes_leave_no_task_timer_or_socket() -> None:
    async with Server().serving() as server:
        server.answers = [None]
        every = {"periodSeconds": 3600, "timeoutSeconds": 3600}
        node = Probed(
            livenessProbe={"httpGet": {"port": server.port, "scheme": "HTTP"}, **every},
            readinessProbe={"tcpSocket": {"port": server.port}, **every},
        )
        await node.until(lambda: server.asked and Kind.READINESS in node.tried)
        (one,) = node.prober._pods[UID].values()
        assert [watch.task for watch in one.watches.values()] == [None, None]
        hanging = one.watches[Kind.LIVENESS].exchange
        assert hanging is not None
        await node.prober.close()
        assert hanging.ended
        assert all(watch.timer is None for watch in one.watches.values())


async def test_ended_probes_are_not_kept_until_their_timeout() -> None:
    async with Server().serving() as server:
        http = {
            "httpGet": {"port": server.port, "scheme": "HTTP"},
            "periodSeconds": 1,
            "timeoutSeconds": 3600,
        }
        node = Probed(livenessProbe=http)
        await node.tries(5)
        assert len(node.prober._limits) == 1
        await node.prober.close()


async def test_a_redirect_on_the_same_host_is_followed() -> None:
    async with Server().serving() as server:
        server.answers = [b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n", b"HTTP/1.1 404 No\r\n\r\n"]
        node = Probed(
            livenessProbe={"httpGet": {"port": server.port, "scheme": "HTTP"}, "periodSeconds": 3600}
        )
        await node.until(lambda: node.tried)
        assert [line.split(b" ")[1] for line in server.asked] == [b"/", b"/there"]
        assert node.events.messages("Unhealthy") == [
            "Liveness probe failed: HTTP probe failed with statuscode: 404"
        ]
        await node.prober.close()
