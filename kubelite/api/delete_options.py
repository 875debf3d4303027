"""The body of a DELETE: DeleteOptions in JSON or in Kubernetes' protobuf, with the options of the query.

kubectl sends protobuf where it knows the type of an object: `kubectl drain --disable-eviction` deletes pods so. Of the
requests that this API serves, no other has a body in that form.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request

from kubelite.api.guard import PROTOBUF
from kubelite.kube.errors import bad_request
from kubelite.kube.json import Json

_MAGIC = b"k8s\0"  # before a runtime.Unknown, of which field 2 has the object
_OBJECT = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST = 10  # bytes of a number
# apimachinery pkg/apis/meta/v1/generated.proto
_GRACE, _PRECONDITIONS, _ORPHAN, _PROPAGATION, _DRY_RUN = 1, 2, 3, 4, 5
_UID, _RESOURCE_VERSION = 1, 2
_ALL = ["All"]


async def delete_options(request: Request) -> Json:
    """Return the options, those of the query before those of the body. Raises BadRequest."""
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        options = decoded(body) if kind == PROTOBUF else json.loads(body) if body.strip() else {}
    except ValueError as error:
        raise bad_request(f"the body is not a DeleteOptions document: {error}") from error
    if not isinstance(options, dict) or not isinstance(options.get("preconditions") or {}, dict):
        raise bad_request("the body is not a DeleteOptions document")
    query = request.query_params
    if text := query.get("gracePeriodSeconds"):
        options["gracePeriodSeconds"] = int(text) if text.lstrip("-").isdigit() else text
    if text := query.get("propagationPolicy"):
        options["propagationPolicy"] = text
    grace = options.get("gracePeriodSeconds")
    if grace is not None and (type(grace) is not int or grace < 0):
        raise bad_request(f"gracePeriodSeconds must be a whole number of seconds, not {grace!r}")
    return options


def dry_run(query: list[str], options: Any) -> bool:
    """Return whether nothing shall be changed (propagateDryRun). `query`: the values of the parameter `dryRun`;
    `options`: the field of that name. Raises BadRequest."""
    if query and options and query != options:
        raise bad_request(f"Non-matching dry-run options in request and content: {query} and {options}")
    wanted = query or options or []
    if wanted not in ([], _ALL):
        raise bad_request(f"dryRun must be All, not {wanted!r}")
    return bool(wanted)


def decoded(body: bytes) -> Json:
    """Return DeleteOptions of Kubernetes' protobuf as their JSON. Pure. Raises ValueError."""
    if not body.startswith(_MAGIC):
        raise ValueError("it does not begin as Kubernetes' protobuf does")
    options: Json = {}
    for number, value in _fields(_one(body[len(_MAGIC) :], _OBJECT)):
        if isinstance(value, int):
            if number == _GRACE:
                options["gracePeriodSeconds"] = value - (1 << 64) if value >> 63 else value
            elif number == _ORPHAN:
                options["orphanDependents"] = bool(value)
        elif number == _PRECONDITIONS:
            options["preconditions"] = _preconditions(value)
        elif number == _PROPAGATION and value:
            options["propagationPolicy"] = value.decode()
        elif number == _DRY_RUN:
            options.setdefault("dryRun", []).append(value.decode())
    return options


def _preconditions(message: bytes) -> Json:
    names = {_UID: "uid", _RESOURCE_VERSION: "resourceVersion"}
    found = {names[number]: value for number, value in _fields(message) if number in names}
    return {name: value.decode() for name, value in found.items() if isinstance(value, bytes) and value}


def _one(message: bytes, wanted: int) -> bytes:
    return next(
        (value for number, value in _fields(message) if number == wanted and isinstance(value, bytes)), b""
    )


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field that is a number or has a length. Raises ValueError if the message is cut
    off."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field has the unknown wire type {wire}")
        if at + size > len(message):
            raise ValueError("it is cut off")
        if wire == _BYTES:
            yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where it ends."""
    number = 0
    for shift, byte in enumerate(message[at : at + _MOST]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number & ((1 << 64) - 1), at + shift + 1
    raise ValueError("it is cut off")
