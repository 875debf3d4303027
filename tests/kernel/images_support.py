"""Shared by image tests: a real registry on loopback, and images written by hand or by skopeo, umoci and buildah."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import json
import os
import secrets
import socket
import stat
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.programs import BUSYBOX, PACKED_BUSYBOX, missing
from tests.waiting import SECONDS

__all__ = ["BUSYBOX", "PACKED_BUSYBOX"]


def need(*programs: str) -> list[str]:
    """The programs of these that this machine lacks."""
    return [program for program in programs if missing(program)]


def run(*command: str, **environment: str) -> str:
    """Run a tool and return its output. A failure raises an AssertionError with the output."""
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False
    )
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout.strip()


@contextlib.contextmanager
def registry(
    directory: Path, settings: str = "", tls: tuple[Path, Path] | None = None, data: Path | None = None
) -> Iterator[str]:
    """Debian's docker-registry on a free loopback port, optionally with additional config, TLS, and the storage of
    another one. Yields host:port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    directory.mkdir(parents=True)
    secure = f", tls: {{certificate: '{tls[0]}', key: '{tls[1]}'}}" if tls else ""
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage:\n  filesystem: {{rootdirectory: {data or directory / 'data'}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'{secure}}}\n{settings}"
    )
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        _wait_for(f"{'https' if tls else 'http'}://127.0.0.1:{port}/v2/", process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


# bcrypt of "swordfish", as `htpasswd -B` writes it
HTPASSWD = "alice:$2b$04$abcdefghijklmnopqrstuugIEnm3ZbWF6xb2GcoE3L1CoGJFMKtu.\n"


def htpasswd(directory: Path) -> str:
    """Settings of a registry that requires the user alice with the password swordfish."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "htpasswd").write_text(HTPASSWD)
    return f"auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}\n"


class TokenServer(http.server.ThreadingHTTPServer):
    """A token server by docker's specification. It signs the permissions of a user (alice: everything; anonymous: pull
    from public/…). Refresh tokens are `refresh-<user>`."""

    daemon_threads = True

    def __init__(self, directory: Path, lifetime: int = 300) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        directory.mkdir(parents=True, exist_ok=True)
        self.key, self.certificate = directory / "key.pem", directory / "cert.pem"
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=tokens",
            "-keyout", str(self.key), "-out", str(self.certificate))  # fmt: skip
        self.lifetime = lifetime
        self.asked: list[tuple[str, list[str]]] = []  # (user, scopes)

    def settings(self) -> str:
        realm = f"http://127.0.0.1:{self.server_port}/token"
        return (
            f"auth: {{token: {{realm: '{realm}', service: registry, issuer: tokens, "
            f"rootcertbundle: {self.certificate}}}}}\n"
        )

    def token(self, user: str, scopes: list[str]) -> str:
        self.asked.append((user, scopes))
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            granted = (
                actions.split(",") if user == "alice" else ["pull"] if name.startswith("public/") else []
            )
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        certificate = self.certificate.read_text().split("-----")[2].replace("\n", "")
        claims = {"iss": "tokens", "sub": user, "aud": "registry", "exp": now + self.lifetime, "nbf": now - 5,
                  "iat": now, "jti": secrets.token_hex(8), "access": access}  # fmt: skip
        parts = [{"alg": "RS256", "typ": "JWT", "x5c": [certificate]}, claims]
        signed = b".".join(_base64(json.dumps(part).encode()) for part in parts)
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        signature = subprocess.run(command, input=signed, capture_output=True, check=True, timeout=20).stdout
        return (signed + b"." + _base64(signature)).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class _TokenHandler(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_GET(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        user = ""
        given = self.headers.get("Authorization", "")
        if given:
            user, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
            if (user, password) != ("alice", "swordfish"):
                self._answer(
                    401, {"errors": [{"code": "UNAUTHORIZED", "message": "unknown user or password"}]}
                )
                return
        self._answer(200, {"token": self.server.token(user, query.get("scope", []))})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = urllib.parse.parse_qs(body)
        if form.get("grant_type") != ["refresh_token"] or form.get("refresh_token") != ["refresh-alice"]:
            self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "no such refresh token"}]})
            return
        scopes = form.get("scope", [""])[0].split()
        self._answer(200, {"access_token": self.server.token("alice", scopes)})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serving(server: http.server.HTTPServer) -> Iterator[None]:
    """Serve from a thread for as long as the context lasts."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def token_server(directory: Path, lifetime: int = 300) -> Iterator[TokenServer]:
    server = TokenServer(directory, lifetime)
    with serving(server):
        yield server


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 401:
                return
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                return
            assert process.poll() is None and time.monotonic() < deadline, "docker-registry does not answer"
            time.sleep(0.02)


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = fields.pop("mode", 0o755 if kind == tarfile.DIRTYPE else 0o644)
    info.mtime = fields.pop("mtime", 1_700_000_000)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def tar(*members: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo) -> bytes:
    """The tar of a layer with these members; (member, content) for members with content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in members:
            info, content = item if isinstance(item, tuple) else (item, b"")
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def directory(name: str, **fields: Any) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE, **fields)


def write_layout(path: Path, layers: Sequence[bytes], tag: str = "latest", **config: Any) -> None:
    """An OCI layout with one image of plain tar layers, written by hand."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    descriptors = [put(data, "application/vnd.oci.image.layer.v1.tar") for data in layers]
    diff_ids = [descriptor["digest"] for descriptor in descriptors]
    about = {
        "created": "2024-01-02T03:04:05Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"], **config},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(about).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors,
    }
    entry = put(json.dumps(manifest).encode(), manifest["mediaType"])  # type: ignore[arg-type]
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def push(layout: Path, tag: str, target: str, *options: str) -> None:
    run(
        "skopeo",
        "copy",
        "-q",
        *options,
        "--dest-tls-verify=false",
        f"oci:{layout}:{tag}",
        f"docker://{target}",
    )


def snapshot(root: Path | str) -> dict[str, tuple[Any, ...]]:
    """All properties of a directory tree, for comparisons: type, mode, owner, mtime, content, links, xattrs."""
    found: dict[str, tuple[Any, ...]] = {}
    inodes: dict[int, str] = {}
    for path in [Path(root), *sorted(Path(root).rglob("*"))]:
        st = path.lstat()
        name = str(path.relative_to(root))
        content = ""
        if stat.S_ISREG(st.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(st.st_mode):
            content = os.readlink(path)
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
        }
        first = name if stat.S_ISDIR(st.st_mode) else inodes.setdefault(st.st_ino, name)
        found[name] = (
            stat.filemode(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, st.st_rdev, content, first, xattrs,
        )  # fmt: skip
    return found


def buildah_environment(path: Path) -> dict[str, str]:
    """The environment for buildah: storage and settings for the test, and a network program, which buildah requires
    even if unused."""
    helpers = path / "helpers"
    helpers.mkdir(parents=True)
    stub = helpers / "netavark"
    stub.write_text("#!/bin/sh\nexit 0\n")
    stub.chmod(0o755)
    (path / "containers.conf").write_text(f'[engine]\nhelper_binaries_dir = ["{helpers}"]\n')
    (path / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{path}/graph"\nrunroot = "{path}/run"\n'
    )
    return {
        "CONTAINERS_CONF": str(path / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(path / "storage.conf"),
        "BUILDAH_ISOLATION": "chroot",
    }
