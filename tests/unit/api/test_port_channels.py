"""Port-forward over WebSocket channels, as client libraries use it."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from kubelite.api.kube.streams.port_channels import ports_of
from kubelite.kube.errors import ApiError
from tests.unit.api.server import Served, served

__all__ = ["served"]


@contextlib.contextmanager
def listening(answer: Any) -> Iterator[int]:
    """The port of a server that handles one connection with `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                answer(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(10)
    assert not thread.is_alive()


def forwarding(served: Served, query: str, protocol: str | None = "v4.channel.k8s.io") -> ClientConnection:
    url = f"ws://127.0.0.1:{served.port}/api/v1/namespaces/default/pods/web/portforward{query}"
    return connect(url, subprotocols=[Subprotocol(protocol)] if protocol else None, open_timeout=10)


def echo(connection: socket.socket) -> None:
    connection.sendall(connection.recv(100).upper())


def said(port: int) -> bytes:
    return port.to_bytes(2, "little")


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", None])
def test_each_port_has_two_channels(served: Served, protocol: str | None) -> None:
    with listening(echo) as one, listening(echo) as other:
        connecting = forwarding(served, f"?ports={one},{other}", protocol)
        with connecting as ws:
            heads = sorted(ws.recv(10) for _ in range(4))
            assert heads == [b"\0" + said(one), b"\1" + said(one), b"\2" + said(other), b"\3" + said(other)]
            ws.send(b"\2second")
            assert ws.recv(10) == b"\2SECOND"
            ws.send(b"\0first")
            assert ws.recv(10) == b"\0FIRST"
            with pytest.raises(ConnectionClosed):
                ws.recv(10)
            assert ws.close_code == 1000


def test_channels_in_base64(served: Served) -> None:
    with listening(echo) as port, forwarding(served, f"?ports={port}", "v4.base64.channel.k8s.io") as ws:
        head = base64.b64encode(said(port)).decode()
        assert sorted(str(ws.recv(10)) for _ in range(2)) == [f"0{head}", f"1{head}"]
        ws.send("0" + base64.b64encode(b"hello").decode())
        assert ws.recv(10) == "0" + base64.b64encode(b"HELLO").decode()


def test_a_port_on_which_nothing_listens_is_a_sentence_in_its_error_channel(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with forwarding(served, f"?ports={port}") as ws:
        assert sorted(ws.recv(10) for _ in range(2)) == [b"\0" + said(port), b"\1" + said(port)]
        assert ws.recv(10) == f"\1cannot connect to port {port} of the pod: Connection refused".encode()


def test_the_pod_sees_that_the_client_leaves(served: Served) -> None:
    ends: list[bytes] = []
    with (
        listening(lambda connection: ends.append(connection.recv(1))) as port,
        forwarding(served, f"?ports={port}") as ws,
    ):
        ws.recv(10)
        ws.close()
    assert ends == [b""]


def test_a_client_that_leaves_while_the_pod_does_not_read(served: Served) -> None:
    left = threading.Event()

    def ignore(connection: socket.socket) -> None:
        assert left.wait(10)
        with contextlib.suppress(ConnectionError):
            while connection.recv(1 << 20):
                pass

    with listening(ignore) as port:
        with forwarding(served, f"?ports={port}") as ws:
            sending = threading.Thread(target=lambda: _flood(ws))
            sending.start()
            sending.join(1)
            ws.socket.shutdown(socket.SHUT_RDWR)
            sending.join(10)
        left.set()


def _flood(ws: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        for _ in range(400):
            ws.send(b"\0" + bytes(64 << 10))


@pytest.mark.parametrize(
    ("query", "protocol", "sentence"),
    [
        ("", "v4.channel.k8s.io", "is required: the ports of the pod"),
        ("?ports=web", "v4.channel.k8s.io", "ports are numbers from 1 to 65535"),
        ("?ports=80", "v9.channel.k8s.io", "supports only the WebSocket subprotocols v4.channel.k8s.io"),
    ],
)
def test_refusals(
    served: Served, query: str, protocol: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        forwarding(served, query, protocol)
    assert refused.value.response.status_code == 400
    assert sentence in refused.value.response.body.decode()
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


@pytest.mark.parametrize("given", [[], [""], ["80,"], ["0"], ["65536"], ["-1"], ["८"], ["1,2,3,4,5,6"]])
def test_ports_that_are_refused(given: list[str]) -> None:
    with pytest.raises(ApiError):
        ports_of(given, "ports")


def test_ports_in_one_value_or_several() -> None:
    assert ports_of(["80,81", "65535"], "port") == [80, 81, 65535]
