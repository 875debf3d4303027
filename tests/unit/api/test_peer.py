"""Who may ask for what on the unix socket, and what the audit log says of it."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from kubelite.api.app import create_app
from kubelite.api.audit import Audit, AuditLog, object_of, verb_of
from kubelite.api.peer import Access, Peer, Peered, forbidden, gid_of, peer_of
from kubelite.api.server import listen_unix, serving
from kubelite.kube.json import Json
from tests.unit.api.fake_node import FakeNode, pod_doc

READERS = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# It takes the user's ids by itself: that user may not be able to execute an interpreter in somebody's home.
ASK = """
import os, socket, sys
text = sys.argv[2].encode().decode("unicode_escape").encode()  # imports a codec
user, *groups = map(int, sys.argv[3:])
if user:
    os.setgroups(groups)
    os.setgid(groups[0])
    os.setuid(user)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(text)
data = b""
while b"\\r\\n" not in data:
    data += connection.recv(65536) or sys.exit("closed")
print(data.split()[1].decode())
"""


@pytest.mark.parametrize(
    ("peer", "group", "allowed"),
    [
        (Peer(1, 0, 0), None, True),
        (Peer(1, 0, 0), READERS, True),
        (Peer(1, 1000, READERS), READERS, True),
        (Peer(1, 1000, 1000, (4, READERS)), READERS, True),
        (Peer(1, 1000, 1000, (4,)), READERS, False),
        (Peer(1, 1000, 0, ()), None, False),
        (None, READERS, False),
        (None, None, False),
    ],
)
def test_who_may_read(peer: Peer | None, group: int | None, allowed: bool) -> None:
    scope = {"type": "http", "method": "GET", "path": "/api/v1/pods"}
    assert (forbidden(peer, group, scope) is None) is allowed


NAMESPACE = "/api/v1/namespaces/default"


@pytest.mark.parametrize(
    ("kind", "method", "path", "allowed"),
    [
        ("http", "GET", "/api/v1/pods", True),
        ("http", "HEAD", "/version", True),
        ("http", "GET", f"{NAMESPACE}/pods/web/log", True),
        ("http", "GET", f"{NAMESPACE}/configmaps/secrets", True),
        ("http", "GET", "/kubelite/v1/why/default/web", True),
        ("http", "GET", "/api/v1/secrets", False),
        ("http", "GET", "/api/v1/secrets/", False),
        ("http", "GET", f"{NAMESPACE}/secrets", False),
        ("http", "GET", f"{NAMESPACE}/secrets/login", False),
        ("http", "GET", f"{NAMESPACE}/pods/web:8080/proxy/", False),
        ("http", "HEAD", f"{NAMESPACE}/services/web/proxy", False),
        ("http", "GET", f"{NAMESPACE}/pods/web/proxy\n", False),
        ("http", "GET", "/kubelite/v1/inspect/default/web", False),
        ("http", "POST", "/kubelite/v1/apply", False),
        ("http", "POST", "/kubelite/v1/diff", False),
        ("http", "DELETE", f"{NAMESPACE}/pods/web", False),
        ("websocket", "GET", f"{NAMESPACE}/pods/web/exec", False),
        ("websocket", "GET", f"{NAMESPACE}/pods/web/attach", False),
    ],
)
def test_what_the_group_may(kind: str, method: str, path: str, allowed: bool) -> None:
    peer, scope = Peer(1, 1000, READERS), {"type": kind, "method": method, "path": path}
    assert (forbidden(peer, READERS, scope) is None) is allowed
    assert forbidden(Peer(1, 0, 0), READERS, scope) is None


def test_the_kernel_names_the_peer() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        found = peer_of(left)
        assert found is not None
        assert (found.pid, found.uid, found.gid) == (os.getpid(), os.geteuid(), os.getegid())
        assert set(found.groups) == set(os.getgroups())
    with socket.socket(socket.AF_INET) as tcp:
        assert peer_of(tcp) is None


def test_groups_by_name_and_number() -> None:
    assert gid_of("") is None and gid_of("12") == 12
    first = grp.getgrall()[0]
    assert gid_of(first.gr_name) == first.gr_gid
    with pytest.raises(KeyError):
        gid_of("no-such-group")


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A path that every user can reach: pytest's own directories are private."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        yield f"{directory}/k.sock"


@contextlib.asynccontextmanager
async def served(
    tmp_path: Path, *, path: str = "", group: int | None = READERS
) -> AsyncIterator[tuple[FakeNode, str, Path]]:
    node, path, file = FakeNode(tmp_path), path or str(tmp_path / "k.sock"), tmp_path / "audit.log"
    log = AuditLog(str(file), max_bytes=1 << 20, files=3)
    app = Audit(Access(create_app(node), group), log)
    async with serving(app, [listen_unix(path, group)], http=Peered):
        await node.store.create("Pod", pod_doc("web"))
        yield node, path, file
    log.close()
    await node.store.close()


async def ask(path: str, text: str, *, user: int = 0, groups: tuple[int, ...] = ()) -> str:
    """The status that a process of this user gets; what it prints if it cannot connect."""
    ids = [str(number) for number in (user, *(groups or (user,)))]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", ASK, path, text, *ids, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )  # fmt: skip
    out, err = await process.communicate()
    return out.decode().strip() or err.decode().splitlines()[-1]


def request(line: str, *headers: str, body: str = "") -> str:
    length = (f"Content-Length: {len(body)}",) if body else ()
    return r"\r\n".join([f"{line} HTTP/1.1", "Host: kubelite", *headers, *length, "", body])


HANDSHAKE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: v5.channel.k8s.io",
)  # fmt: skip
EXEC = f"GET {NAMESPACE}/pods/web/exec?command=true&stdout=true"
APPLY = ("POST /kubelite/v1/apply?file=c.yaml", "Content-Type: application/yaml")
CONFIG = "{kind: ConfigMap, apiVersion: v1, metadata: {name: c}}"


@as_root
async def test_on_a_socket(tmp_path: Path, socket_path: str) -> None:
    async with served(tmp_path, path=socket_path) as (_, path, _log):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660 and os.stat(path).st_gid == READERS
        member = {"user": 12345, "groups": (12345, READERS)}
        pods, secrets = request("GET /api/v1/pods"), request("GET /api/v1/secrets")
        assert await ask(path, pods, **member) == "200"  # type: ignore[arg-type]
        assert await ask(path, secrets, **member) == "403"  # type: ignore[arg-type]
        assert await ask(path, request(*APPLY, body=CONFIG), **member) == "403"  # type: ignore[arg-type]
        assert await ask(path, request(EXEC, *HANDSHAKE), **member) == "403"  # type: ignore[arg-type]
        assert "Permission denied" in await ask(path, pods, user=12345)
        assert await ask(path, request(EXEC, *HANDSHAKE)) == "101"
        assert await ask(path, secrets) == "200"


def lines(file: Path) -> list[Json]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_what_is_recorded(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, path, file):
        assert await ask(path, request("GET /api/v1/pods")) == "200"
        assert await ask(path, request("POST /kubelite/v1/diff", *APPLY[1:], body=CONFIG)) == "200"
        assert (
            await ask(path, request("POST /kubelite/v1/apply", "Content-Type: text/plain", body="x")) == "415"
        )
        assert await ask(path, request("GET /api/v1/pods", "Origin: https://evil.example")) == "403"
        assert await ask(path, request(*APPLY, "User-Agent: kubelite apply", body=CONFIG)) == "200"
        assert await ask(path, request(EXEC, *HANDSHAKE)) == "101"
        assert await ask(path, request(f"DELETE {NAMESPACE}/pods/web")) == "200"
        assert await ask(path, request("GET /kubelite/v1/inspect/default/web?portForward=80")) in (
            "200",
            "404",
        )
        found = lines(file)
    wrong, page, applied, began, *rest = found
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    codes = [one["responseStatus"]["code"] for one in (wrong, page, applied, began)]
    assert codes == [415, 403, 200, 101]
    about = {"username": f"uid:{os.geteuid()}", "uid": str(os.geteuid())}
    assert about.items() <= applied["user"].items()
    assert applied["userAgent"] == "kubelite apply" and applied["verb"] == "create"
    assert applied["annotations"]["kubelite.io/objects"] == "configmap/default/c created"
    assert applied["requestURI"] == "/kubelite/v1/apply?file=c.yaml"
    (deleted,) = (one for one in rest if one["verb"] == "delete")
    assert deleted["responseStatus"] == {"code": 200}
    assert deleted["objectRef"] == {
        "namespace": "default",
        "resource": "pods",
        "name": "web",
        "apiVersion": "v1",
    }
    assert began["stage"] == "ResponseStarted" and began["objectRef"]["subresource"] == "exec"
    assert "command=true" in began["requestURI"]
    ended = next(one for one in rest if one["auditID"] == began["auditID"])
    assert ended["stage"] == "ResponseComplete"
    assert [one["verb"] for one in rest if "portForward" in one["requestURI"]] == ["portforward"]


async def test_the_result_of_a_stream_is_its_end(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, path, file):
        body = '{"reference": "none.example/x:1"}'
        assert (
            await ask(
                path, request("POST /kubelite/v1/images/pull", "Content-Type: application/json", body=body)
            )
            == "200"
        )
        for _ in range(100):
            if file.exists() and lines(file):
                break
            await asyncio.sleep(0.05)
        (pulled,) = lines(file)
    assert pulled["annotations"] == {"kubelite.io/objects": "image none.example/x:1"}
    assert set(pulled["responseStatus"]) >= {"code"}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/api/v1/nodes/here", {"resource": "nodes", "name": "here", "apiVersion": "v1"}),
        ("/api/v1/namespaces/x", {"resource": "namespaces", "name": "x", "apiVersion": "v1"}),
        (
            "/apis/storage.k8s.io/v1/storageclasses/fast",
            {"resource": "storageclasses", "name": "fast", "apiGroup": "storage.k8s.io", "apiVersion": "v1"},
        ),
        (
            "/api/v1/namespaces/x/status",
            {"resource": "namespaces", "name": "x", "subresource": "status", "apiVersion": "v1"},
        ),
        (
            "/api/v1/namespaces/x/finalizers",
            {"resource": "finalizers", "namespace": "x", "apiVersion": "v1"},
        ),
        ("/kubelite/v1/apply", {}),
        ("/api", {}),
    ],
)
def test_objects(path: str, found: Json) -> None:
    assert object_of(path) == found


@pytest.mark.parametrize(
    ("method", "path", "query", "verb"),
    [
        ("GET", f"{NAMESPACE}/secrets", "", "list"),
        ("HEAD", "/api/v1/secrets", "watch=false", "list"),
        ("GET", "/api/v1/secrets", "watch=true", "watch"),
        ("GET", f"{NAMESPACE}/secrets/login", "watch=true", "get"),
        ("GET", f"{NAMESPACE}/pods/web/exec", "command=true", "get"),
        ("DELETE", f"{NAMESPACE}/pods", "", "deletecollection"),
        ("DELETE", f"{NAMESPACE}/pods/web", "", "delete"),
        ("POST", f"{NAMESPACE}/pods", "", "create"),
        ("GET", "/kubelite/v1/inspect/default/web", "", "get"),
        ("GET", "/kubelite/v1/inspect/default/web", "portForward=80", "portforward"),
        ("DELETE", f"{NAMESPACE}/pods/web", "portForward=80", "delete"),
    ],
)
def test_verbs(method: str, path: str, query: str, verb: str) -> None:
    """As Kubernetes names them: refused lists and watches are recorded, too."""
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": []}
    assert verb_of(scope) == verb


async def test_what_a_client_chooses_forges_no_line_and_fills_no_log(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "audit.log"), max_bytes=0, files=1)
    scope: Any = {
        "type": "http", "method": "DELETE", "path": "/api/v1/pods?dryRun=All\n{}", "query_string": b"a=b",
        "raw_path": b"/api/v1/pods%3FdryRun=All%0a{}", "headers": [(b"user-agent", b"a\n" * 30_000)],
    }  # fmt: skip

    async def answer(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def nothing(*_: Any) -> Any:
        return None

    await Audit(answer, log)(scope, nothing, nothing)
    (line,) = (tmp_path / "audit.log").read_text().splitlines()
    assert json.loads(line)["requestURI"] == "/api/v1/pods%3FdryRun=All%0a{}?a=b"
    assert json.loads(line)["userAgent"] == "a\n" * 512 + "...TRUNCATED"
    log.close()


def test_rotation(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "d/audit.log"), max_bytes=100, files=3)
    for number in range(40):
        log.write({"n": number, "pad": "x" * 20})
    names = sorted(path.name for path in (tmp_path / "d").iterdir())
    assert names == ["audit.log", "audit.log.1", "audit.log.2"]
    kept = [one["n"] for name in reversed(names) for one in lines(tmp_path / "d" / name)]
    assert kept == list(range(kept[0], 40))
    assert all((tmp_path / "d" / name).stat().st_size <= 100 for name in names)
    os.rename(tmp_path / "d/audit.log", tmp_path / "d/moved")  # by logrotate
    log.write({"n": 40})
    assert lines(tmp_path / "d/audit.log") == [{"n": 40}]
    log.close()


def test_a_line_that_fits_only_in_part_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk accepts the beginning of a line; so does a limit of the file's size."""
    log = AuditLog(str(tmp_path / "audit.log"), max_bytes=0, files=1)
    log.write({"n": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # Python ignores SIGXFSZ
    try:
        log.write({"n": 2, "pad": "x" * 50})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write({"n": 3})
    log.close()
    assert [one["n"] for one in lines(tmp_path / "audit.log")] == [1, 3]
    assert "No space left" in caplog.text


def test_a_line_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    log = AuditLog(str(tmp_path / "file/audit.log"), max_bytes=100, files=3)
    log.write({})
    log.write({})
    assert [record.message for record in caplog.records] == [
        f"cannot write the audit log {tmp_path}/file/audit.log: File exists"
    ]
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to("target")
    linked = AuditLog(str(tmp_path / "link"), max_bytes=100, files=3)
    linked.write({})
    assert (tmp_path / "target").read_text() == ""
