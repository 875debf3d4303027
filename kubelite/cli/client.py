"""The daemon from the CLI's side: HTTP over its unix socket with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote, urlencode

from kubelite.cli.errors import CliError, ServerError

Json = dict[str, Any]

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


def connect(path: str, *, timeout: float | None = None) -> socket.socket:
    """A connection to the daemon's socket. Raises CliError with the next step when there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except PermissionError:
        connection.close()
        raise CliError(
            f"error: no permission to open {path}: only root may talk to kubelite, try sudo"
        ) from None
    except OSError:
        connection.close()
        raise CliError(
            f"error: kubelite is not running (no daemon at {path}): start it with `systemctl start kubelite` or "
            "`kubelite serve`, or name another socket with --socket"
        ) from None
    connection.settimeout(None)
    return connection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("kubelite")
        self._path = path
        self._limit = timeout

    def connect(self) -> None:
        self.sock = connect(self._path, timeout=self._limit)


class Client:
    """Requests to one daemon. Every failure is a CliError."""

    def __init__(self, path: str, *, timeout: float | None = None) -> None:
        self.path = path
        self._timeout = timeout

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        body: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """The answer with its body still to be read. Raises ServerError for a failure."""
        connection = _UnixConnection(self.path, self._timeout)
        target = quote(path) + (f"?{urlencode(query, doseq=True)}" if query else "")
        try:
            # With "close" the socket belongs to the answer and goes with its last byte.
            connection.request(method, target, body=body, headers={"Connection": "close", **(headers or {})})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        for value in response.headers.get_all("Warning") or ():
            for text in _WARNING.findall(value):
                print("Warning: " + re.sub(r"\\(.)", r"\1", text), file=sys.stderr)
        if response.status >= 400:
            raise ServerError(_status(response.status, response.read()))
        return response

    def json(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        body: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        response = self.open(method, path, query=query, body=body, headers=headers)
        try:
            return json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._lost(error) from error

    def get(self, path: str, *, query: Json | None = None, table: bool = False) -> Any:
        return self.json("GET", path, query=query, headers={"Accept": TABLE} if table else None)

    def post(self, path: str, document: Json) -> Any:
        return self.json("POST", path, body=json.dumps(document).encode(), headers=JSON_BODY)

    def lines(self, response: http.client.HTTPResponse) -> Iterator[Any]:
        """A streamed answer's JSON documents, each as soon as it is there."""
        try:
            while line := response.readline():
                yield json.loads(line)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._lost(error) from error

    def chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """A streamed answer's bytes, each piece as soon as it is there."""
        try:
            while chunk := response.read1(65536):
                yield chunk
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> CliError:
        return CliError(
            f"error: the connection to kubelite at {self.path} broke off: {error or 'it was closed'}"
        )


JSON_BODY = {"Content-Type": "application/json"}


def _status(code: int, body: bytes) -> Json:
    try:
        document = json.loads(body)
        if isinstance(document, dict) and document.get("message"):
            return document
    except ValueError:
        pass
    return {"message": body.decode(errors="replace").strip() or http.client.responses.get(code, str(code))}
