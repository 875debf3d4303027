"""Probe semantics: a row for each rule of thresholds, health and times."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.node.model.errors import ConfigError
from kubelite.node.model.probe_results import (
    Health,
    Kind,
    Outcome,
    Tally,
    exec_command,
    fold,
    health,
    kill_grace,
    kill_message,
    port_number,
    remembered,
    slot,
)
from kubelite.node.probing.exchange import TimedOut, WireError
from kubelite.node.probing.http_get import Get, Response, _request, failed, is_complete, parse, shown
from kubelite.node.probing.prober import http_get, http_result
from manifests.types.core import Container, ContainerStatus, Probe

S, W, F, U = Outcome.SUCCESS, Outcome.WARNING, Outcome.FAILURE, Outcome.UNKNOWN
TCP = {"tcpSocket": {"port": 80}}


def probe(**fields: Any) -> Probe:
    return Probe.parse({**TCP, **fields})


def box(**fields: Any) -> Container:
    return Container.parse({"name": "a", "image": "app:1", **fields})


@pytest.mark.parametrize(
    ("outcomes", "thresholds", "good"),
    [
        ([], {}, None),
        ([S], {}, True),
        ([W], {}, True),
        ([F, F], {}, None),
        ([F, F, F], {}, False),
        ([F, F, S, F, F], {}, True),
        ([S, F, F], {}, True),
        ([S, F, F, F], {}, False),
        ([F, U, F, U, F], {}, False),  # a probe that could not run neither counts nor breaks a series
        ([U, U, U, U], {}, None),
        ([F], {"failureThreshold": 1}, False),
        ([F, S], {"failureThreshold": 1, "successThreshold": 2}, False),
        ([F, S, S], {"failureThreshold": 1, "successThreshold": 2}, True),
        ([S, F, S], {"successThreshold": 2}, None),
        ([F] * 4 + [S], {"failureThreshold": 3}, True),
    ],
)
def test_thresholds(outcomes: list[Outcome], thresholds: dict[str, int], good: bool | None) -> None:
    tally = Tally()
    for outcome in outcomes:
        tally = fold(tally, outcome, probe(**thresholds))
    assert tally.good is good


YES, NO, NOTHING = Tally(good=True), Tally(good=False), Tally()
ALL = {"startupProbe": TCP, "livenessProbe": TCP, "readinessProbe": TCP}


@pytest.mark.parametrize(
    ("given", "tallies", "expected"),
    [
        ({}, {}, Health()),
        ({"livenessProbe": TCP}, {}, Health()),
        ({"readinessProbe": TCP}, {}, Health(True, False)),
        ({"readinessProbe": TCP}, {Kind.READINESS: YES}, Health()),
        ({"readinessProbe": TCP}, {Kind.READINESS: NO}, Health(True, False)),
        ({"startupProbe": TCP}, {}, Health(False, False)),
        ({"startupProbe": TCP}, {Kind.STARTUP: YES}, Health()),
        ({"startupProbe": TCP}, {Kind.STARTUP: NO}, Health(False, False, Kind.STARTUP)),
        ({"livenessProbe": TCP}, {Kind.LIVENESS: NO}, Health(True, True, Kind.LIVENESS)),
        (ALL, {Kind.READINESS: YES}, Health(False, False)),
        (ALL, {Kind.STARTUP: YES}, Health(True, False)),
        (ALL, {Kind.STARTUP: YES, Kind.READINESS: YES}, Health()),
        ({}, {Kind.LIVENESS: NO, Kind.READINESS: NO, Kind.STARTUP: NO}, Health()),  # removed by an edit
    ],
)
def test_health(given: dict[str, Any], tallies: dict[Kind, Tally], expected: Health) -> None:
    assert health(box(**given), tallies) == expected


def test_a_new_daemon_uses_the_status_of_the_same_instance_only() -> None:
    status = ContainerStatus.parse(
        {"name": "a", "ready": True, "started": True, "containerID": "kubelite://1", "image": "", "imageID": "",
         "restartCount": 0}
    )  # fmt: skip
    assert health(box(**ALL), remembered(status, "1")) == Health()
    assert health(box(**ALL), remembered(status, "2")) == Health(False, False)
    assert remembered(None, "1") == {}
    status.ready = False
    assert health(box(**ALL), remembered(status, "1")) == Health(True, False)


@pytest.mark.parametrize(
    ("given", "now", "at"),
    [
        ({}, 100.0, 100.0),
        ({}, 100.1, 110.0),
        ({"initialDelaySeconds": 5}, 100.0, 105.0),
        ({"initialDelaySeconds": 5, "periodSeconds": 2}, 106.0, 107.0),
        ({"periodSeconds": 1}, 163.2, 164.0),
        # the clock was set back: the next probe is at most the delay and a period away
        ({"initialDelaySeconds": 5}, 20.0, 35.0),
    ],
)
def test_the_times_of_probes(given: dict[str, int], now: float, at: float) -> None:
    assert slot(100.0, probe(**given), now) == at


def test_messages_and_grace_periods() -> None:
    assert kill_message("a", Kind.LIVENESS, restarts=True) == (
        "Container a failed liveness probe, will be restarted"
    )
    assert kill_message("a", Kind.STARTUP, restarts=False) == "Container a failed startup probe"
    own = box(livenessProbe={**TCP, "terminationGracePeriodSeconds": 7}, startupProbe=TCP)
    assert kill_grace(own, Kind.LIVENESS, 30) == 7
    assert kill_grace(own, Kind.STARTUP, 30) == 30


def test_commands_and_ports() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    assert exec_command(box(env=env), ["x", "$(A)", "$(B)", "$$(A)"]) == ["x", "1", "$(B)", "$(A)"]
    named = box(ports=[{"containerPort": 8080, "name": "web"}])
    assert [port_number(named, port) for port in ("web", 80, "81")] == [8080, 80, 81]
    with pytest.raises(ConfigError, match="couldn't find port: db"):
        port_number(named, "db")
    with pytest.raises(ConfigError, match="invalid port number: 65536"):
        port_number(named, 65536)


# -- http -------------------------------------------------------------------------------------------------------


def test_the_request() -> None:
    one = box(ports=[{"containerPort": 8080, "name": "web"}])
    action = {"httpGet": {"port": "web", "path": "/x?y=1", "httpHeaders": [{"name": "Host", "value": "h"}]}}
    parsed = Probe.parse(action).http_get
    assert parsed is not None
    get = http_get(one, parsed, "10.0.0.1")
    assert get.url == "http://10.0.0.1:8080/x?y=1"
    assert _request("/x?y=1", "10.0.0.1:8080", get).decode().split("\r\n") == [
        "GET /x?y=1 HTTP/1.1", "Host: h", "User-Agent: kube-probe/1.36", "Accept: */*", "Connection: close", "", "",
    ]  # fmt: skip
    assert Get("https", "fd00::1", 443, "x").url == "https://[fd00::1]:443/x"
    sneaky = Get("http", "h", 80, "/", [("X", "a\r\nY: b")])
    assert b"X: aY: b\r\n" in _request("/", "h", sneaky), "a header's value starts no other"


@pytest.mark.parametrize(
    ("data", "done"),
    [
        (b"HTTP/1.1 200 OK\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),  # until the connection ends
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10240, True),
        (b"x" * 300_000, True),
    ],
)
def test_how_much_of_a_response_is_read(data: bytes, done: bool) -> None:
    assert is_complete(bytearray(data)) is done


def test_responses() -> None:
    assert parse(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nok") == Response(200, "", b"ok")
    assert parse(b"HTTP/1.0 302 Found\r\nLocation: /y\r\n\r\n") == Response(302, "/y")
    for bad in (b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n"):
        with pytest.raises(WireError):
            parse(bad)


@pytest.mark.parametrize(
    ("status", "outcome", "text"),
    [
        (200, S, "b"),
        (299, S, "b"),
        (302, W, "Probe terminated redirects, Response body: b"),
        (400, F, "HTTP probe failed with statuscode: 400"),
        (503, F, "HTTP probe failed with statuscode: 503"),
    ],
)
def test_statuses(status: int, outcome: Outcome, text: str) -> None:
    result = http_result(Response(status, "", b"b"))
    assert (result.outcome, result.text) == (outcome, text)


def test_no_message_contains_a_token_of_a_query() -> None:
    url = "http://10.0.0.1:80/healthz?token=hunter2&x"
    assert str(failed(url, WireError("refused"))) == 'Get "http://10.0.0.1:80/healthz?…": refused'
    assert "hunter2" not in str(failed(url, TimedOut("late")))
    assert shown("http://10.0.0.1/healthz") == "http://10.0.0.1/healthz"
