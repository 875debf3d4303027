"""ADD from servers with deliberate faults."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.builder.copy.copying import CopyError
from runtime.builder.copy.fetch import download, file_name

BODY = b"content"
SUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
OK = "HTTP/1.1 200 OK\r\nConnection: close\r\n"


class Server:
    """Sends the same bytes to every client."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.answer = b""
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/a/file"

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(self.answer)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        yield found
    finally:
        found.listener.shutdown(socket.SHUT_RDWR)
        found.listener.close()
        thread.join()


def got(server: Server, path: Path, head: str, checksum: str = "") -> Path:
    server.answer = head.encode() + b"\r\n" + BODY
    download(server.url, str(path / "file"), checksum, lambda: None, host=True)
    return path / "file"


def test_a_complete_file_is_kept_with_its_time(server: Server, tmp_path: Path) -> None:
    found = got(
        server, tmp_path, f"{OK}Content-Length: 7\r\nLast-Modified: Thu, 01 Jan 1970 00:00:09 GMT\r\n", SUM
    )
    assert found.read_bytes() == BODY
    assert (found.stat().st_mtime, found.stat().st_mode & 0o777) == (9.0, 0o600)


@pytest.mark.parametrize(
    "time", ["yesterday", "", "Thu, 01 Jan 99999 00:00:00 GMT", "Thu, 01 Jan 1960 00:00:00 GMT"]
)
def test_an_invalid_time_is_ignored(server: Server, tmp_path: Path, time: str) -> None:
    assert got(server, tmp_path, f"{OK}Last-Modified: {time}\r\n").stat().st_mtime == 0


@pytest.mark.parametrize(
    ("head", "checksum", "words"),
    [
        (f"{OK}Content-Length: 9\r\n", "", "the connection ended after 7 of 9 bytes"),
        ("nonsense\r\n", "", "cannot fetch http://.*: nonsense"),
        ("HTTP/1.1 404 Not Found\r\n", "", "Not Found"),
        (f"HTTP/1.1 200 {'x' * 70_000}\r\n", "", "cannot fetch"),
        ("HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n", "", "not allowed|file"),
        (f"{OK}Transfer-Encoding: chunked\r\n", "", "cannot fetch"),
        (OK, f"sha256:{'0' * 64}", f"has the digest {SUM}, not"),
        (OK, "md5:1", "--checksum must be sha256: and 64 hex digits"),
    ],
)
def test_errors_are_named(server: Server, tmp_path: Path, head: str, checksum: str, words: str) -> None:
    with pytest.raises(CopyError, match=words):
        got(server, tmp_path, head, checksum)


@pytest.mark.parametrize("url", ["http://a/", "http://a", "http://a/b/..", "http://a/%2E%2E"])
def test_a_url_without_a_name(url: str) -> None:
    with pytest.raises(CopyError, match="does not end in a file name"):
        file_name(url)
