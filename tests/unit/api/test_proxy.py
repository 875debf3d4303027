"""HTTP to pods and Services through the API, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from starlette.types import Message, Scope

from kubelite.api import upgrade
from kubelite.api.audit import is_audited
from kubelite.api.kube.proxy import location
from kubelite.api.kube.proxy.exchange import Exchange
from kubelite.api.kube.proxy.location import Given, Location
from kubelite.api.rbac.authorizer import attributes_of
from kubelite.api.rbac.rules import Attributes
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json
from tests.unit.api.fake_node import pod_doc
from tests.unit.api.server import Served

PODS = "/api/v1/namespaces/default/pods"
ADDRESS = "10.88.0.7"


def pod(*ports: int, address: str = ADDRESS) -> Json:
    containers = [{"name": "app", "ports": [{"containerPort": one} for one in ports]}]
    return {"spec": {"containers": containers}, "status": {"podIP": address}}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("web", Given("http", "web", "")),
        ("web:80", Given("http", "web", "80")),
        ("https:web:", Given("https", "web", "")),
        (":web:http", Given("http", "web", "http")),
    ],
)
def test_names(text: str, found: Given) -> None:
    assert location.given(text, "pod") == found


@pytest.mark.parametrize("text", ["", ":80", "ftp:web:80", "a:b:c:d"])
def test_invalid_names(text: str) -> None:
    with pytest.raises(ApiError, match="invalid pod request"):
        location.given(text, "pod")


def test_locations_of_pods() -> None:
    assert location.of_pod(pod(8080, 9090), Given("http", "web", "")) == Location("http", ADDRESS, 8080)
    assert location.of_pod(pod(8080), Given("http", "web", "9090")) == Location("http", ADDRESS, 9090)
    assert location.of_pod(pod(), Given("https", "web", "")) == Location("https", ADDRESS, 443)
    for address in ("", "127.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "fe80::1", "224.0.0.1"):
        with pytest.raises(ApiError, match="address not allowed"):
            location.of_pod(pod(80, address=address), Given("http", "web", ""))
    ended = pod(80)
    ended["status"]["phase"] = "Succeeded"  # another pod may have its address now
    with pytest.raises(ApiError, match="address not allowed"):
        location.of_pod(ended, Given("http", "web", ""))
    for port in ("0", "65536", "http", "-1"):
        with pytest.raises(ApiError, match="is no number between"):
            location.of_pod(pod(), Given("http", "web", port))


def test_locations_of_services() -> None:
    service = {
        "metadata": {"namespace": "default"},
        "spec": {"ports": [{"name": "web", "port": 80, "targetPort": 8080}, {"name": "dns", "port": 53}]},
    }

    def endpoint(
        address: str, kind: str = "Pod", name: str = "web", namespace: str = "default", *, ready: bool = True
    ) -> Json:
        target = {"kind": kind, "namespace": namespace, "name": name}
        return {"addresses": [address], "targetRef": target, "conditions": {"ready": ready}}

    pods = {"web": [ADDRESS, "10.88.0.8", "10.88.0.9", "169.254.169.254"]}
    ends = [
        endpoint(ADDRESS), endpoint("10.88.0.8", ready=False), endpoint("10.88.0.9", "Node"),
        endpoint("169.254.169.254"), {"addresses": ["10.88.0.10"]},
        # What a user's own EndpointSlice may say:
        endpoint("192.168.0.1"), endpoint(ADDRESS, name="gone"), endpoint("10.88.0.8", namespace="other"),
    ]  # fmt: skip
    slices = [{"ports": [{"name": "web", "port": 8080}], "endpoints": ends}]
    for port in ("80", "web"):
        assert location.of_service(service, slices, pods, Given("http", "shop", port)) == [
            Location("http", ADDRESS, 8080)
        ]
    for port in ("", "dns", "53"):
        with pytest.raises(ApiError, match='no endpoints available for service "shop"'):
            location.of_service(service, slices, pods, Given("http", "shop", port))
    with pytest.raises(ApiError, match='no service port 81 found for service "shop"'):
        location.of_service(service, slices, pods, Given("http", "shop", "81"))


class Pod(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def chunks(self) -> Iterator[bytes]:
        """Read a body in chunks: a connection that is closed before would be reset, and the answer lost."""
        size = -1 if self.headers.get("transfer-encoding") == "chunked" else 0
        while size:
            size = int(self.rfile.readline(), 16)
            yield self.rfile.read(size)
            self.rfile.readline()

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else b"".join(self.chunks())
        if self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"only this")
            self.close_connection = True
            return
        if self.path == "/nothing":
            self.close_connection = True
            return
        said = f"{self.command} {self.path} {len(body)}\n{self.headers}".encode()
        self.send_response(302 if self.path == "/away" else 201)
        for name, value in (("Location", "/login?next=1"), ("Connection", "X-Secret"), ("X-Secret", "1")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(said)))
        self.send_header("Set-Cookie", "a=b")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(
        location, "_allowed", lambda address: address == "127.0.0.1"
    )  # where the test's pod is
    with Served.at(tmp_path) as found:
        web = pod_doc("web")
        web["status"]["podIP"] = "127.0.0.1"
        found.run(found.node.store.create("Pod", web))
        yield found


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pod) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(5)


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=10) as made:
        yield made


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_requests_reach_the_pod_as_they_are(client: httpx.Client, port: int, method: str) -> None:
    body = b"x" * 200_000 if method in ("POST", "PUT", "PATCH") else b""
    headers = {
        "Authorization": "Bearer secret",
        "Content-Type": "text/csv",
        "X-Own": "kept",
        "Keep-Alive": "1",
    }
    answer = client.request(
        method, f"{PODS}/web:{port}/proxy/a%2Fb/c?x=1&y=%20", content=body, headers=headers
    )
    first, _, seen = answer.text.partition("\n")
    assert answer.status_code == 201 and first == f"{method} /a%2Fb/c?x=1&y=%20 {len(body)}"
    assert (
        "x-own: kept" in seen.lower() and f"x-forwarded-uri: {PODS}/web:{port}/proxy/a%2fb/c" in seen.lower()
    )
    assert "authorization" not in seen.lower() and "keep-alive" not in seen.lower()
    assert answer.headers["set-cookie"] == "a=b" and "x-secret" not in answer.headers
    assert answer.headers["content-security-policy"].startswith("sandbox ")


def test_heads_redirects_and_the_root(client: httpx.Client, port: int) -> None:
    base = f"{PODS}/web:{port}/proxy"
    head = client.head(f"{base}/")
    assert (head.status_code, head.content) == (201, b"")
    root = client.get(f"{base}?x=1")
    assert (root.status_code, root.headers["location"]) == (301, f"{base}/?x=1")
    assert client.get(f"{base}/away").headers["location"] == f"{base}/login?next=1"


def test_a_body_in_chunks(client: httpx.Client, port: int) -> None:
    answer = client.post(f"{PODS}/web:{port}/proxy/", content=iter([b"a" * 10, b"b" * 10]))
    assert answer.status_code == 201 and answer.text.startswith("POST / 20\n")
    assert "transfer-encoding: chunked" in answer.text.lower()


def test_a_service(served: Served, client: httpx.Client, port: int) -> None:
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": "default", "uid": "s"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }  # fmt: skip
    target = {"kind": "Pod", "namespace": "default", "name": "web"}
    piece = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "ports": [{"name": "http", "port": port}],
        "metadata": {
            "name": "shop-1", "namespace": "default", "uid": "e", "labels": {"kubernetes.io/service-name": "shop"},
        },
        "endpoints": [{"addresses": ["127.0.0.1"], "targetRef": target}],
    }  # fmt: skip
    served.run(served.node.store.create("Service", service))
    place = "/api/v1/namespaces/default/services"
    assert client.get(f"{place}/shop:80/proxy/").status_code == 503
    served.run(served.node.store.create("EndpointSlice", piece))
    for name in ("shop:80", "shop:http", "http:shop:80"):
        assert client.get(f"{place}/{name}/proxy/x").text.startswith("GET /x 0\n")
    assert client.get(f"{place}/other:80/proxy/").json()["message"] == 'services "other" not found'


def test_pods_that_do_not_answer(client: httpx.Client, port: int, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    refused = client.get(f"{PODS}/web:{free}/proxy/")
    assert refused.status_code == 503
    words = f"error trying to reach service: dial tcp 127.0.0.1:{free}: Connection refused"
    assert refused.json()["message"] == words
    assert client.get(f"{PODS}/web:{port}/proxy/nothing").status_code == 503
    assert client.get(f"{PODS}/other:{port}/proxy/").status_code == 404
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(f"{PODS}/web:{port}/proxy/cut")
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []
    not_tls = client.get(f"{PODS}/https:web:{port}/proxy/")
    assert not_tls.status_code == 503


ASK = "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def exchanged(served: Served, request: str, answer: bytes) -> tuple[bytes, bytes]:
    """Send a request through the proxy. Return the bytes that the pod received and the answer that the client received.
    `request` has {} in place of the path."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        listener.settimeout(10)
        number = listener.getsockname()[1]
        client = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=10))
        client.sendall(request.format(f"{PODS}/web:{number}/proxy/").encode())
        taken = stack.enter_context(listener.accept()[0])
        taken.settimeout(10)
        got = b""
        while b"\r\n\r\n" not in got:
            got += taken.recv(65536)
        taken.sendall(answer)
        taken.shutdown(socket.SHUT_WR)
        return got, b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize(
    ("request_head", "inside", "missing"),
    [
        (
            "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"
            "Connection: close\r\n\r\n0\r\n\r\n",
            b"transfer-encoding: chunked",
            b"content-length",
        ),
        ("GET {} HTTP/1.0\r\n\r\n", b"host: \r\n", b"localhost"),
        (ASK.replace("close", "close, host"), b"host: localhost", b"content-length"),
        (
            ASK.replace("close\r\n", "close, content-length\r\nContent-Length: 3\r\n") + "abc",
            b"content-length: 3",
            b"transfer-encoding",
        ),
    ],
    ids=["a length with chunks", "HTTP/1.0", "no host", "no length"],
)
def test_pods_get_one_request(served: Served, request_head: str, inside: bytes, missing: bytes) -> None:
    got, said = exchanged(served, request_head, EMPTY)
    assert inside in got and missing not in got and b" 200 OK" in said


async def test_a_body_that_is_refused_after_the_answer_has_begun_ends_the_connection() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def pod(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nonly")
        await reader.read()
        writer.close()

    async def receive() -> Message:
        await begun.wait()
        raise ApiError("RequestEntityTooLarge", "too much")

    async def send(message: Message) -> None:
        begun.set()

    async with await asyncio.start_server(pod, "127.0.0.1", 0) as server:
        where = Location("http", *server.sockets[0].getsockname())
        scope: Scope = {"method": "POST", "headers": [(b"host", b"a"), (b"transfer-encoding", b"chunked")]}
        scope["extensions"] = {upgrade._HANG_UP: ended.set}
        await Exchange(where, "", "/")(scope, receive, send)
    assert ended.is_set()


def test_answers_of_odd_pods(served: Served) -> None:
    chunks = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )
    assert b"hello" in exchanged(served, ASK, chunks)[1]
    odd = exchanged(served, ASK, b"HTTP/1.1 700 Odd\r\nContent-Length: 0\r\n\r\n")[1]
    assert b" 503 " in odd and b"malformed HTTP status code 700" in odd


def test_no_upgrades_and_no_requests_of_web_pages(client: httpx.Client, port: int) -> None:
    path = f"{PODS}/web:{port}/proxy/"
    key = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    answer = client.get(path, headers={"Connection": "Upgrade", "Upgrade": "websocket", **key})
    assert answer.status_code == 501 and "kubectl port-forward" in answer.json()["message"]
    assert client.post(path, content=b"x", headers={"Origin": "https://evil.example"}).status_code == 403


def test_a_client_that_leaves_ends_the_connection_to_the_pod(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        listener.settimeout(10)
        number = listener.getsockname()[1]
        client = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        client.sendall(f"GET {PODS}/web:{number}/proxy/ HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        taken, _ = listener.accept()
        with taken:
            taken.settimeout(10)
            assert taken.recv(4096).startswith(b"GET / HTTP/1.1\r\n")
            client.close()
            with contextlib.suppress(ConnectionResetError):
                assert taken.recv(4096) == b""


@pytest.mark.parametrize(
    ("method", "verb"),
    [("GET", "get"), ("HEAD", "get"), ("POST", "create"), ("PUT", "update"), ("DELETE", "delete")],
)
def test_what_roles_must_allow(method: str, verb: str) -> None:
    path = f"{PODS}/https:web:80/proxy/api/v1/secrets"
    scope = {"type": "http", "method": method, "path": path, "query_string": b"watch=true", "headers": []}
    assert is_audited(scope)
    assert attributes_of(scope) == Attributes(verb, "", "pods", "proxy", "default", "https:web:80")


def test_a_node_that_sends_nothing_on_has_not_imported_how() -> None:
    code = "import sys, kubelite.api.app; print([name for name in sys.modules if 'kube.proxy.' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['kubelite.api.kube.proxy.nodes', 'kubelite.api.kube.proxy.routes']"
