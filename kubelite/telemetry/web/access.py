"""Access control for the only data on the node's TCP port that is not open to everyone: logs.

The token is in a file (`web_token_file`), which is read on each request so that it can be changed. Clients send it as a
Bearer token, or as the password of HTTP's Basic scheme, for which a browser prompts (RFC 9110, 11; RFC 7617). Both are
sent in clear text, so the port must listen on loopback or be behind a TLS proxy.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from pathlib import Path

LEAST = 16  # minimum length of the token in characters
CHALLENGE = {"www-authenticate": 'Basic realm="kubelite: any name, the token as password", charset="UTF-8"'}


class Denied(Exception):
    """`code` is the HTTP status; the text is for a person."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def check(token_file: str, authorization: str) -> None:
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
            "logs need a token: send it as Authorization: Bearer, or as the password that a browser asks for",
        )


def given(authorization: str) -> str:
    """Return the token in an Authorization header, or ""."""
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
