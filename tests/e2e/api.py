"""HTTP from the test process: to the daemon's unix socket, and by TCP from a node's network namespace. A test that
waits asks many times a second; running a command each time would start a process each time. The output of commands is
tested with `Node.cli`."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime import syscalls

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PODS = "/api/v1/namespaces/{namespace}/pods/{name}"


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("kubelite", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def get(path: str, target: str, *, timeout: float, table: bool = False) -> tuple[int, bytes]:
    """Return status and body of GET `target` on the socket `path`. `table`: request a Table. Raises OSError or
    http.client.HTTPException if no daemon answers within `timeout` seconds."""
    connection = _Unix(path, timeout)
    try:
        connection.request("GET", target, headers={"Accept": _TABLE} if table else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Elsewhere(http.client.HTTPConnection):
    """A connection with a socket that was created in another network namespace, where it stays."""

    def __init__(self, netns: str, host: str, port: int | None, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._netns = netns

    def connect(self) -> None:
        made: list[socket.socket | OSError] = []
        thread = threading.Thread(target=self._make, args=(made,))  # only this thread enters the namespace
        thread.start()
        thread.join()
        (found,) = made
        if isinstance(found, OSError):
            raise found
        self.sock = found
        try:
            found.settimeout(self.timeout)
            found.connect((self.host, self.port))
        except OSError:
            found.close()
            raise

    def _make(self, made: list[socket.socket | OSError]) -> None:
        try:
            descriptor = os.open(self._netns, os.O_RDONLY)
            try:
                syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
                made.append(socket.socket(_family(self.host), socket.SOCK_STREAM))
            finally:
                os.close(descriptor)
        except OSError as error:
            made.append(error)


def fetch(netns: str, url: str, *, method: str, headers: Mapping[str, str], timeout: float) -> Answer:
    """Fetch an http URL with an IP address in the network namespace at the path `netns`. Raises OSError or
    http.client.HTTPException if no server answers; each step may take `timeout` seconds."""
    parts = urllib.parse.urlsplit(url)
    connection = _Elsewhere(netns, parts.hostname or "", parts.port or 80, timeout)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target or "/", headers={"Accept": "*/*", **headers})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def basic(credentials: str) -> dict[str, str]:
    """The header that signs in as `user:password`."""
    return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def cell(table: bytes, number: int) -> str:
    """A column of a Table's only row."""
    rows: list[dict[str, Any]] = json.loads(table)["rows"]
    return str(rows[0]["cells"][number])
