"""Errors in HTTP answers: every failure is a `metav1.Status` with a code, a reason and a message, as kubectl
expects."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json
from runtime.errors import RuntimeFault
from state.errors import StoreError


def from_exception(error: Exception) -> ApiError:
    """Convert an error of the node into one for the client, with the same reason and message."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RuntimeFault | StoreError):
        return ApiError(error.reason, str(error))
    return ApiError("InternalError", f"{type(error).__name__}: {error}")


def status(error: ApiError) -> Json:
    """Return the `metav1.Status` of a failure."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": error.metadata,
        "status": "Failure",
        "message": str(error),
        "reason": error.reason,
        "details": error.details,
        "code": error.code,
    }


def failure(error: ApiError) -> JSONResponse:
    """Return the answer to a request that failed. Its header Retry-After says what the Status says, for clients and
    proxies that do not read it (apiserver pkg/endpoints/handlers/responsewriters/errors.go)."""
    seconds = error.details.get("retryAfterSeconds")
    headers = {"Retry-After": str(seconds)} if seconds else None
    return JSONResponse(status(error), error.code, headers=headers)


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with a failure. A WebSocket is refused before it is accepted."""
    answer = failure(error)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(answer)
    else:
        await answer(scope, receive, send)
