"""Mirrors, insecure and blocked registries, and TLS with a private CA, with real registries and real files."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.registry import tls
from runtime.images.store.store import ImageStore
from runtime.images.store.verify import check_store
from tests.kernel import images_support as support
from tests.kernel.images_support import directory, member, registry, run, tar, write_layout
from tests.kernel.little_registry import little_registry

_MISSING = support.need("docker-registry", "skopeo", "openssl")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}"),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("mirror")
    write_layout(path / "layout", [tar(directory("etc"), (member("etc/x"), b"x" * 300_000))])
    with registry(path / "r") as address:
        for name in ("hub/library/nginx:latest", "plain/app:1"):
            support.push(path / "layout", "latest", f"{address}/{name}")
        yield address


def pull(root: Path, reference: str, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    async def go() -> Any:
        client = ImageClient(str(root / "store"), **options)
        try:
            return await client.pull(reference, progress=events.append)
        finally:
            await client.close()

    return asyncio.run(go()), events


def configure(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    (path / "registries.conf").write_text(text)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(path / "registries.conf"))


def test_a_mirror_gives_what_the_registry_would(
    tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(
        monkeypatch,
        tmp_path,
        f"""[[registry]]
prefix = "docker.io"
location = "127.0.0.1:1/nowhere"
[[registry.mirror]]
location = "127.0.0.1:1/dead"
[[registry.mirror]]
location = "{host}/empty"
[[registry.mirror]]
location = "{host}/hub"
[aliases]
"web" = "docker.io/library/nginx"
""",
    )
    record, events = pull(tmp_path, "nginx")
    assert record.reference == "docker.io/library/nginx:latest"
    assert record.repo_digests[0].startswith("docker.io/library/nginx@sha256:"), "the mirror leaves no trace"
    warnings = [e["message"] for e in events if e["event"] == "warning"]
    assert len(warnings) == 2 and "mirror 127.0.0.1:1" in warnings[0] and "404 Not Found" in warnings[1]
    assert pull(tmp_path, "web")[0].id == record.id, "a short name of the aliases"
    with pytest.raises(ImageError, match=r"cannot reach 127\.0\.0\.1:1.*; .* 404 Not Found") as caught:
        pull(tmp_path, "other")
    assert caught.value.retriable


def test_a_blocked_registry_is_not_asked(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, tmp_path, f'[[registry]]\nlocation = "{host}"\nblocked = true\n')
    with pytest.raises(ImageError, match="is blocked in"):
        pull(tmp_path, f"{host}/plain/app:1")


def test_a_file_that_is_none_is_named(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, tmp_path, "= what")
    with pytest.raises(ImageError, match=r"cannot read .*registries\.conf"):
        pull(tmp_path, f"{host}/plain/app:1")


def test_tls_on_loopback_and_insecure_registries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with an untrusted certificate. On loopback TLS is detected; elsewhere `insecure` or the CA is
    needed."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = "subjectAltName=DNS:reg.test,IP:127.0.0.1"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=reg.test",
        "-addext", names, "-keyout", str(key), "-out", str(certificate))  # fmt: skip
    write_layout(tmp_path / "layout", [tar(directory("etc"))])
    with registry(tmp_path / "r", tls=(certificate, key)) as host:
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:latest",
            f"docker://{host}/app:1")  # fmt: skip
        pull(tmp_path, f"{host}/app:1")
        port = host.rpartition(":")[2]
        name = f"127.0.0.1.nip.test:{port}"
        hosts = tmp_path / "hosts"
        hosts.write_text("127.0.0.1 127.0.0.1.nip.test reg.test localhost\n")
        script = (
            f"mount --bind {hosts} /etc/hosts && exec {sys.executable} -m tests.kernel.images_pull_one "
            f"{tmp_path}/other"
        )

        def elsewhere(reference: str, **environment: str) -> str:
            command = ["unshare", "--mount", "sh", "-c", f"{script} {reference}"]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=60,
                cwd=Path(__file__).parents[2],
                env={**os.environ, **environment},
                check=False,
            )
            return done.stdout + done.stderr

        unknown = elsewhere(f"reg.test:{port}/app:1")
        assert "certificate verify failed" in unknown, unknown
        assert "pulled" in elsewhere(f"reg.test:{port}/app:1", SSL_CERT_FILE=str(certificate))
        wrong_name = elsewhere(f"{name}/app:1", SSL_CERT_FILE=str(certificate))
        assert "certificate" in wrong_name and "pulled" not in wrong_name
        configure(monkeypatch, tmp_path, f'[[registry]]\nlocation = "{name}"\ninsecure = true\n')
        assert "pulled" in elsewhere(f"{name}/app:1")


def test_a_blob_that_a_mirror_lacks_or_breaks_comes_from_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror has the manifest and, of the layers, a complete one, a damaged one and a truncated one; one is
    missing."""
    layers = [tar((member(f"file-{n}"), os.urandom(200_000 + n))) for n in range(4)]
    write_layout(tmp_path / "layout", layers)
    with registry(tmp_path / "real") as real:
        support.push(tmp_path / "layout", "latest", f"{real}/app:1", "--dest-compress-format", "gzip")
        shutil.copytree(tmp_path / "real/data", tmp_path / "copy")
        blobs = sorted(
            (tmp_path / "copy").rglob("blobs/sha256/*/*/data"), key=lambda blob: blob.stat().st_size
        )
        _whole, lacking, damaged, short = blobs[-4:]
        lacking.unlink()
        content = damaged.read_bytes()
        damaged.write_bytes(content[:100_000] + bytes([content[100_000] ^ 1]) + content[100_001:])
        short.write_bytes(short.read_bytes()[:70_000])
        with registry(tmp_path / "mirror", data=tmp_path / "copy") as mirror:
            configure(
                monkeypatch, tmp_path, f'[[registry]]\nlocation = "{real}"\n[[registry.mirror]]\n'
                f'location = "{mirror}"\n',
            )  # fmt: skip
            record, events = pull(tmp_path, f"{real}/app:1")
            warned = " ".join(e["message"] for e in events if e["event"] == "warning")
            for blob in (lacking, damaged, short):
                assert warned.count(blob.parent.name) >= 1, warned
            assert check_store(ImageStore(str(tmp_path / "store")), deep=True) == []
            assert record.repo_digests[0].startswith(f"{real}/app@"), "the mirror leaves no trace"

            for path in (tmp_path / "real/data").rglob(f"blobs/sha256/*/{damaged.parent.name}/data"):
                path.unlink()
            shutil.rmtree(tmp_path / "store")
            with pytest.raises(ImageError, match=f"{damaged.parent.name}.*404 Not Found"):
                pull(tmp_path, f"{real}/app:1")
            assert ImageStore(str(tmp_path / "store")).list() == ()
            assert os.listdir(tmp_path / "store/layers") == []


class Proxy(http.server.ThreadingHTTPServer):
    """A proxy that connects every requested host name to this machine, by CONNECT and by absolute URLs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.asked: list[str] = []


class _ProxyHandler(http.server.BaseHTTPRequestHandler):
    server: Proxy

    def do_CONNECT(self) -> None:
        self.server.asked.append(f"CONNECT {self.path}")
        there = socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2])))
        self.send_response(200)
        self.end_headers()
        back = threading.Thread(target=_pass_on, args=(there, self.connection), daemon=True)
        back.start()
        _pass_on(self.connection, there)
        back.join()
        there.close()

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.server.asked.append(f"GET {url.netloc}")
        with urllib.request.urlopen(f"http://127.0.0.1:{url.port}{url.path}") as answer:
            body = answer.read()
            self.send_response(200)
            for name in ("Content-Type", "Content-Length"):
                self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = Proxy()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_proxies_and_authorities_of_the_environment(
    tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy alone can resolve the name. Registries on this machine are reached without it."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=reg.test",
        "-addext", "subjectAltName=DNS:reg.test", "-keyout", str(key), "-out", str(certificate))  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    write_layout(tmp_path / "layout", [tar(directory("etc"))])
    with registry(tmp_path / "r", tls=(certificate, key)) as host:
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:latest",
            f"docker://{host}/app:1", HTTPS_PROXY="", https_proxy="")  # fmt: skip
        port = host.rpartition(":")[2]
        pull(tmp_path, f"reg.test:{port}/app:1")
        assert set(proxy.asked) == {f"CONNECT reg.test:{port}"}
        proxy.asked.clear()
        pull(tmp_path, f"{host}/app:1")
        assert proxy.asked == [], "no proxy has anything to do with this machine itself"
    with little_registry() as plain:
        plain.add("1", [tar(directory("etc"))])
        port = str(plain.server_port)
        pull(tmp_path, f"plain.test:{port}/app:1", plain_http=[f"plain.test:{port}"])
        assert set(proxy.asked) == {f"GET plain.test:{port}"}


def test_certs_d_has_an_authority_and_who_we_are(tmp_path: Path) -> None:
    """*.crt are trusted for that registry, and NAME.cert and NAME.key are the client certificate
    (containers-certs.d(5))."""
    made = tmp_path / "certs.d/reg.test:5000"
    made.mkdir(parents=True)
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=us",
        "-addext", "subjectAltName=DNS:localhost", "-keyout", str(made / "us.key"), "-out",
        str(made / "us.cert"))  # fmt: skip
    shutil.copy(made / "us.cert", made / "ca.crt")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made / "us.cert", made / "us.key")
    server.load_verify_locations(made / "us.cert")
    server.verify_mode = ssl.CERT_REQUIRED
    ours = tls.context("reg.test:5000", verify=True, directories=[str(tmp_path / "certs.d")])
    one, other = socket.socketpair()
    seen: list[Any] = []

    def accept() -> None:
        with server.wrap_socket(one, server_side=True) as accepted:
            seen.append(accepted.getpeercert())
            accepted.send(b"welcome")

    thread = threading.Thread(target=accept)
    thread.start()
    with ours.wrap_socket(other, server_hostname="localhost") as connection:
        assert connection.recv(10) == b"welcome"
    thread.join()
    assert seen[0]["subject"] == ((("commonName", "us"),),)
    (made / "bad.crt").write_text("no certificate")
    with pytest.raises(ImageError, match=r"cannot use the certificate .*bad\.crt"):
        tls.context("reg.test:5000", verify=True, directories=[str(tmp_path / "certs.d")])


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("10.1.2.3:5000", "example.com,10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("[fd00::1]:5000", "fd00::/8", True),
        ("10.1.2.3", "192.168.0.0/16, rubbish/x", False),
        ("registry.example", "10.0.0.0/8", False),
        ("10.1.2.3", "", False),
    ],
)
def test_networks_that_no_proxy_is_asked_for(host: str, no_proxy: str, direct: bool) -> None:
    assert tls.bypasses_proxy(host, {"NO_PROXY": no_proxy}) is direct
