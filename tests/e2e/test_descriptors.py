"""A node with few file descriptors (`ulimit -n 256`) and more watches than it can hold."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.manifests import pod
from tests.e2e.node import KUBELITE, Node

LIMIT = 256
WATCHES = 400
REQUEST = b"GET /api/v1/pods?watch=true HTTP/1.1\r\nHost: kubelite\r\n\r\n"


@contextlib.contextmanager
def watches(path: str, count: int) -> Iterator[list[socket.socket]]:
    """Connections that have each asked for a watch."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            client.settimeout(10)
            client.connect(path)
            client.sendall(REQUEST)
            found.append(client)
        yield found


def statuses(clients: list[socket.socket]) -> dict[bytes, int]:
    """How often each status code was answered; b"" where the connection was closed without an answer."""
    found: dict[bytes, int] = {}
    for client in clients:
        try:
            code = client.recv(64).partition(b" ")[2][:3]
        except ConnectionError:
            code = b""
        found[code] = found.get(code, 0) + 1
    return found


def test_watches_without_end_take_nothing_from_the_pods(tmp_path: Path, images: Path) -> None:
    node = Node(tmp_path, program=("sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", *KUBELITE))
    node.prepare()
    subprocess.run(["cp", "-a", "--reflink=auto", str(images), str(node.root / "images")], check=True)
    try:
        node.start()
        with watches(node.environ()["KUBELITE_SOCKET"], WATCHES) as clients:
            found = statuses(clients)
            assert found[b"200"] >= 32 and found[b"429"] >= WATCHES / 2, found
            names = [f"p{number}" for number in range(8)]
            for name in names:
                node.apply(f"{name}.yaml", pod(name))
            for name in names:
                node.wait_status(name, "Running")
            assert node.cli("exec", "p0", "--", "echo", "here").out == "here\n"
            assert node.daemon is not None and node.daemon.poll() is None
        log = node.log.read_text()
        assert "Traceback" not in log and "Too many open files" not in log
    finally:
        node.destroy()
    assert not node.leftovers()
