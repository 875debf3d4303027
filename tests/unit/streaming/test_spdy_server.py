"""The API's SPDY streams over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kubelite.streaming import port_forward
from kubelite.streaming.spdy.frames import (
    Data,
    Frame,
    GoAway,
    Ping,
    Reset,
    RstStream,
    SynReply,
    SynStream,
)
from tests.unit.api.fake_session import FakeSession
from tests.unit.api.server import Served, served
from tests.unit.streaming.client import Client, upgrade
from tests.waiting import until

__all__ = ["served"]

POD = "/api/v1/namespaces/default/pods/web"


@contextmanager
def upgraded(served: Served, target: str, protocol: str, *, tunnel: bool = False) -> Iterator[Client]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(served.socket)
        yield upgrade(connection, f"{POD}/{target}", protocol, tunnel=tunnel)


@contextmanager
def echo() -> Iterator[int]:
    """The port of a server that answers its input in upper case after the input's end."""

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while piece := connection.recv(1 << 16):
                    data += piece
                connection.sendall(data.upper())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def pair(request: str, port: int, first: int = 1) -> tuple[Frame, Frame, Frame]:
    def headers(kind: str) -> dict[str, str]:
        return {"streamtype": kind, "port": str(port), "requestid": request}

    return SynStream(first, headers("error")), Data(first, b"", True), SynStream(first + 2, headers("data"))


@pytest.mark.parametrize("tunnel", [False, True])
def test_port_forward(served: Served, tunnel: bool) -> None:
    with echo() as port, upgraded(served, "portforward", "portforward.k8s.io", tunnel=tunnel) as client:
        for number, data in ((1, b"hello"), (5, b"x" * 1_000_000)):
            client.send(*pair(str(number), port, number))
            assert [client.next(), client.next()] == [SynReply(number, {}), SynReply(number + 2, {})]
            client.send(Data(number + 2, data, True))
            assert client.data_of(number + 2) == data.upper()
            assert client.data_of(number) == b""
        client.send(Ping(7))
        assert client.next() == Ping(7)


def test_errors_of_port_forward(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    with upgraded(served, "portforward", "portforward.k8s.io") as client:
        client.send(*pair("0", free))
        assert client.data_of(1) == f"cannot connect to port {free} of the pod: Connection refused".encode()
        assert client.next() == RstStream(3, Reset.CANCEL)
        client.send(SynStream(5, {"streamtype": "data", "port": "0"}))
        assert [client.next(), client.next()] == [SynReply(5, {}), RstStream(5, Reset.PROTOCOL_ERROR)]
        client.send(SynStream(4, {}))  # a number of the server's
        assert client.next() == GoAway(5, 1) and client.next() is None


def test_streams_that_are_reset_leave_nothing(served: Served) -> None:
    async def resources() -> tuple[int, int]:
        timers: Any = asyncio.get_running_loop()
        waiting = sum(not one.cancelled() and one.when() - timers.time() > 20 for one in timers._scheduled)
        return len(asyncio.all_tasks()), waiting

    with upgraded(served, "portforward", "portforward.k8s.io") as client:
        before = served.run(resources())
        for number in range(1, 4000, 2):
            client.send(SynStream(number, {"streamtype": "error", "port": "1", "requestid": str(number)}))
            client.send(RstStream(number, Reset.CANCEL))
            assert client.next() == SynReply(number, {})
        client.send(Ping(7))
        assert client.next() == Ping(7)
        assert served.run(resources()) == before


def test_a_half_alone_is_reset(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_forward, "PAIRING", 0.05)
    with upgraded(served, "portforward", "portforward.k8s.io") as client:
        client.send(SynStream(1, {"streamtype": "error", "port": "1", "requestid": "0"}))
        assert [client.next(), client.next()] == [SynReply(1, {}), RstStream(1, Reset.CANCEL)]


def test_a_connection_that_the_client_resets_ends_in_the_pod(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        with upgraded(served, "portforward", "portforward.k8s.io") as client:
            client.send(*pair("0", listener.getsockname()[1]))
            pod, _ = listener.accept()
            with pod:
                pod.settimeout(10)
                client.send(RstStream(3, Reset.CANCEL))
                assert client.data_of(1) == b""
                assert pod.recv(1) == b""


def test_bytes_that_are_no_spdy_end_the_connection(served: Served) -> None:
    with upgraded(served, "portforward", "portforward.k8s.io") as client:
        client.send_bytes(b"\xff" * 16)
        while (frame := client.next()) is not None:
            assert isinstance(frame, GoAway)


def test_a_program(served: Served) -> None:
    query = "exec?command=cat&stdin=1&stdout=1&stderr=1"
    with upgraded(served, query, "v4.channel.k8s.io") as client:
        numbers = {"error": 1, "stdin": 3, "stdout": 5, "stderr": 7}
        client.send(*(SynStream(number, {"streamtype": kind}) for kind, number in numbers.items()))
        assert [client.next() for _ in numbers] == [SynReply(number, {}) for number in numbers.values()]
        client.send(Data(3, b"through"), Data(3, b"", True))
        assert client.data_of(5) == b"through"
        assert json.loads(client.data_of(1))["status"] == "Success"


def test_a_client_that_leaves_ends_its_program(served: Served) -> None:
    with upgraded(served, "exec?command=sleep&command=60&stdin=1&stdout=1", "v4.channel.k8s.io") as client:
        client.send(
            *(SynStream(n, {"streamtype": kind}) for n, kind in ((1, "error"), (3, "stdin"), (5, "stdout")))
        )
        assert [client.next() for _ in range(3)] == [SynReply(n, {}) for n in (1, 3, 5)]
        (session,) = served.node.sessions
        client.close()
        assert asyncio.run(asyncio.wait_for(session.wait(), 10)) != 0


EXEC = "exec?command=sleep&command=60&stdin=1&stdout=1"
SPDY = f"POST {POD}/{EXEC} HTTP/1.1\r\nHost: kubelite\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"


@pytest.mark.parametrize("body", ["Content-Length: 5", "Content-Length: 05", "Transfer-Encoding: chunked"])
def test_a_request_with_a_body_starts_no_program(served: Served, body: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(served.socket)
        connection.sendall(f"{SPDY}Content-Type: application/json\r\n{body}\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert served.node.sessions == []


@pytest.mark.parametrize(
    "request_",
    [
        f"{SPDY}Content-Length: 0\r\n",
        f"GET {POD}/{EXEC} HTTP/1.1\r\nHost: kubelite\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n",
    ],
)
def test_a_client_that_leaves_before_the_upgrade_ends_its_program(
    served: Served, request_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, left, start = threading.Event(), threading.Event(), served.node.exec

    async def late(*args: Any, **options: Any) -> FakeSession:
        begun.set()
        await asyncio.to_thread(left.wait, 10)
        await asyncio.sleep(0.2)  # until the server has seen that the client is gone
        return await start(*args, **options)

    monkeypatch.setattr(served.node, "exec", late)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(served.socket)
        connection.sendall(f"{request_}\r\n".encode())
        assert begun.wait(10)
    left.set()
    until(lambda: served.node.sessions)
    (session,) = served.node.sessions
    until(lambda: session.stdout is None)
    assert asyncio.run(asyncio.wait_for(session.wait(), 10)) != 0


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (f"POST {POD}/portforward HTTP/1.1\r\nContent-Length: 0\r\n", "needs an upgrade"),
        (
            f"POST {POD}/portforward HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            "X-Stream-Protocol-Version: other\r\nContent-Length: 0\r\n",
            "was not offered",
        ),
        (
            f"POST {POD}/exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n",
            "at least one command",
        ),
        (
            f"POST {POD}x/portforward HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n",
            "not found",
        ),
    ],
)
def test_refusals_are_answers_of_http(served: Served, request_: str, said: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(served.socket)
        connection.sendall(f"{request_}Host: kubelite\r\n\r\n".encode())
        answer = b""
        while b"}" not in answer[-3:]:
            answer += connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 4") and said in answer.decode(), answer
