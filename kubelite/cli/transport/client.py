"""The CLI's client of the daemon: HTTP over the unix socket, with only the standard library."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from kubelite.cli.errors import CliError, ServerError, Unreachable
from kubelite.cli.transport.http import Answer, ask, target

if TYPE_CHECKING:
    from kubelite.kube.json import Json


#: Query of a DELETE of an object, not of its manifest: it is created again.
KEEP: Json = {"manifest": "keep"}
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


def connect(path: str, *, timeout: float | None = None) -> socket.socket:
    """Connect to the daemon's socket. Raises CliError with a hint if that fails."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except PermissionError:
        connection.close()
        raise CliError(
            f"error: no permission to open {path}: only root (and the group api_group) may talk to kubelite, try sudo"
        ) from None
    except OSError:
        connection.close()
        raise Unreachable(
            f"error: kubelite is not running (no daemon at {path}): start it with {_ways_to_start()}, or name "
            "another socket with --socket"
        ) from None
    connection.settimeout(None)
    return connection


def _ways_to_start() -> str:
    """Return the commands that start a daemon; in a checkout, `make run`, which also has the examples."""
    checkout = os.path.dirname(os.path.dirname(sys.modules["kubelite"].__file__ or ""))
    if os.path.exists(os.path.join(checkout, "deploy", "run")):
        return f"`sudo make run` in {checkout} or with `kubelite serve`"
    return "`systemctl start kubelite` or `kubelite serve`"


def agent() -> str:
    """Return the User-Agent of this command, such as `kubelite cp`, which the daemon's audit log shows."""
    import click

    context = click.get_current_context(silent=True)
    return context.command_path if context is not None else "kubelite"


class Client:
    """Send requests to one daemon. Every failure raises CliError. Warnings in a response go to standard error."""

    def __init__(self, path: str, *, timeout: float | None = None, warnings: bool = True) -> None:
        self.path = path
        self._timeout = timeout
        self._warnings = warnings
        self._agent = agent()

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        body: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request and return the response with an unread body. Raises ServerError for a failure."""
        return self._open(method, path, query=query, body=body, headers=headers)[0]

    def stream(self, path: str, *, query: Json | None = None) -> tuple[Answer, Callable[[], None]]:
        """Return a streamed response, and a function with which another thread can stop the reading."""
        response, connection = self._open("GET", path, query=query)

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        return response, hang_up

    def _open(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        body: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[Answer, socket.socket]:
        connection = connect(self.path, timeout=self._timeout)
        try:
            named = {"User-Agent": self._agent, **(headers or {})}
            response = ask(connection, method, target(path, query), body=body, headers=named)
            for text in (
                text
                for name, value in response.headers
                if name == "warning" and self._warnings
                for text in _WARNING.findall(value)
            ):
                print("Warning: " + re.sub(r"\\(.)", r"\1", text), file=sys.stderr)
            if response.status >= 400:
                raise ServerError(_status(response, response.read()))
        except OSError as error:
            connection.close()
            raise self._lost(error) from error
        return response, connection

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
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def get(self, path: str, *, query: Json | None = None, table: bool = False) -> Any:
        return self.json("GET", path, query=query, headers={"Accept": TABLE} if table else None)

    def post(self, path: str, document: Json) -> Any:
        return self.json("POST", path, body=json.dumps(document).encode(), headers=JSON_BODY)

    def lines(self, response: Answer) -> Iterator[Any]:
        """Yield the JSON documents of a streamed response as they arrive."""
        try:
            while line := response.readline():
                yield json.loads(line)
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def chunks(self, response: Answer) -> Iterator[bytes]:
        """Yield the bytes of a streamed response as they arrive."""
        try:
            while chunk := response.read1(65536):
                yield chunk
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> CliError:
        return Unreachable(
            f"error: the connection to kubelite at {self.path} broke off: {error or 'it was closed'}"
        )


JSON_BODY = {"Content-Type": "application/json"}


def _status(answer: Answer, body: bytes) -> Json:
    try:
        document = json.loads(body)
        if isinstance(document, dict) and document.get("message"):
            return document
    except ValueError:
        pass
    return {"message": body.decode(errors="replace").strip() or answer.reason or str(answer.status)}
