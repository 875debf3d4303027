"""Access control on the node's TCP port: tokens for logs, and for all other pages if `metrics_token_file` is set; a
client's certificate if `client_ca_file` is set. What is set is required, so a client may need both.

The token is in a file, which is read on each request so that it can be changed. Clients send it as a Bearer token, or
as the password of HTTP's Basic scheme, for which a browser prompts (RFC 9110, 11; RFC 7617). Both are sent in clear
text unless `tls_cert_file` is set.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kubelite.telemetry.web.guard import CLIENT, OPEN

logger = logging.getLogger(__name__)

_LOG = re.compile(r"/pods/[^/]+/[^/]+/log/[^/]+")
LEAST = 16  # minimum length of the token in characters
CHALLENGE = {"www-authenticate": 'Basic realm="kubelite: any name, the token as password", charset="UTF-8"'}


class Denied(Exception):
    """The request is refused. `code`: the HTTP status; the message is for a person."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Tokens:
    """ASGI middleware that requires the token, except for health checks, which reveal nothing about the node, and for
    logs, which have their own token."""

    def __init__(self, app: ASGIApp, token_file: str) -> None:
        self._app = app
        self._token_file = token_file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path not in OPEN and not _LOG.fullmatch(path):
            given_ = [value.decode("latin-1") for key, value in scope["headers"] if key == b"authorization"]
            try:
                check(self._token_file, given_[0] if len(given_) == 1 else "", what="this port needs")
            except Denied as denied:
                if denied.__cause__ is not None:
                    logger.warning("%s", denied.__cause__)
                headers = CHALLENGE if denied.code == 401 else None
                await PlainTextResponse(f"{denied}\n", denied.code, headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class ClientCertificates:
    """ASGI middleware that requires a client's certificate, except for health checks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN or scope.get(CLIENT):
            await self._app(scope, receive, send)
            return
        words = (
            "this port needs a client certificate of the authority that the setting client_ca_file names\n"
        )
        await PlainTextResponse(words, 401)(scope, receive, send)


def check(token_file: str, authorization: str, *, what: str = "logs need") -> None:
    """Raise Denied unless the Authorization header has the token."""
    if not token_file:
        raise Denied(
            403,
            "logs need a token, and none is set: set web_token_file in the node's settings",
        )
    try:
        token = Path(token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Denied(503, "the token file cannot be read: see the node's log") from error
    if len(token) < LEAST:
        raise Denied(503, f"the token file has fewer than {LEAST} characters")
    if not hmac.compare_digest(given(authorization).encode(), token.encode()):
        raise Denied(
            401,
            f"{what} a token: send it as Authorization: Bearer, or as the password that a browser asks for; the "
            "settings web_token_file (logs) and metrics_token_file (everything else) name its file",
        )


def given(authorization: str) -> str:
    """Return the token in an Authorization header; "" if there is none."""
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
