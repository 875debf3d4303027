"""The API's errors: a reason as in metav1.Status, its HTTP code, and a message that says what to do."""

from __future__ import annotations

import errno

from kubelite.kube.json import Json
from runtime.errors import RuntimeFault
from state.errors import StorageFailed, StoreError

# reason → HTTP code (apimachinery pkg/api/errors). Other reasons of a RuntimeFault are failures of the node: 500.
_CODES = {
    "BadRequest": 400,
    "InvalidImageName": 400,
    "InvalidRequest": 400,
    "ImageNotFound": 404,
    "ImageInUse": 409,
    "AmbiguousImageId": 409,
    "ImageHasOtherNames": 409,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "NotAcceptable": 406,
    "AlreadyExists": 409,
    "Conflict": 409,
    "InvalidState": 409,
    "Timeout": 408,
    "Expired": 410,
    "RequestEntityTooLarge": 413,
    "UnsupportedMediaType": 415,
    "Invalid": 422,
    "InvalidSpec": 422,
    "TooManyRequests": 429,
    "NotSupported": 501,
    "NotImplemented": 501,
    "ServiceUnavailable": 503,
}


#: Shortages that pass: of descriptors, of the kernel's memory.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

#: What a disk says that is full, fails, or has been made read-only.
DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})


def is_shortage(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, is a shortage that passes: of descriptors, memory, or a disk."""
    while error is not None:
        if isinstance(error, (MemoryError, StorageFailed)):
            return True
        if isinstance(error, OSError) and error.errno in EXHAUSTED | DISK:
            return True
        error = error.__cause__
    return False


class ApiError(Exception):
    """An error of a request. `reason`: as in metav1.Status; the message is a sentence for a person. `metadata`: of the
    Status. `code`: of HTTP, where it is not that of the reason."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        details: Json | None = None,
        metadata: Json | None = None,
        code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.details = details or {}
        self.metadata = metadata or {}
        self.code = code or _CODES.get(reason, 500)


def not_found(resource: str, name: str) -> ApiError:
    """Return the error with the API server's message: pods "web" not found."""
    return ApiError("NotFound", f'{resource} "{name}" not found', details={"name": name, "kind": resource})


def bad_request(message: str) -> ApiError:
    return ApiError("BadRequest", message)


class Forbidden(Exception):
    """An object is not admitted: `pods "web" is forbidden: …`. `field`: the nearest field of its document."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


def is_expected(error: BaseException) -> bool:
    """Whether an error is one that storage, admission, the system or a helper process raise for a reason."""
    return isinstance(error, (Forbidden, MemoryError, OSError, RuntimeFault, StoreError))
