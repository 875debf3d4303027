"""Who may see what the node's TCP port does not show to everybody: logs.

A secret in a file (`web_token_file`), read anew for each request so that it can be changed. It comes as a Bearer token,
or as the password of HTTP's Basic scheme, which is what a browser asks a person for (RFC 9110, 11; RFC 7617). Both
travel in the clear: the port is loopback's, or behind something that speaks TLS.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from pathlib import Path

LEAST = 16  # characters of the secret
CHALLENGE = {"www-authenticate": 'Basic realm="kubelite: any name, the token as password", charset="UTF-8"'}


class Denied(Exception):
    """`code`: the HTTP status; the text is for a person."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def check(token_file: str, authorization: str) -> None:
    """Raises Denied unless the Authorization header has the token."""
    if not token_file:
        raise Denied(
            403,
            "logs are shown here to those with a token, and none is set: web_token_file in the node's settings",
        )
    try:
        token = Path(token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Denied(503, "the token's file cannot be read: see the node's log") from error
    if len(token) < LEAST:
        raise Denied(503, f"the token's file holds less than {LEAST} characters")
    if not hmac.compare_digest(given(authorization).encode(), token.encode()):
        raise Denied(
            401, "a token is needed: Authorization: Bearer, or as the password that a browser asks for"
        )


def given(authorization: str) -> str:
    """The token of an Authorization header, "" for none."""
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
