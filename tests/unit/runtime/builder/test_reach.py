"""What the author of a Containerfile cannot read: services on the host's loopback, and files outside the context."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.builder.copy import git, reach
from runtime.builder.copy.context import read_ignore
from runtime.builder.copy.copying import CopyError
from runtime.builder.copy.fetch import download
from runtime.builder.errors import BuildError
from runtime.builder.solver import read_containerfile
from runtime.errors import SyscallError
from tests.kernel.images_support import need

SECRET = b"the metadata of the host"


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("127.0.0.1", True), ("127.255.0.9", True), ("0.0.0.0", True), ("169.254.169.254", True),
        ("::1", True), ("::", True), ("fe80::1%eth0", True), ("::ffff:127.0.0.1", True),
        ("64:ff9b::7f00:1", True), ("2002:7f00:1::", True),
        ("10.0.0.1", False), ("192.168.1.9", False), ("1.1.1.1", False), ("2606:4700::1111", False),
        ("64:ff9b::101:101", False),
    ],
)  # fmt: skip
def test_addresses(address: str, refused: bool) -> None:
    assert reach.is_refused(address) is refused


class Service:
    """Listens on loopback; `answer` is what it says, `asked` what it was asked."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + SECRET
        self.asked: list[bytes] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(65536))
                connection.sendall(self.answer)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    found = Service()
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        yield found
    finally:
        found.listener.shutdown(socket.SHUT_RDWR)
        found.listener.close()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_service_on_loopback_is_not_reached(
    service: Service, tmp_path: Path, scheme: str, host: str
) -> None:
    url = f"{scheme}://{host}:{service.port}/latest/meta-data"
    with pytest.raises(CopyError, match="`kubelite build --network host` allows them"):
        download(url, str(tmp_path / "file"), "", lambda: None, host=False)
    assert service.asked == []
    assert not (tmp_path / "file").exists()


def test_a_service_on_loopback_is_reached_with_the_hosts_network(service: Service, tmp_path: Path) -> None:
    download(f"http://127.0.0.1:{service.port}/x", str(tmp_path / "file"), "", lambda: None, host=True)
    assert (tmp_path / "file").read_bytes() == SECRET


def test_a_redirect_does_not_lead_to_loopback(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first server is outside (as far as is known), and the name is resolved once."""
    outside, resolved = Service(), []
    outside.answer = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{service.port}/x\r\n\r\n".encode()
    thread = threading.Thread(target=outside.run)
    thread.start()

    def resolve(host: str, port: int) -> list[tuple[object, ...]]:
        if host == "outside.example":
            resolved.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", outside.port))]
        return checked(host, port)

    checked = reach.resolve
    monkeypatch.setattr(reach, "resolve", resolve)
    try:
        with pytest.raises(CopyError, match=r"^127\.0\.0\.1: the host's own"):
            download("http://outside.example/x", str(tmp_path / "file"), "", lambda: None, host=False)
    finally:
        outside.listener.shutdown(socket.SHUT_RDWR)
        outside.listener.close()
        thread.join()
    assert len(outside.asked) == 1 and resolved == ["outside.example"] and service.asked == []


def test_a_redirect_does_not_lead_to_ftp(service: Service, tmp_path: Path) -> None:
    """urllib's FTP would connect to any address."""
    with pytest.raises(CopyError, match="only http and https"):
        reach.opener(host=False).open(f"ftp://127.0.0.1:{service.port}/x")
    assert service.asked == []


def test_a_proxy_on_loopback_is_allowed(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{service.port}")
    download("http://outside.example/x", str(tmp_path / "file"), "", lambda: None, host=False)
    assert service.asked[0].startswith(b"GET http://outside.example/x ")
    for name in ("127.0.0.1", "localhost", "[::1]"):
        with pytest.raises(CopyError, match="allows them"):
            download(f"http://{name}:1/x", str(tmp_path / "other"), "", lambda: None, host=False)
    assert len(service.asked) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1/x.git", "ssh://git@localhost/x", "git@127.0.0.1:x"])
def test_git_does_not_reach_loopback(tmp_path: Path, url: str) -> None:
    with pytest.raises(CopyError, match="allows them"):
        git.check_out(
            git.parse(url),
            str(tmp_path / "x"),
            keep=False,
            checksum="",
            check=lambda: None,
            proxies={},
            host=False,
        )
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(bool(need("git")), reason="needs git")
@pytest.mark.parametrize(
    ("name", "url", "words"),
    [
        ("plain", "http://127.0.0.1:1/x", "allows them"),
        ("with a space", "http://127.0.0.1:1/x", "allows them"),
        ("with = and ;", "ssh://git@[::1]/x", "allows them"),
        ("scp", "git@127.0.0.1:x", "allows them"),
        ("slashes", "http:///127.0.0.1:1/x", "is not the URL of a git repository"),
        ("helper", "http::http://127.0.0.1:1/x", "is not the URL of a git repository"),
        ("bare helper", "http::127.0.0.1:1/x", "is not the URL of a git repository"),
        ("brackets", "git@[::1]:x", "is not the URL of a git repository"),
    ],
)
def test_a_submodule_does_not_reach_loopback(tmp_path: Path, name: str, url: str, words: str) -> None:
    run = repository(tmp_path, f'[submodule "{name}"]\n\tpath = sub\n\turl = {url}\n')
    run("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    with pytest.raises(CopyError, match=words):
        git._update_submodules(run)


@pytest.mark.skipif(bool(need("git")), reason="needs git")
def test_a_list_of_no_submodules_is_accepted(tmp_path: Path) -> None:
    git._update_submodules(repository(tmp_path, ""))


def repository(path: Path, submodules: str) -> git._Git:
    run = git._Git("https://outside.example/x.git", str(path / "x"), lambda: None, {})
    run("init", "--quiet")
    (path / "x/.gitmodules").write_text(submodules)
    run("add", ".gitmodules")
    return run


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "shadow").write_text("root:x\n")
    made = tmp_path / "context"
    (made / "sub").mkdir(parents=True)
    (made / "sub/file").write_text("FROM x\n")
    return made


@pytest.mark.parametrize("target", ["{outside}", "../shadow", "sub/../../shadow", "up/shadow"])
def test_a_containerfile_cannot_be_a_link_out_of_the_context(context: Path, target: str) -> None:
    (context / "up").symlink_to("..")
    (context / "Containerfile").symlink_to(target.format(outside=context.parent / "shadow"))
    with pytest.raises(BuildError, match="is a link out of the context"):
        read_containerfile(str(context), str(context / "Containerfile"))
    beside = context / "C.dockerignore"
    beside.symlink_to(context.parent / "shadow")
    with pytest.raises(SyscallError, match="cross-device"):
        read_ignore(-1, str(context), str(context / "C"))


def test_a_link_inside_and_a_file_elsewhere_are_read(context: Path) -> None:
    (context / "Containerfile").symlink_to("sub/file")
    assert read_containerfile(str(context), str(context / "Containerfile")) == "FROM x\n"
    (context.parent / "link").symlink_to("context/sub/file")  # the user's own choice
    assert read_containerfile(str(context), str(context.parent / "link")) == "FROM x\n"
