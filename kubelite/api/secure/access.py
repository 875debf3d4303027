"""Access to the API over TLS: who sends a request (401 if nobody does), whether they may (403), and how long it is.

Only Kubernetes' own paths are served there. kubelite's commands use the unix socket.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelite.accounts.tokens import Tokens
from kubelite.api.errors import refuse
from kubelite.api.node import StoreView
from kubelite.api.rbac.authorizer import forbidden
from kubelite.api.secure.tokens import bearer, user_of_token
from kubelite.api.secure.users import ANONYMOUS, KEY, PUBLIC, User, user_of
from kubelite.kube.errors import ApiError

MOST = (
    3 << 20
)  # bytes of a body: the limit of an API server (apiserver pkg/server/config.go, MaxRequestBodyBytes)
PATIENCE = 10.0  # seconds for each piece of a body


class Site(Protocol):
    """The node, as far as access to it needs it."""

    @property
    def store(self) -> StoreView: ...
    @property
    def tokens(self) -> Tokens: ...


class Secure:
    """ASGI middleware that admits the requests of users who may send them."""

    def __init__(self, app: ASGIApp, node: Site) -> None:
        self._app = app
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = user_of(scope) or self._bearer(scope) or ANONYMOUS
        scope[KEY] = user  # the audit log shows it
        error = _refused(user, scope) or forbidden(self._node.store, user, scope)
        if error is not None:
            await refuse(error, scope, receive, send)
        elif scope["type"] == "http":
            await self._app(scope, _bounded(receive), send)
        else:
            await self._app(scope, receive, send)

    def _bearer(self, scope: Scope) -> User | None:
        """Return the user of the request's token. A client's certificate comes before it, as on a cluster."""
        token = bearer(scope)
        return user_of_token(self._node.tokens, token) if token is not None else None


#: An API server says "Unauthorized" alone. kubectl puts the message in parentheses after its own words.
_NOBODY = (
    "Unauthorized: the request has neither a client certificate of this node nor a token; on the node, "
    "`kubelite kubeconfig` prints a login"
)
_EXPIRED = (
    "Unauthorized: the token is unknown or has expired; on the node, `kubelite create token` prints a new one"
)


def _refused(user: User, scope: Scope) -> ApiError | None:
    path = scope["path"]
    if user.anonymous and (path not in PUBLIC or bearer(scope) is not None):
        return ApiError("Unauthorized", _EXPIRED if bearer(scope) is not None else _NOBODY)
    if path == "/kubelite" or path.startswith("/kubelite/"):
        words = "this port serves the Kubernetes API: kubelite's own commands use the node's unix socket"
        return ApiError("NotFound", words)
    length = next((value for key, value in scope["headers"] if key == b"content-length"), b"0")
    if length.isdigit() and int(length) > MOST:
        return _too_large()
    if any(key.startswith(b"impersonate-") for key, _ in scope["headers"]):  # kubectl --as
        words = "impersonation (--as) is not supported: use `kubelite kubeconfig --user NAME` instead"
        return ApiError("Forbidden", words)
    return None


def _too_large() -> ApiError:
    return ApiError("RequestEntityTooLarge", f"Request entity too large: limit is {MOST}")


def _bounded(receive: Receive) -> Receive:
    """Return a function that receives a body piece by piece. It raises ApiError when the next one is late, or when
    there are too many bytes."""
    ended, taken = False, 0

    async def bounded() -> Message:
        nonlocal ended, taken
        if ended:  # then a disconnect is waited for
            return await receive()
        try:
            async with asyncio.timeout(PATIENCE):
                message = await receive()
        except TimeoutError:
            raise ApiError("Timeout", "the body of the request did not arrive in time") from None
        taken += len(message.get("body", b""))
        ended = message["type"] != "http.request" or not message.get("more_body", False)
        if taken > MOST:
            raise _too_large()
        return message

    return bounded
