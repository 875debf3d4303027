"""The registry client against a small HTTP server with deliberate faults."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError
from runtime.images import reference
from runtime.images.layers.streams import Spool
from runtime.images.manifests import CONFIG_TYPE, LAYER_TYPE, Descriptor, Platform
from runtime.images.reference import Endpoint
from runtime.images.registry import repository, transport
from runtime.images.registry.access import Access
from runtime.images.registry.auth import Login
from runtime.images.registry.repository import Registry
from runtime.images.store.listing import MANIFEST_TYPE, digest_of

BLOB = bytes(range(256)) * 20_000
CONFIG = b"{}"
MANIFEST = json.dumps(
    {
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(CONFIG), "size": len(CONFIG)},
        "layers": [{"mediaType": LAYER_TYPE, "digest": digest_of(BLOB), "size": len(BLOB)}],
    }
).encode()

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Sends the server's scripted answers first, then answers as a plain registry."""

    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        if self.server.script:
            self.server.script.pop(0)(self)
        else:
            self.plain()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.seen.append((self.path, {**dict(self.headers), "Body": body, "Method": "POST"}))
        self.plain()

    def plain(self) -> None:
        path = self.path
        if path.startswith("/token"):
            self.send(200, json.dumps({"token": "secret-token"}).encode())
        elif "/manifests/" in path:
            self.send(200, MANIFEST, {"Content-Type": MANIFEST_TYPE})
        elif path.endswith(digest_of(CONFIG)):
            self.send(200, CONFIG)
        elif path.endswith(digest_of(BLOB)):
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            self.send(206 if start else 200, BLOB[start:])

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[: len(body) - cut])
        if cut:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Answer] = []
        self.seen: list[tuple[str, dict[str, str]]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.01)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def resolve(
    server: Server, wanted: str = "1", login: Login | None = None
) -> tuple[repository.Resolved, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    async def go() -> repository.Resolved:
        endpoint = Endpoint(server.host, "app")
        async with Registry(endpoint, report=events.append, login=login) as client:
            return await client.resolve(wanted, Platform("linux", "amd64"))

    return asyncio.run(go()), events


def fetch(server: Server, path: Path) -> bytes:
    async def go() -> bytes:
        spool = Spool(str(path / "blob"), len(BLOB))
        try:
            async with Registry(Endpoint(server.host, "app"), report=lambda _e: None) as client:
                await client.fetch_blob(Descriptor(digest_of(BLOB), len(BLOB), ""), spool, lambda _n: None)
            spool.complete()
            return (path / "blob").read_bytes()
        finally:
            spool.close()

    return asyncio.run(go())


def challenge(handler: Handler) -> None:
    realm = f"http://{handler.server.host}/token"
    value = f'Bearer realm="{realm}",service="the registry",scope="repository:app:pull"'
    handler.send(
        401,
        b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
        {"WWW-Authenticate": value},
    )


def status(code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    return lambda handler: handler.send(code, body, headers)


def test_an_anonymous_token_is_fetched_and_kept(server: Server) -> None:
    server.script = [challenge]
    resolved, _ = resolve(server)
    assert resolved.digest == resolved.source_digest == digest_of(MANIFEST)
    paths = [path for path, _ in server.seen]
    assert paths == [
        "/v2/app/manifests/1", "/token?service=the%20registry&scope=repository%3Aapp%3Apull", "/v2/app/manifests/1",
    ] or paths[1].startswith("/token?service=the+registry&scope=repository")  # fmt: skip
    assert server.seen[2][1]["Authorization"] == "Bearer secret-token"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def sent(server: Server) -> list[str | None]:
    return [headers.get("Authorization") for _, headers in server.seen]


def test_a_login_answers_basic(server: Server) -> None:
    server.script = [status(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})]
    resolve(server, login=Login("me", "pass:word"))
    assert sent(server) == [None, basic("me", "pass:word")]


def test_a_rejected_login_is_named(server: Server) -> None:
    asks = status(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
    server.script = [asks, asks]
    with pytest.raises(transport.Refused, match=r"logged in as me \(/a/file\)"):
        resolve(server, login=Login("me", "wrong", source="/a/file"))
    assert len(server.seen) == 2


def test_a_token_is_fetched_with_a_login(server: Server) -> None:
    server.script = [challenge]
    resolve(server, login=Login("me", "pw"))
    assert sent(server) == [None, basic("me", "pw"), "Bearer secret-token"]
    assert "account=me" in server.seen[1][0]


def test_an_identity_token_goes_to_the_token_server_as_a_form(server: Server) -> None:
    server.script = [challenge]
    resolve(server, login=Login(identity_token="refresh-me"))
    path, headers = server.seen[1]
    assert path.startswith("/token") and "refresh-me" not in path and headers["Method"] == "POST"
    form = dict(urllib.parse.parse_qsl(headers["Body"]))
    assert form["grant_type"] == "refresh_token" and form["refresh_token"] == "refresh-me"
    assert form["scope"] == "repository:app:pull" and form["service"] == "the registry"
    assert sent(server)[1:] == [None, "Bearer secret-token"]


def test_a_registry_token_is_sent_unchanged(server: Server) -> None:
    server.script = [challenge]
    resolve(server, login=Login(registry_token="mine"))
    assert sent(server) == [None, "Bearer mine"]


def test_a_token_that_runs_out_is_renewed(server: Server) -> None:
    server.script = [challenge, Handler.plain, Handler.plain, challenge]

    async def go() -> None:
        async with Registry(Endpoint(server.host, "app"), report=lambda _e: None) as client:
            for _ in range(2):
                await client.resolve("1", Platform("linux", "amd64"))

    asyncio.run(go())
    assert [path.partition("?")[0] for path, _ in server.seen].count("/token") == 2
    assert len(server.seen) == 6


@pytest.mark.parametrize("several", [True, False], ids=["in one header", "in two"])
def test_bearer_is_preferred_if_both_are_offered(server: Server, several: bool) -> None:
    bearer = f'Bearer realm="http://{server.host}/token",service="a, Basic b"'

    def both(handler: Handler) -> None:
        handler.send_response(401)
        handler.send_header("Content-Length", "0")
        values = [f'Basic realm="x", {bearer}'] if several else ['Basic realm="x"', bearer]
        for value in values:
            handler.send_header("WWW-Authenticate", value)
        handler.end_headers()

    server.script = [both]
    resolve(server, login=Login("me", "pw"))
    assert sent(server)[2] == "Bearer secret-token"


def test_a_login_that_the_token_server_refuses(server: Server) -> None:
    words = b'{"errors":[{"code":"UNAUTHORIZED","message":"unknown user"}]}'
    server.script = [challenge, status(401, words)]
    with pytest.raises(transport.Refused, match="does not accept the login of me: unknown user"):
        resolve(server, login=Login("me", "pw"))


def test_a_refused_token_is_final(server: Server) -> None:
    server.script = [challenge, Handler.plain, challenge]
    with pytest.raises(ImageError, match="401 Unauthorized: authentication required"):
        resolve(server)
    assert len(server.seen) == 3


def test_a_missing_login_is_explained(server: Server) -> None:
    server.script = [status(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})]
    with pytest.raises(ImageError, match="asks for a user name and password"):
        resolve(server)
    assert len(server.seen) == 1


@pytest.mark.parametrize("code", [403, 404, 400])
def test_final_responses_are_not_retried(server: Server, code: int) -> None:
    body = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}'
    server.script = [status(code, body)]
    with pytest.raises(ImageError, match=rf"answered {code} .*: manifest unknown \(Tag=1\)") as caught:
        resolve(server)
    assert len(server.seen) == 1 and not caught.value.retriable and caught.value.reason == "ErrImagePull"


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_transient_responses_are_retried(server: Server, code: int) -> None:
    server.script = [status(code), status(code)]
    resolved, events = resolve(server)
    assert resolved.manifest.layers[0].digest == digest_of(BLOB)
    assert [event["event"] for event in events] == ["retry", "retry"] and str(code) in events[0]["message"]


def test_retries_are_limited(server: Server) -> None:
    server.script = [status(503, b"overloaded", {"Content-Type": "text/plain"})] * 20
    with pytest.raises(ImageError, match="503 Service Unavailable: overloaded") as caught:
        resolve(server)
    assert caught.value.retriable and caught.value.reason == "RegistryUnavailable"
    assert len(server.seen) == transport.ATTEMPTS


def test_retry_after_is_honoured_within_reason(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LONGEST_PAUSE", 0.05)
    server.script = [status(429, b"", {"Retry-After": "3600"})]
    _, events = resolve(server)
    assert events[0]["delay"] == 0.05


def test_a_manifest_with_another_digest(server: Server) -> None:
    with pytest.raises(ImageError, match="other content than sha256:1111"):
        resolve(server, "sha256:" + "1" * 64)


def test_an_endless_manifest_is_rejected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "MAX_MANIFEST", 100)
    with pytest.raises(ImageError, match="larger than 100 bytes"):
        resolve(server)


def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.script = [
        lambda handler: handler.send(200, BLOB, cut=2_000_000),
        lambda handler: handler.send(503, b""),
    ]
    assert fetch(server, tmp_path) == BLOB
    ranges = [headers.get("Range") for _, headers in server.seen]
    assert ranges[0] is None and ranges[2] is not None and int(ranges[2][6:-1]) > 1_000_000


def test_a_registry_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.script = [
        lambda handler: handler.send(200, BLOB, cut=2_000_000),
        lambda handler: handler.send(200, BLOB),
    ]
    assert fetch(server, tmp_path) == BLOB


def test_more_data_than_announced_is_rejected(server: Server, tmp_path: Path) -> None:
    server.script = [lambda handler: handler.send(200, BLOB + b"x")]
    with pytest.raises(ImageError, match="more than the"):
        fetch(server, tmp_path)


def test_a_redirect_does_not_get_the_token(server: Server, tmp_path: Path) -> None:
    other = Server()
    thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with contextlib.ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(other.server_close)
        stack.callback(other.shutdown)
        there = f"http://{other.host}/v2/app/blobs/{digest_of(BLOB)}"
        server.script = [challenge, Handler.plain, status(307, b"", {"Location": there})]
        assert fetch(server, tmp_path) == BLOB
        assert server.seen[2][1]["Authorization"] == "Bearer secret-token"
        assert "Authorization" not in other.seen[0][1]


def test_a_realm_that_is_not_a_url(server: Server) -> None:
    server.script = [status(401, b"", {"WWW-Authenticate": 'Bearer realm="http://a:port/"'})]
    with pytest.raises(
        ImageError, match=r"names the token server 'http://a:port/', which is not a valid URL"
    ):
        resolve(server)


def test_an_endless_token_is_rejected(server: Server) -> None:
    server.script = [challenge, status(200, b"x" * (3 << 20))]
    with pytest.raises(ImageError, match="larger than 1048576 bytes"):
        resolve(server)


def test_a_token_server_with_a_challenge_is_not_followed(server: Server) -> None:
    """The token server's challenge names the token server: the client does not loop."""
    for again in (challenge, status(302, b"", {"Location": "/token"})):
        server.script, server.seen[:] = [challenge, again], []
        with pytest.raises(ImageError, match=rf"http://{server.host} answered (401|302)"):
            resolve(server)
        assert len(server.seen) == 2


def test_endless_redirects_end(server: Server) -> None:
    def onwards(handler: Handler) -> None:
        handler.send(307, b"", {"Location": f"{handler.path}x"})

    server.script = [onwards] * 20
    with pytest.raises(ImageError, match="redirects more than 5 times"):
        resolve(server)
    assert len(server.seen) == 6


@pytest.mark.parametrize("rounds", [1, 2])
def test_decompression_is_limited(server: Server, monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    """A kilobyte that decompresses to a gigabyte; httpx would decompress it at once, as often as the header names
    codings."""
    monkeypatch.setattr(repository, "MAX_MANIFEST", 1 << 20)
    bomb = gzip.compress(bytes(64 << 20))
    bomb = bomb if rounds == 1 else gzip.compress(bomb)
    server.script = [status(200, bomb, {"Content-Encoding": ", ".join(["gzip"] * rounds)})]
    with pytest.raises(ImageError, match="larger than 1048576" if rounds == 1 else "encoded as gzip, gzip"):
        resolve(server)
    assert all(headers["Accept-Encoding"] == "identity" for _, headers in server.seen)


def test_an_unrequested_gzip_encoding_is_accepted(server: Server) -> None:
    packed = {"Content-Encoding": "gzip", "Content-Type": MANIFEST_TYPE}
    server.script = [status(200, gzip.compress(MANIFEST), packed)]
    assert resolve(server)[0].raw == MANIFEST
    server.script = [status(200, b"no gzip at all", packed)]
    with pytest.raises(ImageError, match="is not valid gzip"):
        resolve(server)


@pytest.mark.parametrize(("shift", "words"), [(-100_000, ""), (10, "the registry sent it from")])
def test_a_different_range_than_requested(server: Server, tmp_path: Path, shift: int, words: str) -> None:
    """A range that starts too early is trimmed. One that starts too late leaves a gap and is an error."""
    seen: list[int] = []

    def other(handler: Handler) -> None:
        start = int(handler.headers["Range"][6:-1]) + shift
        seen.append(start)
        handler.send(206, BLOB[start:], {"Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"})

    server.script = [lambda handler: handler.send(200, BLOB, cut=2_000_000), other]
    with pytest.raises(ImageError, match=words) if words else contextlib.nullcontext():
        assert fetch(server, tmp_path) == BLOB
    assert seen


@pytest.mark.parametrize("lie", [-10, 10])
def test_a_wrong_content_length_ends_the_download(server: Server, lie: int) -> None:
    def send(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(MANIFEST) + lie))
        handler.send_header("Content-Type", MANIFEST_TYPE)
        handler.end_headers()
        handler.wfile.write(MANIFEST)
        handler.close_connection = True

    server.script = [send] * 20
    with pytest.raises(ImageError, match=r"cannot reach|not JSON"):
        resolve(server)


def test_circular_redirects_end(server: Server) -> None:
    server.script = [status(302, b"", {"Location": "/v2/app/manifests/1"})] * 20
    with pytest.raises(ImageError, match="redirects more than"):
        resolve(server)


def test_plain_http_is_used_only_on_loopback_and_for_insecure_registries() -> None:
    def plain(host: str) -> bool:
        endpoint = Access(plain_http=frozenset(["reg.lan:5000"])).endpoints(reference.parse(f"{host}/x"))[0]
        return Registry(endpoint, report=lambda _e: None).plain

    assert plain("localhost:5000") and plain("127.0.0.1:1") and plain("[::1]:5000") and plain("reg.lan:5000")
    assert not plain("reg.lan") and not plain("quay.io") and not plain("10.0.0.1:5000")
