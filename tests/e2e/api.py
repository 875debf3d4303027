"""The daemon asked over its unix socket, in the test's own process: what a test waits for, it asks many times a second,
and a command each time would be an interpreter each time. What a command says is asked of the command (`Node.cli`)."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

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
    """Status and body of GET `target` on the socket `path`; `table`: as rows, as the server prints them. Raises OSError
    or http.client.HTTPException where no daemon answers within `timeout` seconds."""
    connection = _Unix(path, timeout)
    try:
        connection.request("GET", target, headers={"Accept": _TABLE} if table else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def cell(table: bytes, number: int) -> str:
    """A column of a Table's only row."""
    rows: list[dict[str, Any]] = json.loads(table)["rows"]
    return str(rows[0]["cells"][number])
